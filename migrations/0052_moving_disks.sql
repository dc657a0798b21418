-- Instances that are stopped go to another host with what is on the disk of theirs: it is copied there first. A row of
-- `migrations` is there meanwhile, as of one that runs, so that nothing changes of it and its place is kept.

ALTER TABLE migrations
    -- What is copied, in the order in which it can be put in place; NULL of a guest that goes while it runs.
    ADD COLUMN layers uuid[],
    -- What the destination keeps of its disk.
    ADD COLUMN disk_gib integer NOT NULL DEFAULT 0 CHECK (disk_gib >= 0),
    -- Of the source: it is told where to send them.
    ADD COLUMN source_revision bigint,
    ADD CONSTRAINT migrations_of_disks CHECK (layers IS NOT NULL OR disk_gib = 0 AND source_revision IS NULL);
CREATE INDEX migrations_from_source ON migrations (source_host_id, source_revision) WHERE source_revision IS NOT NULL;

-- INVARIANT: what a host has reserved is the sum over its instances and volumes, and those on their way to it.
CREATE OR REPLACE FUNCTION keep_migration_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved - OLD.vcpus,
                         memory_mib_reserved = memory_mib_reserved - OLD.memory_mib,
                         disk_gib_reserved = disk_gib_reserved - OLD.disk_gib
        WHERE id = OLD.destination_host_id;
    ELSE
        UPDATE hosts SET vcpus_reserved = vcpus_reserved + NEW.vcpus,
                         memory_mib_reserved = memory_mib_reserved + NEW.memory_mib,
                         disk_gib_reserved = disk_gib_reserved + NEW.disk_gib
        WHERE id = NEW.destination_host_id;
    END IF;
    RETURN NULL;
END $$;

-- Files that a host has of layers which are elsewhere: what was copied for an instance that stays, or left by one that has
-- gone. They have the ids of layers that are needed where those are, so no row of a layer names these orders.
ALTER TABLE layer_removals ADD COLUMN copies uuid[];

-- Tells a host to remove the files that it has of these layers, and gives its revision.
CREATE FUNCTION remove_copies(host uuid, of_layers uuid[], at timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    revision bigint;
BEGIN
    UPDATE hosts SET desired_revision = desired_revision + 1 WHERE id = host RETURNING desired_revision INTO revision;
    INSERT INTO layer_removals (id, host_id, desired_revision, created_at, copies)
    VALUES (gen_random_uuid(), host, revision, at, of_layers);
    RETURN revision;
END $$;

-- The layers on the disk of its host that an instance's volumes stand on, each after the one that it stands on.
CREATE FUNCTION layers_to_copy(instance uuid) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(id ORDER BY depth, id), '{}')
    FROM (SELECT l.id, max(l.depth) AS depth
          FROM volumes v CROSS JOIN LATERAL unnest(chain_of(v.layer_id)) WITH ORDINALITY l (id, depth)
          WHERE v.instance_id = instance AND v.pool_id IS NULL AND v.host_id IS NOT NULL
          GROUP BY l.id) found
$$;

-- The same, as the host that is to have them has to know them.
CREATE FUNCTION copied_layers(instance uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', found.id, 'below', found.parent_id, 'size_gib', found.size_gib,
               'image', CASE WHEN found.parent_id IS NULL AND b.id IS NOT NULL THEN jsonb_build_object(
                   'sha256', encode(b.sha256, 'hex'), 'format', b.format, 'size_bytes', b.size_bytes,
                   'virtual_size_bytes', b.virtual_size_bytes) END)
           ORDER BY found.place), '[]')
    FROM (SELECT l.id, l.parent_id, n.place, max(v.size_gib) AS size_gib,
                 (array_agg(v.image_id ORDER BY v.id))[1] AS image_id
          FROM unnest(layers_to_copy(instance)) WITH ORDINALITY n (id, place)
          JOIN layers l ON l.id = n.id
          JOIN volumes v ON v.instance_id = instance AND l.id = ANY (chain_of(v.layer_id))
          GROUP BY l.id, l.parent_id, n.place) found
    LEFT JOIN images m ON m.id = found.image_id LEFT JOIN blobs b ON b.id = m.blob_id
$$;

-- Ends the migration of an instance, which is locked, if there is one: the destination gives up what it has of it. As
-- 0047_live_migration.sql has it, and copies go.
CREATE OR REPLACE FUNCTION end_migration(instance uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ended    migrations;
    revision bigint;
BEGIN
    -- Two migrations in opposite directions never wait for each other.
    PERFORM FROM hosts h JOIN migrations m ON h.id IN (m.source_host_id, m.destination_host_id)
    WHERE m.instance_id = instance ORDER BY h.id FOR NO KEY UPDATE OF h;
    DELETE FROM migrations WHERE instance_id = instance RETURNING * INTO ended;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF cardinality(ended.layers) > 0 THEN
        PERFORM remove_copies(ended.destination_host_id, ended.layers, (SELECT i.updated_at FROM instances i WHERE i.id = instance));
    END IF;
    UPDATE hosts SET desired_revision = desired_revision + 1, network_revision = desired_revision + 1
    WHERE id = ended.destination_host_id RETURNING desired_revision INTO revision;
    INSERT INTO departures (instance_id, host_id, generation, desired_revision)
    SELECT instance, ended.destination_host_id, i.generation, revision FROM instances i WHERE i.id = instance;
    PERFORM pg_notify('cumulo', 'host ' || ended.destination_host_id);
END $$;

-- Gives an instance's volumes on the disk of one host, with all that they stand on, to another. One statement, because
-- chains and volumes change their host together.
CREATE FUNCTION rehost_volumes(instance uuid, host uuid) RETURNS void LANGUAGE sql AS $$
    WITH going AS MATERIALIZED (SELECT unnest(layers_to_copy(instance)) AS id),
         gone AS (UPDATE layers SET host_id = host WHERE id IN (SELECT id FROM going))
    UPDATE volumes SET host_id = host WHERE layer_id IN (SELECT id FROM going)
$$;

-- What keeps an instance's volumes on the disk of their host: the first thing that needs the files there, in words, or NULL.
CREATE FUNCTION disks_bound_by(instance uuid) RETURNS text LANGUAGE sql STABLE AS $$
    WITH going AS MATERIALIZED (SELECT unnest(layers_to_copy(instance)) AS id),
         own AS (SELECT id, layer_id FROM volumes WHERE instance_id = instance AND pool_id IS NULL)
    SELECT why FROM (
        SELECT 1 AS rank, format('the image that is made of its volume %s; wait until that is there', v.name) AS why
        FROM volumes v JOIN own ON own.id = v.id
        WHERE EXISTS (SELECT FROM image_imports i WHERE i.layer_id = ANY (chain_of(v.layer_id)))
        UNION ALL
        SELECT 2, format('the snapshot %s, which holds the memory of its guest or disks that do not go with it; delete it first', s.name)
        FROM snapshots s
        WHERE EXISTS (SELECT FROM snapshot_volumes sv WHERE sv.snapshot_id = s.id AND sv.layer_id IS NOT NULL
                        AND (sv.layer_id IN (SELECT id FROM going) OR sv.volume_id IN (SELECT id FROM own)))
          AND (s.memory_id IS NOT NULL
               OR EXISTS (SELECT FROM snapshot_volumes sv JOIN layers l ON l.id = sv.layer_id
                          WHERE sv.snapshot_id = s.id AND l.pool_id IS NULL AND l.id NOT IN (SELECT id FROM going)))
        UNION ALL
        SELECT 3, format('the volume %s, which shares data with one of its volumes; delete it, or the other, first', v.name)
        FROM volumes v
        WHERE v.layer_id NOT IN (SELECT layer_id FROM own)
          AND EXISTS (SELECT FROM unnest(chain_of(v.layer_id)) c (id) JOIN going ON going.id = c.id)
        UNION ALL
        SELECT 4, 'files of a volume or snapshot that was deleted; try again when they are removed'
        FROM layers l
        WHERE l.parent_id IN (SELECT id FROM going) AND l.id NOT IN (SELECT id FROM going)) found
    ORDER BY rank, why LIMIT 1
$$;

-- Whether an agent that has told this of its host copies disks from and to others.
CREATE FUNCTION knows_disk_moves(inventory jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(inventory -> 'features' ? 'disk_moves', false)
$$;
