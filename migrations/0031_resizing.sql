-- Instances that change their size, their root disk or what they boot from.

-- A resize waits to be confirmed; until then the instance holds the larger of both sizes, so that it can always go back.
ALTER TABLE instances
    ADD COLUMN resized_from_type_id    uuid CONSTRAINT instances_resized_from_type_id_fkey REFERENCES instance_types,
    ADD COLUMN resized_from_vcpus      integer CHECK (resized_from_vcpus > 0),
    ADD COLUMN resized_from_memory_mib integer CHECK (resized_from_memory_mib > 0),
    -- When there is no way back any more; the larger size is held for a moment longer, until its host has made it so.
    ADD COLUMN resize_confirm_at       timestamptz,
    ADD CONSTRAINT instances_resized_whole CHECK (
        num_nonnulls(resized_from_type_id, resized_from_vcpus, resized_from_memory_mib, resize_confirm_at) IN (0, 4)),
    ADD COLUMN vcpus_held      integer NOT NULL GENERATED ALWAYS AS (greatest(vcpus, resized_from_vcpus)) STORED,
    ADD COLUMN memory_mib_held integer NOT NULL GENERATED ALWAYS AS
        (greatest(memory_mib, resized_from_memory_mib)) STORED;
CREATE INDEX instances_resized ON instances (resize_confirm_at) WHERE resize_confirm_at IS NOT NULL;
CREATE INDEX instances_resized_from_type ON instances (resized_from_type_id) WHERE resized_from_type_id IS NOT NULL;

-- Whether its host has said that no guest of another size runs.
CREATE FUNCTION size_is_made(i instances) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT i.host_id IS NULL
        OR coalesce(i.observed_generation >= i.generation
                    AND (i.observed_boot >= i.boot OR i.observed_state = 'stopped'), false)
$$;

-- A confirmation concerns no host, and so is no new generation.
CREATE TRIGGER instances_event_resize AFTER UPDATE ON instances FOR EACH ROW
    WHEN (OLD.resized_from_type_id IS DISTINCT FROM NEW.resized_from_type_id AND OLD.generation = NEW.generation)
    EXECUTE FUNCTION record_event('instance', 'updated', 'project', 'request');

-- INVARIANT: hosts.vcpus_reserved and memory_mib_reserved are the sums over what the instances placed there hold.
CREATE OR REPLACE FUNCTION keep_host_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') AND OLD.host_id IS NOT NULL THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved - OLD.vcpus_held,
                         memory_mib_reserved = memory_mib_reserved - OLD.memory_mib_held
        WHERE id = OLD.host_id;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') AND NEW.host_id IS NOT NULL THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved + NEW.vcpus_held,
                         memory_mib_reserved = memory_mib_reserved + NEW.memory_mib_held
        WHERE id = NEW.host_id;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER instances_move ON instances;
CREATE TRIGGER instances_move AFTER UPDATE ON instances
    FOR EACH ROW WHEN ((OLD.host_id, OLD.vcpus_held, OLD.memory_mib_held) IS DISTINCT FROM
                       (NEW.host_id, NEW.vcpus_held, NEW.memory_mib_held))
    EXECUTE FUNCTION keep_host_reservations();

DROP TRIGGER instances_charge_update ON instances;
DELETE FROM quota_sources WHERE relation = 'instances';
CALL count_in_quota('instances', 'instances');
CALL count_in_quota('vcpus', 'instances', 'vcpus_held');
CALL count_in_quota('memory_mib', 'instances', 'memory_mib_held');

-- An instance that is rescued boots from a volume at -1, before its own.
ALTER TABLE volumes
    DROP CONSTRAINT volumes_position_check,
    ADD CONSTRAINT volumes_position_check CHECK (position BETWEEN -1 AND 15);

-- What a clone of a running instance waits for before it is placed: that its host lets the guest write elsewhere. Both are
-- on one host, and whoever has let go of the volume meanwhile writes to it no more.
CREATE TABLE cloned_volumes (
    instance_id     uuid NOT NULL REFERENCES instances ON DELETE CASCADE,
    volume_id       uuid NOT NULL,
    spec_generation bigint NOT NULL,
    PRIMARY KEY (instance_id, volume_id)
);
CREATE FUNCTION waits_for_source(instance uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM cloned_volumes c JOIN volumes v ON v.id = c.volume_id
                   WHERE c.instance_id = instance AND v.instance_id IS NOT NULL
                     AND NOT coalesce(v.observed_generation >= c.spec_generation AND v.observed_state = 'ready', false))
$$;
