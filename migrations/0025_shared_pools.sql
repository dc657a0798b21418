-- Pools that several hosts share, and instances that go from one host to another.
--
-- Everybody locks pools after volumes and layers, by id, and before hosts.

CREATE TABLE pools (
    id                 uuid PRIMARY KEY,
    -- As agents call it, too; never changed.
    name               text NOT NULL CONSTRAINT pools_name_unique UNIQUE,
    description        text NOT NULL DEFAULT '',
    generation         bigint NOT NULL DEFAULT 1,
    -- What may be given away of what there is.
    overcommit_percent integer NOT NULL DEFAULT 100 CHECK (overcommit_percent BETWEEN 10 AND 1000),
    -- The directory that is meant; NULL until a host has it.
    identity           uuid,
    disk_gib_capacity  integer NOT NULL DEFAULT 0,
    -- INVARIANT: the sum over the volumes in it, whatever statement changes them.
    disk_gib_reserved  integer NOT NULL DEFAULT 0 CHECK (disk_gib_reserved >= 0),
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CONSTRAINT pools_disk_fits CHECK (disk_gib_reserved <= disk_gib_capacity)
);
CALL record_events('pools', 'pool', '{description,overcommit_percent}', '{identity,disk_gib_capacity}');

-- What agents say of the shared pools that they were told of, known here or not.
CREATE TABLE host_pools (
    host_id     uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
    pool_name   text NOT NULL,
    identity    uuid,
    total_bytes bigint,
    free_bytes  bigint,
    -- Why it cannot be used there.
    fault       text,
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (host_id, pool_name),
    CONSTRAINT host_pools_usable_or_not CHECK (
        num_nonnulls(identity, total_bytes, free_bytes) = CASE WHEN fault IS NULL THEN 3 ELSE 0 END)
);
CREATE INDEX host_pools_by_name ON host_pools (pool_name);

-- The hosts that have a pool, and not another directory under its name.
CREATE VIEW pool_hosts AS
    SELECT p.id AS pool_id, h.host_id FROM pools p JOIN host_pools h ON h.pool_name = p.name AND h.identity = p.identity;

-- The shared pools of a host, for the operator.
CREATE FUNCTION shared_pools_of(host uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'name', h.pool_name, 'total_bytes', h.total_bytes, 'free_bytes', h.free_bytes,
               'usable', h.fault IS NULL AND h.identity IS NOT DISTINCT FROM p.identity,
               'detail', CASE WHEN h.fault IS NOT NULL THEN h.fault
                              WHEN p.id IS NULL THEN 'the cloud has no pool of this name'
                              WHEN h.identity <> p.identity THEN 'another directory than that of the other hosts' END)
           ORDER BY h.pool_name), '[]')
    FROM host_pools h LEFT JOIN pools p ON p.name = h.pool_name WHERE h.host_id = host
$$;

-- What a pool may give away: of its size, and never less than what it has given.
CREATE FUNCTION pool_capacity(total_bytes bigint, overcommit_percent integer, reserved integer) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(least((coalesce(total_bytes, 0) >> 30) * overcommit_percent / 100, 2147483647)::integer, reserved)
$$;

-- Layers and volumes in a shared pool are on no host. A chain stays where it is by the same keys.
ALTER TABLE volumes DROP CONSTRAINT volumes_write_to_an_open_layer_there, DROP COLUMN place;
ALTER TABLE layers
    DROP CONSTRAINT layers_stand_on_sealed_ones_there,
    DROP CONSTRAINT layers_place_unique,
    DROP COLUMN place,
    ADD COLUMN pool_id uuid REFERENCES pools,
    ADD CONSTRAINT layers_in_one_place CHECK (num_nonnulls(host_id, pool_id) <= 1),
    ADD COLUMN place uuid NOT NULL GENERATED ALWAYS AS
        (coalesce(pool_id, host_id, '00000000-0000-0000-0000-000000000000')) STORED,
    ADD CONSTRAINT layers_place_unique UNIQUE (id, place, sealed),
    ADD CONSTRAINT layers_stand_on_sealed_ones_there FOREIGN KEY (parent_id, place, parent_sealed)
        REFERENCES layers (id, place, sealed);
ALTER TABLE volumes
    ADD COLUMN pool_id uuid REFERENCES pools,
    ADD CONSTRAINT volumes_in_one_place CHECK (num_nonnulls(host_id, pool_id) <= 1),
    ADD COLUMN place uuid NOT NULL GENERATED ALWAYS AS
        (coalesce(pool_id, host_id, '00000000-0000-0000-0000-000000000000')) STORED,
    ADD CONSTRAINT volumes_write_to_an_open_layer_there FOREIGN KEY (layer_id, place, layer_sealed)
        REFERENCES layers (id, place, sealed);
CREATE INDEX volumes_of_pool ON volumes (pool_id) WHERE pool_id IS NOT NULL;

CREATE OR REPLACE FUNCTION keep_disk_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        UPDATE pools SET disk_gib_reserved = disk_gib_reserved - OLD.size_gib WHERE id = OLD.pool_id;
        UPDATE hosts SET disk_gib_reserved = disk_gib_reserved - OLD.size_gib WHERE id = OLD.host_id;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        UPDATE pools SET disk_gib_reserved = disk_gib_reserved + NEW.size_gib WHERE id = NEW.pool_id;
        UPDATE hosts SET disk_gib_reserved = disk_gib_reserved + NEW.size_gib WHERE id = NEW.host_id;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER volumes_move ON volumes;
CREATE TRIGGER volumes_move AFTER UPDATE ON volumes
    FOR EACH ROW WHEN ((OLD.host_id, OLD.pool_id, OLD.size_gib) IS DISTINCT FROM
                       (NEW.host_id, NEW.pool_id, NEW.size_gib))
    EXECUTE FUNCTION keep_disk_reservations();

-- INVARIANT: at the end of a transaction the volumes of an instance that has a host are there, or where it reaches them.
CREATE OR REPLACE FUNCTION check_volumes_are_there() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    instance CONSTANT uuid := CASE TG_TABLE_NAME WHEN 'instances' THEN NEW.id
                              ELSE (to_jsonb(NEW) ->> 'instance_id')::uuid END;
BEGIN
    IF EXISTS (SELECT FROM volumes v JOIN instances i ON i.id = v.instance_id
               WHERE i.id = instance AND i.host_id IS NOT NULL AND v.pool_id IS NULL
                 AND v.host_id IS DISTINCT FROM i.host_id) THEN
        RAISE EXCEPTION 'a volume of instance % is not on its host', instance
            USING ERRCODE = 'check_violation', CONSTRAINT = 'volumes_with_their_instance';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION layers_to_place(instance uuid) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE tree (id) AS (
        SELECT layer_id FROM volumes WHERE instance_id = instance AND host_id IS NULL AND pool_id IS NULL
        UNION
        SELECT n.id FROM tree t JOIN layers l ON l.id = t.id JOIN layers n ON n.parent_id = l.id OR n.id = l.parent_id)
    SELECT id FROM tree
$$;

CREATE OR REPLACE FUNCTION forget_removals(done uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM pools WHERE id IN (SELECT pool_id FROM volumes WHERE removal_id = ANY (done))
    ORDER BY id FOR NO KEY UPDATE;
    DELETE FROM volumes WHERE removal_id = ANY (done);
    -- What is removed later may stand on what is gone.
    UPDATE layers SET parent_id = NULL, parent_merge = NULL
    WHERE removal_id <> ALL (done) AND parent_id IN (SELECT id FROM layers WHERE removal_id = ANY (done));
    DELETE FROM layers WHERE removal_id = ANY (done);
    DELETE FROM layer_removals WHERE id = ANY (done);
END $$;

-- As 0022_snapshots.sql has them, and layers are in pools, too.
CREATE OR REPLACE FUNCTION cover_layer(of_volume uuid, new_layer uuid, at timestamptz) RETURNS uuid LANGUAGE plpgsql AS $$
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
         made AS (INSERT INTO layers (id, host_id, pool_id, parent_id, created_at)
                  SELECT new_layer, host_id, pool_id, id, at FROM layers WHERE id = top)
    UPDATE volumes SET layer_id = new_layer, spec_generation = spec_generation + 1, updated_at = at
    WHERE id = of_volume;
    RETURN top;
END $$;

CREATE OR REPLACE FUNCTION instance_disks(instance uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', v.id, 'generation', v.spec_generation, 'size_gib', v.size_gib, 'pool', p.name,
               'layers', chain.layers,
               'merges', ARRAY(SELECT d.parent_id FROM layers d
                               WHERE d.id = ANY (chain.layers) AND d.parent_merge IS NOT NULL ORDER BY d.parent_id),
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

-- Orders to remove what is in a shared pool go to any host that has it.
ALTER TABLE layer_removals
    ALTER COLUMN host_id DROP NOT NULL,
    ADD COLUMN pool_id uuid REFERENCES pools,
    ADD CONSTRAINT layer_removals_somewhere CHECK (num_nonnulls(host_id, pool_id) > 0);
CREATE INDEX layer_removals_of_pool ON layer_removals (pool_id) WHERE pool_id IS NOT NULL;

-- A host that has the pool, was heard of since then and sees its guests; NULL when there is none.
CREATE FUNCTION host_for_pool(pool uuid, heard_since timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT h.id FROM pool_hosts p JOIN hosts h ON h.id = p.host_id
    WHERE p.pool_id = pool AND h.last_seen_at >= heard_since AND h.hypervisor_degraded IS NULL
    ORDER BY h.last_seen_at DESC, h.id LIMIT 1
$$;

-- Gives up layers. Those that are nowhere are gone at once; for the others each host or pool gets an order, at a new
-- revision of a host or, when `told` is false, with the end of an instance. No host is named while none has the pool.
CREATE OR REPLACE FUNCTION remove_layers(given_up uuid[], at timestamptz, told boolean DEFAULT true)
RETURNS TABLE (removal uuid, host uuid) LANGUAGE plpgsql AS $$
DECLARE
    unneeded CONSTANT uuid[] := unneeded_layers(given_up);
    somewhere record;
    revision  bigint;
BEGIN
    DELETE FROM layers WHERE id = ANY (unneeded) AND host_id IS NULL AND pool_id IS NULL;
    FOR somewhere IN
        SELECT DISTINCT l.place, l.host_id, l.pool_id FROM layers l WHERE l.id = ANY (unneeded) ORDER BY l.place
    LOOP
        removal := gen_random_uuid();
        host := somewhere.host_id;
        revision := NULL;
        IF told AND host IS NULL THEN
            host := host_for_pool(somewhere.pool_id, at - interval '20 seconds');
        END IF;
        IF told AND host IS NOT NULL THEN
            UPDATE hosts SET desired_revision = desired_revision + 1 WHERE id = host
            RETURNING desired_revision INTO revision;
        END IF;
        INSERT INTO layer_removals (id, host_id, pool_id, desired_revision, created_at)
        VALUES (removal, host, somewhere.pool_id, revision, at);
        UPDATE layers SET removal_id = removal WHERE id = ANY (unneeded) AND place = somewhere.place;
        RETURN NEXT;
    END LOOP;
END $$;

-- The operator has said that nothing runs on the host any more; until it is heard again.
ALTER TABLE hosts ADD COLUMN declared_dead_at timestamptz;
-- Where an instance was before: it rather goes elsewhere.
ALTER TABLE instances ADD COLUMN left_host_id uuid REFERENCES hosts;

-- Hosts that instances have left, until they have said that nothing of those is left there. The instance may be gone by
-- then. It does not come back to such a host.
CREATE TABLE departures (
    instance_id      uuid NOT NULL,
    host_id          uuid NOT NULL REFERENCES hosts,
    -- Of the instance, when it left: the host has to hear of it at least once.
    generation       bigint NOT NULL,
    desired_revision bigint NOT NULL,
    PRIMARY KEY (instance_id, host_id)
);
CREATE INDEX departures_of_host ON departures (host_id, desired_revision);
