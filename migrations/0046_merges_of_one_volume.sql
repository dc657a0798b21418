-- A merge is for one volume. Were two hosts told of the same one, the first that has done it would remove a file that the
-- other still reads.

ALTER TABLE layers
    -- The volume that was asked to merge what this layer stands on; NULL when that is gone.
    ADD COLUMN merge_of uuid REFERENCES volumes ON DELETE SET NULL,
    ADD CONSTRAINT layers_merge_for_somebody CHECK (merge_of IS NULL OR parent_merge IS NOT NULL);
CREATE INDEX layers_of_merge ON layers (merge_of) WHERE merge_of IS NOT NULL;
UPDATE layers SET merge_of = only_volume_above(id) WHERE parent_merge IS NOT NULL;

-- Whether something in the chain of a layer is merged just now, unless this volume was asked for it. INVARIANT: nobody
-- begins anything on such a layer, which is locked, or its volume.
CREATE FUNCTION merging_below(layer uuid, own uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM layers d WHERE d.id = ANY (chain_of(layer)) AND d.parent_merge IS NOT NULL
                                          AND (own IS NULL OR d.merge_of IS DISTINCT FROM own))
$$;

-- Takes merges back that nobody will carry out: their volume is gone, or in no instance, or went back to something else, and
-- its host knows.
CREATE FUNCTION take_back_merges() RETURNS void LANGUAGE sql AS $$
    UPDATE layers SET parent_merge = NULL, merge_of = NULL WHERE id IN (
        SELECT d.id FROM layers d
        WHERE d.parent_merge = 'asked' AND (d.merge_of IS NULL OR EXISTS (
            SELECT FROM volumes v
            WHERE v.id = d.merge_of
              AND (v.instance_id IS NULL
                   OR d.id <> ALL (chain_of(v.layer_id))
                      AND coalesce(v.observed_generation >= v.spec_generation AND v.observed_state = 'ready', false))))
        FOR UPDATE SKIP LOCKED)
$$;

-- As 0025_shared_pools.sql has it, and a volume hears of its own merges only.
CREATE OR REPLACE FUNCTION instance_disks(instance uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', v.id, 'generation', v.spec_generation, 'size_gib', v.size_gib, 'pool', p.name,
               'layers', chain.layers,
               'merges', ARRAY(SELECT d.parent_id FROM layers d
                               WHERE d.id = ANY (chain.layers) AND d.parent_merge IS NOT NULL AND d.merge_of = v.id
                               ORDER BY d.parent_id),
               'iops', v.iops_limit, 'bytes_per_second', v.bytes_per_second_limit,
               'image', CASE WHEN v.image_id IS NOT NULL THEN jsonb_build_object(
                   'sha256', encode(b.sha256, 'hex'), 'format', b.format, 'size_bytes', b.size_bytes,
                   'virtual_size_bytes', b.virtual_size_bytes) END)
           ORDER BY v.position), '[]')
    FROM volumes v LEFT JOIN images m ON m.id = v.image_id LEFT JOIN blobs b ON b.id = m.blob_id
    LEFT JOIN pools p ON p.id = v.pool_id
    CROSS JOIN LATERAL chain_of(v.layer_id) chain (layers)
    WHERE v.instance_id = instance AND v.attachment_state <> 'detaching'
$$;

-- As 0036_quota_of_bytes.sql has it: the chain of this volume says whether there is something to do, and whoever is asked is
-- noted.
CREATE OR REPLACE FUNCTION plan_merge(of_volume uuid, in_instance uuid, new_layer uuid, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    chain uuid[];
    above uuid;
BEGIN
    SELECT chain_of(v.layer_id) INTO chain
    FROM volumes v JOIN instances i ON i.id = v.instance_id
    WHERE v.id = of_volume AND i.id = in_instance AND v.attachment_state <> 'detaching'
      AND i.host_id IS NOT NULL AND i.deletion_requested_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM layers WHERE id = ANY (chain) ORDER BY id FOR UPDATE;
    PERFORM FROM layers WHERE id = ANY (chain) AND parent_merge IS NOT NULL;
    IF FOUND THEN
        RETURN false;
    END IF;
    FOR n IN 1 .. cardinality(chain) - 1 LOOP
        CONTINUE WHEN layer_held(chain[n]) OR only_volume_above(chain[n]) IS DISTINCT FROM of_volume;
        above := chain[n + 2];
        IF above IS NOT NULL THEN
            UPDATE layers SET parent_merge = 'asked', merge_of = of_volume WHERE id = above;
            UPDATE volumes SET spec_generation = spec_generation + 1, updated_at = at WHERE id = of_volume;
            RETURN true;
        END IF;
        UPDATE layers SET spare = false WHERE id = chain[n] AND spare;
        IF FOUND THEN
            PERFORM set_config('cumulo.charge_anyway', 'on', true);
            PERFORM cover_layer(of_volume, new_layer, at);
            PERFORM set_config('cumulo.charge_anyway', 'off', true);
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;

-- As 0036_quota_of_bytes.sql has them; what nobody merges any more is for nobody.
CREATE OR REPLACE FUNCTION finish_merge(layer uuid, at timestamptz) RETURNS TABLE (removal uuid, host uuid) LANGUAGE plpgsql AS $$
DECLARE
    between_them uuid;
    below        uuid;
BEGIN
    PERFORM FROM snapshot_volumes s WHERE s.layer_id = (SELECT l.parent_id FROM layers l WHERE l.id = layer)
    ORDER BY s.snapshot_id FOR UPDATE;
    PERFORM FROM layers l WHERE l.id = ANY (chain_of(layer)) ORDER BY l.id FOR UPDATE;
    SELECT c.id, c.parent_id INTO between_them, below
    FROM layers d JOIN layers c ON c.id = d.parent_id WHERE d.id = layer AND d.parent_merge = 'done';
    IF below IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('cumulo.charge_anyway', 'on', true);
    UPDATE layers l SET project_id = coalesce(l.project_id, c.project_id), held_gib = greatest(l.held_gib, c.held_gib)
    FROM layers c WHERE l.id = below AND c.id = between_them;
    PERFORM set_config('cumulo.charge_anyway', 'off', true);
    UPDATE volumes SET spec_generation = spec_generation + 1, updated_at = at
    WHERE id IN (SELECT volumes_above(layer));
    UPDATE layers SET parent_id = below, parent_merge = NULL, merge_of = NULL WHERE id = layer;
    IF NOT EXISTS (SELECT FROM layers c WHERE c.parent_id = between_them AND c.kept) THEN
        -- There is the same in both.
        UPDATE snapshot_volumes SET layer_id = below WHERE layer_id = between_them;
        RETURN QUERY SELECT * FROM remove_layers(ARRAY[between_them], at);
    END IF;
    UPDATE layers SET spare = false WHERE id = below;
END $$;

CREATE OR REPLACE FUNCTION forget_removals(done uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_quotas(ARRAY(SELECT project_id FROM volumes WHERE removal_id = ANY (done)
                              UNION SELECT project_id FROM layers WHERE removal_id = ANY (done)));
    PERFORM FROM pools WHERE id IN (SELECT pool_id FROM volumes WHERE removal_id = ANY (done)
                                    UNION SELECT pool_id FROM layers WHERE removal_id = ANY (done) AND memory_gib > 0)
    ORDER BY id FOR NO KEY UPDATE;
    DELETE FROM volumes WHERE removal_id = ANY (done);
    -- What is removed later may stand on what is gone.
    UPDATE layers SET parent_id = NULL, parent_merge = NULL, merge_of = NULL
    WHERE removal_id <> ALL (done) AND parent_id IN (SELECT id FROM layers WHERE removal_id = ANY (done));
    DELETE FROM layers WHERE removal_id = ANY (done);
    DELETE FROM layer_removals WHERE id = ANY (done);
END $$;
