-- Disks: what their owners want, and what hosts make of it. A volume is a chain of layers, each a file over the one
-- before it; the last one is written to. Root disks are volumes, too.
--
-- Everybody locks in this order: instances, volumes by id, layers, then as 0014_networks.sql says.

CREATE TABLE layers (
    id            uuid PRIMARY KEY,
    -- Where the file is, or will be. NULL while no instance with it has a host.
    host_id       uuid REFERENCES hosts,
    -- The layer that it stands on; NULL stands on the volume's image or on nothing.
    parent_id     uuid CHECK (parent_id <> id),
    -- Others may stand on it, so nobody writes to it any more.
    sealed        boolean NOT NULL DEFAULT false,
    -- The volume that takes it along when it goes; nobody else needs it. The key is added below.
    removed_with  uuid,
    created_at    timestamptz NOT NULL,
    -- For the keys below: the host, or zeros for none.
    place         uuid NOT NULL GENERATED ALWAYS AS
                      (coalesce(host_id, '00000000-0000-0000-0000-000000000000')) STORED,
    parent_sealed boolean GENERATED ALWAYS AS (CASE WHEN parent_id IS NOT NULL THEN true END) STORED,
    CONSTRAINT layers_place_unique UNIQUE (id, place, sealed),
    -- A chain is on one host, and what is in the middle of it is not written to.
    CONSTRAINT layers_stand_on_sealed_ones_there FOREIGN KEY (parent_id, place, parent_sealed)
        REFERENCES layers (id, place, sealed)
);
CREATE INDEX layers_of_parent ON layers (parent_id);
CREATE INDEX layers_removed ON layers (removed_with) WHERE removed_with IS NOT NULL;

ALTER TABLE instances ADD CONSTRAINT instances_of_project_unique UNIQUE (id, project_id);

CREATE TABLE volumes (
    id                     uuid PRIMARY KEY,
    project_id             uuid NOT NULL REFERENCES projects,
    name                   text NOT NULL,
    description            text NOT NULL DEFAULT '',
    labels                 jsonb NOT NULL,
    generation             bigint NOT NULL DEFAULT 1,
    size_gib               integer NOT NULL CHECK (size_gib BETWEEN 1 AND 16384),
    -- How much an instance may ask of it; NULL is no limit.
    iops_limit             bigint CHECK (iops_limit > 0),
    bytes_per_second_limit bigint CHECK (bytes_per_second_limit > 0),
    delete_protection      boolean NOT NULL DEFAULT false,
    -- What its lowest layer stands on; NULL began empty.
    image_id               uuid REFERENCES images,
    -- Counts changes of what a host makes of it.
    spec_generation        bigint NOT NULL DEFAULT 1,

    -- Where its data is; NULL as long as no instance with it has a host.
    host_id                uuid REFERENCES hosts,
    -- The layer that is written to.
    layer_id               uuid NOT NULL CONSTRAINT volumes_one_writer UNIQUE,

    -- The instance that has it.
    instance_id            uuid,
    -- The order in which the guest finds its disks; it boots from 0.
    position               integer CHECK (position BETWEEN 0 AND 15),
    delete_with_instance   boolean NOT NULL DEFAULT false,
    attachment_state       text CHECK (attachment_state IN ('attaching', 'attached', 'detaching')),
    -- What the instance's host said last of this attachment.
    observed_generation    bigint,
    observed_state         text CHECK (observed_state IN ('preparing', 'ready', 'detaching')),

    deletion_requested_at  timestamptz,
    -- The host's revision that tells it to remove the layers.
    desired_revision       bigint,
    -- The newest operation about it.
    operation_id           uuid REFERENCES operations,
    created_at             timestamptz NOT NULL,
    updated_at             timestamptz NOT NULL,

    place                  uuid NOT NULL GENERATED ALWAYS AS
                               (coalesce(host_id, '00000000-0000-0000-0000-000000000000')) STORED,
    layer_sealed           boolean NOT NULL GENERATED ALWAYS AS (false) STORED,
    CONSTRAINT volumes_name_unique UNIQUE (project_id, name),
    CONSTRAINT volumes_write_to_an_open_layer_there FOREIGN KEY (layer_id, place, layer_sealed)
        REFERENCES layers (id, place, sealed),
    CONSTRAINT volumes_of_an_instance_of_the_project FOREIGN KEY (instance_id, project_id)
        REFERENCES instances (id, project_id),
    CONSTRAINT volumes_attached_have_a_position CHECK (
        num_nonnulls(instance_id, position, attachment_state) IN (0, 3)),
    CONSTRAINT volumes_position_unique UNIQUE (instance_id, position),
    CONSTRAINT volumes_attachment_is_of_an_instance CHECK (
        instance_id IS NOT NULL OR (NOT delete_with_instance AND observed_generation IS NULL)),
    CONSTRAINT volumes_observation_whole CHECK ((observed_generation IS NULL) = (observed_state IS NULL)),
    -- It goes with its instance, or its host is told to remove it.
    CONSTRAINT volumes_removed_by_somebody CHECK (
        deletion_requested_at IS NULL
        OR CASE WHEN instance_id IS NULL THEN host_id IS NOT NULL AND desired_revision IS NOT NULL
                ELSE delete_with_instance END)
);
CREATE INDEX volumes_of_project ON volumes (project_id, id);
CREATE INDEX volumes_of_image ON volumes (image_id);
CREATE INDEX volumes_of_host ON volumes (host_id, desired_revision);

ALTER TABLE layers ADD CONSTRAINT layers_removed_with_a_volume FOREIGN KEY (removed_with)
    REFERENCES volumes ON DELETE CASCADE;

-- The instances of the release before: a volume and a layer for each, under the id of the instance.
INSERT INTO layers (id, host_id, created_at) SELECT id, host_id, created_at FROM instances;
INSERT INTO volumes (id, project_id, name, labels, size_gib, image_id, host_id, layer_id, instance_id, position,
                     delete_with_instance, attachment_state, observed_generation, observed_state,
                     deletion_requested_at, created_at, updated_at)
SELECT id, project_id, 'root-' || right(id::text, 12), '{}', root_disk_gib, image_id, host_id, id, id, 0, true,
       CASE WHEN there THEN 'attached' ELSE 'attaching' END,
       CASE WHEN there THEN 1 END, CASE WHEN there THEN 'ready' END, deletion_requested_at, created_at, updated_at
FROM instances, coalesce(observed_state IN ('running', 'stopping', 'stopped'), false) there;
UPDATE layers SET removed_with = v.id FROM volumes v WHERE v.id = layers.id AND v.deletion_requested_at IS NOT NULL;

-- From here on disks are counted by their volumes, to the same sums.
DROP TRIGGER instances_move ON instances;
DROP TRIGGER instances_event_updated ON instances;
DROP TRIGGER instances_event_state ON instances;
DROP TRIGGER instances_charge_update ON instances;
ALTER TABLE instances
    DROP COLUMN root_disk_gib,
    -- The volumes that it has according to its host, word for word: heartbeats carry a digest of them.
    ADD COLUMN observed_volumes jsonb NOT NULL DEFAULT '[]';

-- INVARIANT: hosts.vcpus_reserved and memory_mib_reserved are the sums over the instances placed there.
CREATE OR REPLACE FUNCTION keep_host_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') AND OLD.host_id IS NOT NULL THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved - OLD.vcpus,
                         memory_mib_reserved = memory_mib_reserved - OLD.memory_mib
        WHERE id = OLD.host_id;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') AND NEW.host_id IS NOT NULL THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved + NEW.vcpus,
                         memory_mib_reserved = memory_mib_reserved + NEW.memory_mib
        WHERE id = NEW.host_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER instances_move AFTER UPDATE ON instances
    FOR EACH ROW WHEN ((OLD.host_id, OLD.vcpus, OLD.memory_mib) IS DISTINCT FROM
                       (NEW.host_id, NEW.vcpus, NEW.memory_mib))
    EXECUTE FUNCTION keep_host_reservations();

-- INVARIANT: hosts.disk_gib_reserved is the sum over the volumes there, whatever statement changes them.
CREATE FUNCTION keep_disk_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') AND OLD.host_id IS NOT NULL THEN
        UPDATE hosts SET disk_gib_reserved = disk_gib_reserved - OLD.size_gib WHERE id = OLD.host_id;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') AND NEW.host_id IS NOT NULL THEN
        UPDATE hosts SET disk_gib_reserved = disk_gib_reserved + NEW.size_gib WHERE id = NEW.host_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER volumes_reserve AFTER INSERT OR DELETE ON volumes
    FOR EACH ROW EXECUTE FUNCTION keep_disk_reservations();
CREATE TRIGGER volumes_move AFTER UPDATE ON volumes
    FOR EACH ROW WHEN ((OLD.host_id, OLD.size_gib) IS DISTINCT FROM (NEW.host_id, NEW.size_gib))
    EXECUTE FUNCTION keep_disk_reservations();

-- INVARIANT: at the end of a transaction the volumes of an instance that has a host are there.
CREATE FUNCTION check_volumes_are_there() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    instance CONSTANT uuid := CASE TG_TABLE_NAME WHEN 'instances' THEN NEW.id
                              ELSE (to_jsonb(NEW) ->> 'instance_id')::uuid END;
BEGIN
    IF EXISTS (SELECT FROM volumes v JOIN instances i ON i.id = v.instance_id
               WHERE i.id = instance AND i.host_id IS NOT NULL AND v.host_id IS DISTINCT FROM i.host_id) THEN
        RAISE EXCEPTION 'a volume of instance % is not on its host', instance
            USING ERRCODE = 'check_violation', CONSTRAINT = 'volumes_with_their_instance';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER instances_with_volumes AFTER UPDATE ON instances DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.host_id IS DISTINCT FROM NEW.host_id) EXECUTE FUNCTION check_volumes_are_there();
CREATE CONSTRAINT TRIGGER volumes_with_instances AFTER INSERT OR UPDATE ON volumes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.instance_id IS NOT NULL) EXECUTE FUNCTION check_volumes_are_there();

-- Quotas: the same resources of instances but for their disks.
DELETE FROM quota_sources WHERE relation = 'instances';
CALL count_in_quota('instances', 'instances');
CALL count_in_quota('vcpus', 'instances', 'vcpus');
CALL count_in_quota('memory_mib', 'instances', 'memory_mib');
INSERT INTO quota_defaults (resource, limit_value) VALUES ('volumes', 100);
CALL count_in_quota('volumes', 'volumes');
CALL count_in_quota('disk_gib', 'volumes', 'size_gib');

DROP TRIGGER instances_event_created ON instances;
DROP TRIGGER instances_event_deleted ON instances;
CALL record_events('instances', 'instance',
    '{name,labels,generation,vcpus,memory_mib,power,boot,stop_mode,stop_timeout_seconds,deletion_requested_at}',
    '{host_id,placement_explanation,observed_state,observed_boot,observed_end_reason}');
CALL record_events('volumes', 'volume', '{name,description,labels,generation,deletion_requested_at}',
    '{instance_id,attachment_state,observed_generation,observed_state}');

-- A chain from its lowest layer to this one.
CREATE FUNCTION chain_of(top uuid) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE chain (id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM layers WHERE id = top
        UNION ALL
        SELECT l.id, l.parent_id, c.depth + 1 FROM chain c JOIN layers l ON l.id = c.parent_id)
    SELECT array_agg(id ORDER BY depth DESC) FROM chain
$$;

-- Layers that go to a host together: those of an instance's volumes that are on no host, and all that stand on
-- the same ones.
CREATE FUNCTION layers_to_place(instance uuid) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE tree (id) AS (
        SELECT layer_id FROM volumes WHERE instance_id = instance AND host_id IS NULL
        UNION
        SELECT n.id FROM tree t JOIN layers l ON l.id = t.id JOIN layers n ON n.parent_id = l.id OR n.id = l.parent_id)
    SELECT id FROM tree
$$;

-- How much disk they will take.
CREATE FUNCTION gib_to_place(instance uuid) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(size_gib), 0)::integer FROM volumes
    WHERE layer_id IN (SELECT layers_to_place(instance))
$$;

-- Puts them there. One statement, because chains and volumes change their host together.
CREATE FUNCTION place_volumes(instance uuid, host uuid) RETURNS void LANGUAGE sql AS $$
    WITH going AS MATERIALIZED (SELECT layers_to_place(instance) AS id),
         gone AS (UPDATE layers SET host_id = host WHERE id IN (SELECT id FROM going))
    UPDATE volumes SET host_id = host WHERE layer_id IN (SELECT id FROM going)
$$;

-- Notes which layers go with a volume: from the top down, as far as nobody else stands on them.
CREATE FUNCTION doom_layers(volume uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    layer uuid;
BEGIN
    SELECT layer_id INTO layer FROM volumes WHERE id = volume;
    WHILE layer IS NOT NULL LOOP
        UPDATE layers SET removed_with = volume WHERE id = layer RETURNING parent_id INTO layer;
        -- Whoever ends a volume beside this one waits here, and sees what this one has taken.
        PERFORM FROM layers WHERE id = layer FOR UPDATE;
        EXIT WHEN EXISTS (SELECT FROM layers WHERE parent_id = layer AND removed_with IS NULL);
    END LOOP;
END $$;

-- The end of volumes whose files are gone, or were never made.
CREATE FUNCTION forget_volumes(gone uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- One that ends later may stand on what goes with one of these.
    UPDATE layers SET parent_id = NULL
    WHERE removed_with <> ALL (gone) AND parent_id IN (SELECT id FROM layers WHERE removed_with = ANY (gone));
    DELETE FROM volumes WHERE id = ANY (gone);
END $$;

-- Lets volumes go, wherever they are attached.
CREATE FUNCTION release_volumes(free uuid[], at timestamptz) RETURNS void LANGUAGE sql AS $$
    UPDATE volumes SET instance_id = NULL, position = NULL, attachment_state = NULL, delete_with_instance = false,
                       observed_generation = NULL, observed_state = NULL, updated_at = at
    WHERE id = ANY (free)
$$;

-- An instance's volumes in their order, for its owner.
CREATE FUNCTION instance_volumes(instance uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', v.id, 'name', v.name, 'position', v.position, 'size_gib', v.size_gib,
               'attachment_state', v.attachment_state, 'delete_with_instance', v.delete_with_instance)
           ORDER BY v.position), '[]')
    FROM volumes v WHERE v.instance_id = instance
$$;

-- An instance's disks in their order, for its host: what is on its way out is not among them.
CREATE FUNCTION instance_disks(instance uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', v.id, 'generation', v.spec_generation, 'size_gib', v.size_gib,
               'layers', chain_of(v.layer_id),
               'iops', v.iops_limit, 'bytes_per_second', v.bytes_per_second_limit,
               'image', CASE WHEN v.image_id IS NOT NULL THEN jsonb_build_object(
                   'sha256', encode(b.sha256, 'hex'), 'format', b.format, 'size_bytes', b.size_bytes,
                   'virtual_size_bytes', b.virtual_size_bytes) END)
           ORDER BY v.position), '[]')
    FROM volumes v LEFT JOIN images m ON m.id = v.image_id LEFT JOIN blobs b ON b.id = m.blob_id
    WHERE v.instance_id = instance AND v.attachment_state <> 'detaching'
$$;
