-- Snapshots: layers of volumes that have a name, and what becomes of layers that nobody needs any more.
--
-- Everybody locks in this order: instances, volumes by id, snapshots by id, layers, then as 0014_networks.sql says.

-- Orders to hosts to remove files. A row lives until its host has said that they are gone.
CREATE TABLE layer_removals (
    id               uuid PRIMARY KEY,
    host_id          uuid NOT NULL REFERENCES hosts,
    -- The host's revision that tells it; NULL is told with the end of an instance.
    desired_revision bigint,
    created_at       timestamptz NOT NULL
);
CREATE INDEX layer_removals_of_host ON layer_removals (host_id, desired_revision);

ALTER TABLE layers
    ADD COLUMN removal_id uuid REFERENCES layer_removals,
    -- Nothing was ever written to it: what it reads is what is below.
    ADD COLUMN untouched boolean NOT NULL DEFAULT false,
    -- Nobody names it any more, but others stand on it: what is above shall become one with it.
    ADD COLUMN spare boolean NOT NULL DEFAULT false,
    -- Whether what it stands on shall become one with the layer below that, so that it stands on that one; and
    -- whether a host has said that it does.
    ADD COLUMN parent_merge text CHECK (parent_merge IN ('asked', 'done')),
    ADD CONSTRAINT layers_merge_what_they_stand_on CHECK (parent_merge IS NULL OR parent_id IS NOT NULL);
ALTER TABLE volumes ADD COLUMN removal_id uuid REFERENCES layer_removals;

-- The removals of the release before go by the ids of their volumes.
INSERT INTO layer_removals (id, host_id, desired_revision, created_at)
SELECT id, host_id, CASE WHEN instance_id IS NULL THEN desired_revision END, deletion_requested_at
FROM volumes WHERE deletion_requested_at IS NOT NULL AND host_id IS NOT NULL;
UPDATE layers SET removal_id = removed_with WHERE removed_with IN (SELECT id FROM layer_removals);
UPDATE volumes SET removal_id = id WHERE deletion_requested_at IS NOT NULL;

DROP FUNCTION doom_layers(uuid);
DROP FUNCTION forget_volumes(uuid[]);
DROP INDEX volumes_of_host;
ALTER TABLE volumes
    DROP CONSTRAINT volumes_removed_by_somebody,
    DROP COLUMN desired_revision,
    ADD CONSTRAINT volumes_removed_by_order CHECK ((deletion_requested_at IS NULL) = (removal_id IS NULL)),
    ADD CONSTRAINT volumes_removed_go_with_their_instance CHECK (
        deletion_requested_at IS NULL OR instance_id IS NULL OR delete_with_instance);
CREATE INDEX volumes_of_host ON volumes (host_id);
CREATE INDEX volumes_of_removal ON volumes (removal_id) WHERE removal_id IS NOT NULL;
ALTER TABLE layers
    DROP COLUMN removed_with,
    -- For the key of snapshots.
    ADD COLUMN kept boolean NOT NULL GENERATED ALWAYS AS (removal_id IS NULL) STORED,
    ADD CONSTRAINT layers_held_unique UNIQUE (id, sealed, kept);
CREATE INDEX layers_of_removal ON layers (removal_id) WHERE removal_id IS NOT NULL;
CREATE INDEX layers_merging ON layers (id) WHERE parent_merge IS NOT NULL;

CREATE TABLE snapshots (
    id                 uuid PRIMARY KEY,
    project_id         uuid NOT NULL REFERENCES projects,
    name               text NOT NULL,
    description        text NOT NULL DEFAULT '',
    labels             jsonb NOT NULL,
    generation         bigint NOT NULL DEFAULT 1,
    state              text NOT NULL CHECK (state IN ('creating', 'available', 'failed')),
    consistency        text NOT NULL CHECK (consistency IN ('crash', 'filesystem')),
    -- Why it failed.
    failure            text,
    -- When what it shows was so.
    taken_at           timestamptz,
    -- The instance whose host takes it, and the boot of its guest.
    taking_instance_id uuid REFERENCES instances,
    taking_boot        bigint,
    -- Then it has failed.
    due_at             timestamptz,

    -- Of an instance: which one, and what it takes to make it again. It may be gone.
    instance_id        uuid,
    instance_name      text,
    instance_type_id   uuid,
    instance_type_name text,
    image_id           uuid REFERENCES images,
    firmware           text,

    -- The call that made it, where a host had to act.
    operation_id       uuid REFERENCES operations,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CONSTRAINT snapshots_name_unique UNIQUE (project_id, name),
    CONSTRAINT snapshots_taken_by_somebody CHECK (
        (state = 'creating') = (taking_instance_id IS NOT NULL)
        AND (taking_instance_id IS NULL) = (taking_boot IS NULL)
        AND (due_at IS NULL OR state = 'creating')),
    CONSTRAINT snapshots_say_how_it_went CHECK (
        (state = 'failed') = (failure IS NOT NULL) AND (state = 'available') = (taken_at IS NOT NULL)),
    CONSTRAINT snapshots_of_an_instance_whole CHECK (
        num_nonnulls(instance_id, instance_name, instance_type_id, instance_type_name, image_id, firmware) IN (0, 6)),
    -- A guest is frozen for one snapshot at a time, and a disk changes its layers for one.
    CONSTRAINT snapshots_one_at_a_time UNIQUE (taking_instance_id)
);
CREATE INDEX snapshots_of_project ON snapshots (project_id, id);
CREATE INDEX snapshots_of_image ON snapshots (image_id);
CREATE INDEX snapshots_due ON snapshots (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE snapshot_volumes (
    snapshot_id     uuid NOT NULL REFERENCES snapshots ON DELETE CASCADE,
    -- As in the instance; 0 for the snapshot of a volume.
    position        integer NOT NULL CHECK (position BETWEEN 0 AND 15),
    -- The volume, as long as it is there, and how it was called.
    volume_id       uuid REFERENCES volumes ON DELETE SET NULL,
    volume_name     text NOT NULL,
    size_gib        integer NOT NULL CHECK (size_gib > 0),
    -- What its lowest layer stands on.
    image_id        uuid REFERENCES images,
    -- What it holds: everything that was written until then. NULL when it has failed.
    layer_id        uuid,
    -- The generation of the volume that was made for it.
    spec_generation bigint NOT NULL,
    layer_sealed    boolean NOT NULL GENERATED ALWAYS AS (true) STORED,
    layer_kept      boolean NOT NULL GENERATED ALWAYS AS (true) STORED,
    PRIMARY KEY (snapshot_id, position),
    CONSTRAINT snapshots_hold_sealed_layers_that_stay FOREIGN KEY (layer_id, layer_sealed, layer_kept)
        REFERENCES layers (id, sealed, kept)
);
CREATE INDEX snapshot_volumes_of_volume ON snapshot_volumes (volume_id);
CREATE INDEX snapshot_volumes_of_layer ON snapshot_volumes (layer_id);
CREATE INDEX snapshot_volumes_of_image ON snapshot_volumes (image_id);

INSERT INTO quota_defaults (resource, limit_value) VALUES ('snapshots', 100);
CALL count_in_quota('snapshots', 'snapshots');
CALL record_events('snapshots', 'snapshot', '{name,description,labels}', '{state}');

-- Whether the guest's file systems are frozen while layers are added.
ALTER TABLE instances
    ADD COLUMN freezes boolean NOT NULL DEFAULT false,
    -- The generation that changed nothing but disks of a guest of which its host had said that it does not run: that holds
    -- without another word.
    ADD COLUMN off_generation bigint;
-- INVARIANT: decided anew with each generation, and with nothing else: a generation means one specification.
CREATE FUNCTION decide_freeze() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.freezes := EXISTS (SELECT FROM snapshots
                          WHERE taking_instance_id = NEW.id AND consistency = 'filesystem');
    RETURN NEW;
END $$;
CREATE TRIGGER instances_freeze BEFORE UPDATE ON instances
    FOR EACH ROW WHEN (OLD.generation IS DISTINCT FROM NEW.generation) EXECUTE FUNCTION decide_freeze();

-- Whether somebody needs a layer as it is, not only what stands on it. A later migration that knows of others writes
-- this function anew.
CREATE FUNCTION layer_held(layer uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM snapshot_volumes WHERE layer_id = layer)
$$;

-- What nobody needs when these layers are given up: each of them and what it stands on, as far down as nobody holds
-- it and nothing else stands on it. The layer on which that ends is spare, unless somebody holds it.
CREATE FUNCTION unneeded_layers(given_up uuid[]) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    unneeded uuid[] := '{}';
    layer    uuid;
BEGIN
    -- Whoever gives up one of these beside this one waits here, and sees what this one has taken.
    PERFORM FROM layers WHERE id IN (SELECT unnest(chain_of(top)) FROM unnest(given_up) top) ORDER BY id FOR UPDATE;
    FOREACH layer IN ARRAY given_up LOOP
        WHILE layer IS NOT NULL AND NOT layer_held(layer)
              AND NOT EXISTS (SELECT FROM layers c WHERE c.parent_id = layer AND c.kept AND c.id <> ALL (unneeded)) LOOP
            unneeded := unneeded || layer;
            layer := (SELECT l.parent_id FROM layers l WHERE l.id = layer);
        END LOOP;
        UPDATE layers l SET spare = true WHERE l.id = layer AND NOT layer_held(layer);
    END LOOP;
    RETURN unneeded;
END $$;

-- Gives up layers. Those on no host are gone at once; for the others each host gets an order, at a new revision or,
-- when `told` is false, with the end of an instance.
CREATE FUNCTION remove_layers(given_up uuid[], at timestamptz, told boolean DEFAULT true)
RETURNS TABLE (removal uuid, host uuid) LANGUAGE plpgsql AS $$
DECLARE
    unneeded CONSTANT uuid[] := unneeded_layers(given_up);
    revision bigint;
BEGIN
    DELETE FROM layers WHERE id = ANY (unneeded) AND host_id IS NULL;
    FOR host IN SELECT DISTINCT host_id FROM layers WHERE id = ANY (unneeded) ORDER BY host_id LOOP
        removal := gen_random_uuid();
        revision := NULL;
        IF told THEN
            UPDATE hosts SET desired_revision = desired_revision + 1 WHERE id = host
            RETURNING desired_revision INTO revision;
        END IF;
        INSERT INTO layer_removals (id, host_id, desired_revision, created_at)
        VALUES (removal, host, revision, at);
        UPDATE layers SET removal_id = removal WHERE id = ANY (unneeded) AND host_id = host;
        RETURN NEXT;
    END LOOP;
END $$;

-- The files that these orders name are gone, and with them the volumes that they were of.
CREATE FUNCTION forget_removals(done uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM volumes WHERE removal_id = ANY (done);
    -- What is removed later may stand on what is gone.
    UPDATE layers SET parent_id = NULL, parent_merge = NULL
    WHERE removal_id <> ALL (done) AND parent_id IN (SELECT id FROM layers WHERE removal_id = ANY (done));
    DELETE FROM layers WHERE removal_id = ANY (done);
    DELETE FROM layer_removals WHERE id = ANY (done);
END $$;

-- A volume that no instance has had since it got its layer has written nothing to it.
CREATE FUNCTION note_untouched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE layers SET untouched = (NEW.instance_id IS NULL) WHERE id = NEW.layer_id;
    RETURN NULL;
END $$;
CREATE TRIGGER volumes_untouched_new AFTER INSERT ON volumes FOR EACH ROW EXECUTE FUNCTION note_untouched();
CREATE TRIGGER volumes_untouched AFTER UPDATE ON volumes
    FOR EACH ROW WHEN (OLD.layer_id <> NEW.layer_id OR OLD.instance_id IS NULL AND NEW.instance_id IS NOT NULL)
    EXECUTE FUNCTION note_untouched();

-- Seals the layer that a volume writes to, gives the volume a new one over it, and returns the sealed one. Where nothing was
-- written to it that is the one below, and nothing changes: otherwise snapshots of what nobody uses would add layers that
-- no host can merge.
CREATE FUNCTION cover_layer(of_volume uuid, new_layer uuid, at timestamptz) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    top   uuid;
    below uuid;
BEGIN
    SELECT l.id, CASE WHEN l.untouched THEN l.parent_id END INTO top, below
    FROM layers l JOIN volumes v ON v.layer_id = l.id WHERE v.id = of_volume;
    IF below IS NOT NULL THEN
        RETURN below;
    END IF;
    -- One statement, because a sealed layer has no writer and an open one carries nothing.
    WITH sealed AS (UPDATE layers SET sealed = true WHERE id = top),
         made AS (INSERT INTO layers (id, host_id, parent_id, created_at)
                  SELECT new_layer, host_id, id, at FROM layers WHERE id = top)
    UPDATE volumes SET layer_id = new_layer, spec_generation = spec_generation + 1, updated_at = at
    WHERE id = of_volume;
    RETURN top;
END $$;

-- The volume that writes to this layer, or to the only one that stands on it, and so on; NULL when two stand on one.
CREATE FUNCTION only_volume_above(layer uuid) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
DECLARE
    above uuid[] := ARRAY[layer];
BEGIN
    WHILE cardinality(above) = 1 LOOP
        layer := above[1];
        above := ARRAY(SELECT id FROM layers WHERE parent_id = layer);
    END LOOP;
    RETURN (SELECT id FROM volumes WHERE layer_id = layer AND removal_id IS NULL AND cardinality(above) = 0);
END $$;

-- Volumes of which something should be merged now: an instance on a host has them, and alone stands on a layer that
-- nobody holds.
CREATE FUNCTION volumes_to_merge() RETURNS TABLE (volume uuid, instance uuid) LANGUAGE sql STABLE AS $$
    SELECT DISTINCT v.id, v.instance_id
    FROM layers l
    JOIN layers c ON c.parent_id = l.id
    CROSS JOIN LATERAL only_volume_above(l.id) above
    JOIN volumes v ON v.id = above
    JOIN instances i ON i.id = v.instance_id
    WHERE l.sealed AND l.kept AND (c.sealed OR l.spare) AND NOT layer_held(l.id)
      AND i.host_id IS NOT NULL AND i.deletion_requested_at IS NULL AND v.attachment_state <> 'detaching'
      AND NOT EXISTS (SELECT FROM layers m WHERE m.parent_merge IS NOT NULL AND m.id = ANY (chain_of(v.layer_id)))
$$;

-- Asks for the next merge in the chain of a volume, which is locked with this instance: of the lowest layer that can
-- become one with what it stands on, or by a new layer at the top, so that the one that was there can. False when
-- there is nothing to do. The caller tells the host.
CREATE FUNCTION plan_merge(of_volume uuid, in_instance uuid, new_layer uuid, at timestamptz) RETURNS boolean
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
            PERFORM cover_layer(of_volume, new_layer, at);
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;

-- The volumes that stand on a layer.
CREATE FUNCTION volumes_above(layer uuid) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE tree (id) AS (
        SELECT layer
        UNION ALL
        SELECT l.id FROM tree t JOIN layers l ON l.parent_id = t.id)
    SELECT v.id FROM tree t JOIN volumes v ON v.layer_id = t.id
$$;

-- Takes a merge in that a host has carried out: the layer stands on the one below from now on, and the one between
-- goes unless somebody needs it. All volumes above are locked with their instances. Returns the orders to hosts.
CREATE FUNCTION finish_merge(layer uuid, at timestamptz) RETURNS TABLE (removal uuid, host uuid) LANGUAGE plpgsql AS $$
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

-- Puts an instance's volumes on its host. As 0018_volumes.sql has it, but whoever puts a layer on one of these beside it
-- is waited for.
CREATE OR REPLACE FUNCTION place_volumes(instance uuid, host uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM layers WHERE id IN (SELECT layers_to_place(instance)) ORDER BY id FOR UPDATE;
    WITH going AS MATERIALIZED (SELECT layers_to_place(instance) AS id),
         gone AS (UPDATE layers SET host_id = host WHERE id IN (SELECT id FROM going))
    UPDATE volumes SET host_id = host WHERE layer_id IN (SELECT id FROM going);
END $$;

-- An instance's disks in their order, for its host: what is on its way out is not among them.
CREATE OR REPLACE FUNCTION instance_disks(instance uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', v.id, 'generation', v.spec_generation, 'size_gib', v.size_gib,
               'layers', chain.layers,
               'merges', ARRAY(SELECT d.parent_id FROM layers d
                               WHERE d.id = ANY (chain.layers) AND d.parent_merge IS NOT NULL ORDER BY d.parent_id),
               'iops', v.iops_limit, 'bytes_per_second', v.bytes_per_second_limit,
               'image', CASE WHEN v.image_id IS NOT NULL THEN jsonb_build_object(
                   'sha256', encode(b.sha256, 'hex'), 'format', b.format, 'size_bytes', b.size_bytes,
                   'virtual_size_bytes', b.virtual_size_bytes) END)
           ORDER BY v.position), '[]')
    FROM volumes v LEFT JOIN images m ON m.id = v.image_id LEFT JOIN blobs b ON b.id = m.blob_id
    CROSS JOIN LATERAL chain_of(v.layer_id) chain (layers)
    WHERE v.instance_id = instance AND v.attachment_state <> 'detaching'
$$;

-- Schedules: snapshots at regular times. Locked after volumes and before snapshots.
CREATE TABLE snapshot_schedules (
    id               uuid PRIMARY KEY,
    project_id       uuid NOT NULL REFERENCES projects,
    name             text NOT NULL,
    description      text NOT NULL DEFAULT '',
    labels           jsonb NOT NULL,
    generation       bigint NOT NULL DEFAULT 1,
    -- What it takes. It goes with that.
    volume_id        uuid REFERENCES volumes ON DELETE CASCADE,
    instance_id      uuid REFERENCES instances ON DELETE CASCADE,
    consistency      text NOT NULL CHECK (consistency IN ('crash', 'filesystem')),
    -- Every so many hours since it was made; or at a minute of the day in UTC, on one day of the week (0 is Monday) or
    -- on each.
    every_hours      smallint CHECK (every_hours BETWEEN 1 AND 168),
    at_minute        smallint CHECK (at_minute BETWEEN 0 AND 1439),
    weekday          smallint CHECK (weekday BETWEEN 0 AND 6),
    -- How many of its snapshots stay.
    keep             smallint NOT NULL CHECK (keep BETWEEN 1 AND 100),
    paused           boolean NOT NULL DEFAULT false,
    -- The next slot. INVARIANT: moved on in the transaction that runs the slot.
    next_at          timestamptz NOT NULL,
    -- The slot that was run last, and what it came to; that snapshot may be deleted.
    last_due_at      timestamptz,
    last_failure     text,
    last_snapshot_id uuid,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CONSTRAINT snapshot_schedules_name_unique UNIQUE (project_id, name),
    CONSTRAINT snapshot_schedules_of_one_thing CHECK (num_nonnulls(volume_id, instance_id) = 1),
    CONSTRAINT snapshot_schedules_of_one_rhythm CHECK (
        num_nonnulls(every_hours, at_minute) = 1 AND (weekday IS NULL OR at_minute IS NOT NULL))
);
CREATE INDEX snapshot_schedules_of_project ON snapshot_schedules (project_id, id);
CREATE INDEX snapshot_schedules_due ON snapshot_schedules (next_at) WHERE NOT paused;
CREATE INDEX snapshot_schedules_of_volume ON snapshot_schedules (volume_id);
CREATE INDEX snapshot_schedules_of_instance ON snapshot_schedules (instance_id);
-- The schedule that made it, as long as that is there.
ALTER TABLE snapshots ADD COLUMN schedule_id uuid REFERENCES snapshot_schedules ON DELETE SET NULL;
CREATE INDEX snapshots_of_schedule ON snapshots (schedule_id, created_at);

INSERT INTO quota_defaults (resource, limit_value) VALUES ('snapshot_schedules', 50);
CALL count_in_quota('snapshot_schedules', 'snapshot_schedules');
CALL record_events('snapshot_schedules', 'snapshot_schedule', '{name,description,labels,keep,paused}',
    '{last_due_at,last_failure}');

-- What schedules made and keep no longer: what has enough newer ones that are there, and what failed and has a newer one.
CREATE FUNCTION surplus_snapshots() RETURNS TABLE (id uuid) LANGUAGE sql STABLE AS $$
    SELECT s.id FROM snapshots s JOIN snapshot_schedules c ON c.id = s.schedule_id
    WHERE s.state <> 'creating'
      AND CASE WHEN s.state = 'failed' THEN 1 ELSE c.keep END <= (
          SELECT count(*) FROM snapshots n
          WHERE n.schedule_id = s.schedule_id AND (n.created_at, n.id) > (s.created_at, s.id)
            AND (n.state = 'available' OR s.state = 'failed'))
$$;
