-- Room that deleted images still take, and pools in which hardly any is left.

-- Files of deleted images count for image_gib until they are gone: as long as something is made from them.

-- Whether something needs the image's file, whoever deletes it.
CREATE FUNCTION image_needed(image uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM instances n WHERE n.image_id = image)
        OR EXISTS (SELECT FROM volumes v WHERE v.image_id = image)
        OR EXISTS (SELECT FROM snapshots s WHERE s.image_id = image)
        OR EXISTS (SELECT FROM snapshot_volumes v WHERE v.image_id = image)
        OR EXISTS (SELECT FROM image_imports m WHERE m.base_image_id = image)
$$;

-- What deleted images hold, for the project that had them. Goes with the image.
CREATE TABLE image_remains (
    image_id   uuid PRIMARY KEY REFERENCES images ON DELETE CASCADE,
    project_id uuid REFERENCES projects ON DELETE SET NULL,
    held_gib   integer NOT NULL CHECK (held_gib > 0)
);
CREATE INDEX image_remains_of_project ON image_remains (project_id);
CALL count_in_quota('image_gib', 'image_remains', 'held_gib');

-- INVARIANT: whoever makes something from an image holds its row, so that who deletes it sees that. Nothing is made from
-- it afterwards. The project is charged as much as it gets back, whatever its limit is by now.
CREATE FUNCTION keep_charging_image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF image_needed(NEW.id) THEN
        PERFORM set_config('cumulo.charge_anyway', 'on', true);
        INSERT INTO image_remains (image_id, project_id, held_gib) VALUES (NEW.id, OLD.project_id, NEW.content_gib);
        PERFORM set_config('cumulo.charge_anyway', 'off', true);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER images_keep_charging AFTER UPDATE OF deleted_at ON images FOR EACH ROW
    WHEN (OLD.project_id IS NOT NULL AND NEW.project_id IS NULL AND NEW.content_gib > 0)
    EXECUTE FUNCTION keep_charging_image();

ALTER TABLE pools
    -- Hardly anything is free: no new volume goes there.
    ADD COLUMN low boolean NOT NULL DEFAULT false,
    -- The operator's: the free share of its file system below which it is low, in per cent.
    ADD COLUMN low_percent integer NOT NULL DEFAULT 10 CONSTRAINT pools_low_percent CHECK (low_percent BETWEEN 0 AND 50);
DROP TRIGGER pools_event_created ON pools;
DROP TRIGGER pools_event_updated ON pools;
DROP TRIGGER pools_event_state ON pools;
DROP TRIGGER pools_event_deleted ON pools;
CALL record_events('pools', 'pool', '{description,overcommit_percent,low_percent}', '{identity,disk_gib_capacity,low}');

-- INVARIANT: no volume is made where hardly anything is free, whatever it is made from.
CREATE OR REPLACE FUNCTION refuse_low_pool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM hosts WHERE id = NEW.host_id AND pool_low) THEN
        RAISE EXCEPTION 'the pool of host % is almost full', NEW.host_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'hosts_pool_low';
    END IF;
    IF EXISTS (SELECT FROM pools WHERE id = NEW.pool_id AND low) THEN
        RAISE EXCEPTION 'the pool % is almost full', NEW.pool_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'pools_low';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER volumes_made_in_low_pool ON volumes;
CREATE TRIGGER volumes_made_in_low_pool AFTER INSERT ON volumes
    FOR EACH ROW WHEN (num_nonnulls(NEW.host_id, NEW.pool_id) > 0) EXECUTE FUNCTION refuse_low_pool();
DROP TRIGGER layers_memory_in_low_pool ON layers;
CREATE TRIGGER layers_memory_in_low_pool AFTER INSERT ON layers
    FOR EACH ROW WHEN (NEW.memory_gib > 0 AND num_nonnulls(NEW.host_id, NEW.pool_id) > 0)
    EXECUTE FUNCTION refuse_low_pool();
