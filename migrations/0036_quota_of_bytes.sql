-- Quotas of bytes: what images hold, and what disks have left in sealed layers.

INSERT INTO quota_defaults (resource, limit_value) VALUES ('image_gib', 500), ('snapshot_gib', 5000);
INSERT INTO project_quotas (project_id, resource)
SELECT p.id, r FROM projects p CROSS JOIN unnest('{image_gib,snapshot_gib}'::text[]) r ON CONFLICT DO NOTHING;

-- As 0008_quotas.sql has it, and what only moves from one row to another, or has to happen, is charged beyond the limit:
-- while cumulo.charge_anyway is on.
CREATE OR REPLACE FUNCTION charge_project(project uuid, amounts jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    exceeded jsonb;
BEGIN
    PERFORM 1 FROM project_quotas q WHERE q.project_id = project ORDER BY q.resource FOR NO KEY UPDATE;
    UPDATE project_quotas q SET used = q.used + a.value::bigint
    FROM jsonb_each_text(amounts) a WHERE q.project_id = project AND q.resource = a.key;
    IF current_setting('cumulo.charge_anyway', true) = 'on' THEN
        RETURN;
    END IF;

    SELECT jsonb_agg(jsonb_build_object('resource', q.resource, 'limit', l.value,
                                        'used', q.used - a.value::bigint, 'asked', a.value::bigint)
                     ORDER BY q.resource)
    INTO exceeded
    FROM project_quotas q
    JOIN quota_defaults d USING (resource)
    JOIN jsonb_each_text(amounts) a ON a.key = q.resource
    CROSS JOIN LATERAL (SELECT CASE WHEN q.overridden THEN q.limit_value ELSE d.limit_value END) l (value)
    WHERE q.project_id = project AND a.value::bigint > 0 AND q.used > l.value;
    IF exceeded IS NOT NULL THEN
        RAISE EXCEPTION 'quota exceeded' USING ERRCODE = 'QE001', DETAIL = exceeded;
    END IF;
END $$;

-- Bytes in GiB, a part of one as a whole one.
CREATE FUNCTION whole_gib(bytes bigint) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT ((bytes + (1::bigint << 30) - 1) >> 30)::integer
$$;

-- Images: what is stored, whoever else has the same bytes.
ALTER TABLE images ADD COLUMN content_gib integer NOT NULL DEFAULT 0;
UPDATE images i SET content_gib = whole_gib(b.size_bytes) FROM blobs b WHERE b.id = i.blob_id;
CREATE FUNCTION measure_image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.content_gib := coalesce((SELECT whole_gib(b.size_bytes) FROM blobs b WHERE b.id = NEW.blob_id), 0);
    RETURN NEW;
END $$;
CREATE TRIGGER images_measure BEFORE INSERT OR UPDATE OF blob_id ON images FOR EACH ROW EXECUTE FUNCTION measure_image();
CALL count_in_quota('image_gib', 'images', 'content_gib');

-- Uploads in parts: as much as was announced, until they end or their image does.
ALTER TABLE image_uploads
    ADD COLUMN project_id uuid REFERENCES projects ON DELETE SET NULL,
    ADD COLUMN held_gib   integer NOT NULL GENERATED ALWAYS AS (whole_gib(size_bytes)) STORED;
UPDATE image_uploads u SET project_id = i.project_id FROM images i WHERE i.id = u.image_id AND NOT u.ended;
CREATE FUNCTION note_project_of_upload() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.project_id := CASE WHEN NOT NEW.ended THEN (SELECT i.project_id FROM images i WHERE i.id = NEW.image_id) END;
    RETURN NEW;
END $$;
CREATE TRIGGER image_uploads_project BEFORE INSERT OR UPDATE OF image_id, ended ON image_uploads
    FOR EACH ROW EXECUTE FUNCTION note_project_of_upload();
CREATE INDEX image_uploads_of_project ON image_uploads (project_id) WHERE project_id IS NOT NULL;
CALL count_in_quota('image_gib', 'image_uploads', 'held_gib');

-- Files on their way: as much as was announced or has come, whichever is more, until they are kept or given up.
ALTER TABLE blobs
    ADD COLUMN project_id uuid REFERENCES projects ON DELETE SET NULL,
    ADD COLUMN held_gib   integer NOT NULL DEFAULT 0 CHECK (held_gib >= 0);
CREATE FUNCTION let_go_of_blob() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.project_id := NULL;
    NEW.held_gib := 0;
    RETURN NEW;
END $$;
CREATE TRIGGER blobs_let_go BEFORE UPDATE OF state ON blobs
    FOR EACH ROW WHEN (NEW.state <> 'receiving' AND NEW.project_id IS NOT NULL) EXECUTE FUNCTION let_go_of_blob();
CREATE INDEX blobs_of_project ON blobs (project_id) WHERE project_id IS NOT NULL;
CALL count_in_quota('image_gib', 'blobs', 'held_gib');

-- Sealed layers: what each can hold at most, which is the size that its volume had, until its file is gone. Nobody writes
-- to it any more, and its volume writes as much again to the one above. Memory counts for disk_gib.
ALTER TABLE layers
    ADD COLUMN project_id uuid REFERENCES projects ON DELETE SET NULL,
    ADD COLUMN held_gib   integer NOT NULL DEFAULT 0 CHECK (held_gib >= 0);
UPDATE layers l SET project_id = h.project_id, held_gib = CASE WHEN l.untouched THEN 0 ELSE h.size_gib END
FROM (SELECT DISTINCT ON (layer) layer, project_id, size_gib
      FROM (SELECT sv.layer_id AS layer, s.project_id, sv.size_gib
            FROM snapshot_volumes sv JOIN snapshots s ON s.id = sv.snapshot_id
            UNION ALL
            SELECT c.id, v.project_id, v.size_gib
            FROM volumes v CROSS JOIN LATERAL unnest(chain_of(v.layer_id)) c (id)) holders
      ORDER BY layer, size_gib DESC) h
WHERE l.id = h.layer AND l.sealed AND l.memory_gib = 0;
CREATE INDEX layers_of_project ON layers (project_id) WHERE project_id IS NOT NULL;
CALL count_in_quota('snapshot_gib', 'layers', 'held_gib');

-- As 0025_shared_pools.sql has it, and what is sealed counts for the project.
CREATE OR REPLACE FUNCTION cover_layer(of_volume uuid, new_layer uuid, at timestamptz) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    top    uuid;
    below  uuid;
    owner  uuid;
    holds  integer;
BEGIN
    SELECT l.id, CASE WHEN l.untouched THEN l.parent_id END, v.project_id, CASE WHEN l.untouched THEN 0 ELSE v.size_gib END
    INTO top, below, owner, holds
    FROM layers l JOIN volumes v ON v.layer_id = l.id WHERE v.id = of_volume;
    IF below IS NOT NULL THEN
        RETURN below;
    END IF;
    -- One statement, because a sealed layer has no writer and an open one carries nothing.
    WITH sealed AS (UPDATE layers SET sealed = true, project_id = owner, held_gib = holds WHERE id = top),
         made AS (INSERT INTO layers (id, host_id, pool_id, parent_id, created_at)
                  SELECT new_layer, host_id, pool_id, id, at FROM layers WHERE id = top)
    UPDATE volumes SET layer_id = new_layer, spec_generation = spec_generation + 1, updated_at = at
    WHERE id = of_volume;
    RETURN top;
END $$;

-- As 0022_snapshots.sql has it. A layer that is sealed in order to be merged is charged beyond the limit: room comes of it.
CREATE OR REPLACE FUNCTION plan_merge(of_volume uuid, in_instance uuid, new_layer uuid, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    chain uuid[];
    above uuid;
BEGIN
    PERFORM FROM volumes_to_merge() m WHERE m.volume = of_volume AND m.instance = in_instance;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT chain_of(layer_id) INTO chain FROM volumes WHERE id = of_volume;
    PERFORM FROM layers WHERE id = ANY (chain) ORDER BY id FOR UPDATE;
    FOR n IN 1 .. cardinality(chain) - 1 LOOP
        CONTINUE WHEN layer_held(chain[n]) OR only_volume_above(chain[n]) IS DISTINCT FROM of_volume;
        above := chain[n + 2];
        IF above IS NOT NULL THEN
            UPDATE layers SET parent_merge = 'asked' WHERE id = above;
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

-- As 0022_snapshots.sql has it, and the layer below may hold more from now on.
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
    UPDATE layers SET parent_id = below, parent_merge = NULL WHERE id = layer;
    IF NOT EXISTS (SELECT FROM layers c WHERE c.parent_id = between_them AND c.kept) THEN
        -- There is the same in both.
        UPDATE snapshot_volumes SET layer_id = below WHERE layer_id = between_them;
        RETURN QUERY SELECT * FROM remove_layers(ARRAY[between_them], at);
    END IF;
    UPDATE layers SET spare = false WHERE id = below;
END $$;

-- As 0035_charges_before_reservations.sql has them, and layers give back, too.
CREATE OR REPLACE FUNCTION lock_before_going(gone uuid[], let_go uuid[], removals uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ports WHERE instance_id = ANY (gone) OR id = ANY (let_go) ORDER BY id FOR UPDATE;
    PERFORM lock_quotas(ARRAY(SELECT project_id FROM instances WHERE id = ANY (gone)
                              UNION SELECT project_id FROM ports WHERE id = ANY (let_go)
                              UNION SELECT project_id FROM volumes WHERE removal_id = ANY (removals)
                              UNION SELECT project_id FROM layers WHERE removal_id = ANY (removals)));
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
    UPDATE layers SET parent_id = NULL, parent_merge = NULL
    WHERE removal_id <> ALL (done) AND parent_id IN (SELECT id FROM layers WHERE removal_id = ANY (done));
    DELETE FROM layers WHERE removal_id = ANY (done);
    DELETE FROM layer_removals WHERE id = ANY (done);
END $$;

-- What a schedule takes and when can be changed. Of what it made before of something else it deletes nothing.
CREATE OR REPLACE FUNCTION surplus_snapshots() RETURNS TABLE (id uuid) LANGUAGE sql STABLE AS $$
    WITH made AS (
        SELECT s.id, s.schedule_id, s.state, s.created_at, c.keep
        FROM snapshots s JOIN snapshot_schedules c ON c.id = s.schedule_id
        WHERE CASE WHEN c.instance_id IS NOT NULL THEN s.instance_id = c.instance_id
                   ELSE s.instance_id IS NULL AND EXISTS (
                       SELECT FROM snapshot_volumes v WHERE v.snapshot_id = s.id AND v.volume_id = c.volume_id) END)
    SELECT s.id FROM made s
    WHERE s.state <> 'creating'
      AND CASE WHEN s.state = 'failed' THEN 1 ELSE s.keep END <= (
          SELECT count(*) FROM made n
          WHERE n.schedule_id = s.schedule_id AND (n.created_at, n.id) > (s.created_at, s.id)
            AND (n.state = 'available' OR s.state = 'failed'))
$$;
DROP TRIGGER snapshot_schedules_event_created ON snapshot_schedules;
DROP TRIGGER snapshot_schedules_event_updated ON snapshot_schedules;
DROP TRIGGER snapshot_schedules_event_state ON snapshot_schedules;
DROP TRIGGER snapshot_schedules_event_deleted ON snapshot_schedules;
CALL record_events('snapshot_schedules', 'snapshot_schedule',
    '{name,description,labels,keep,paused,every_hours,at_minute,weekday,volume_id,instance_id}', '{last_due_at,last_failure}');

-- When volumes went back to a snapshot last.
ALTER TABLE snapshots ADD COLUMN restored_at timestamptz;
DROP TRIGGER snapshots_event_created ON snapshots;
DROP TRIGGER snapshots_event_updated ON snapshots;
DROP TRIGGER snapshots_event_state ON snapshots;
DROP TRIGGER snapshots_event_deleted ON snapshots;
CALL record_events('snapshots', 'snapshot', '{name,description,labels}', '{state,restored_at}');

-- INVARIANT: as 0024_pool_usage.sql has it; and neither does a volume that is made of what is there, nor the memory of a guest.
CREATE TRIGGER volumes_made_in_low_pool AFTER INSERT ON volumes
    FOR EACH ROW WHEN (NEW.host_id IS NOT NULL) EXECUTE FUNCTION refuse_low_pool();
CREATE TRIGGER layers_memory_in_low_pool AFTER INSERT ON layers
    FOR EACH ROW WHEN (NEW.memory_gib > 0 AND NEW.host_id IS NOT NULL) EXECUTE FUNCTION refuse_low_pool();
