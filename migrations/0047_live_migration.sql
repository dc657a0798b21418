-- Running instances that go from one host to another. A row is there from the decision until the instance has changed
-- hands, or stays for good.

CREATE TABLE migrations (
    id                  uuid PRIMARY KEY,
    instance_id         uuid NOT NULL CONSTRAINT migrations_one_of_an_instance UNIQUE REFERENCES instances ON DELETE CASCADE,
    operation_id        uuid NOT NULL,
    source_host_id      uuid NOT NULL REFERENCES hosts,
    destination_host_id uuid NOT NULL REFERENCES hosts,
    -- What the destination keeps for it. Nothing changes of the instance meanwhile.
    vcpus               integer NOT NULL CHECK (vcpus > 0),
    memory_mib          integer NOT NULL CHECK (memory_mib > 0),
    max_downtime_ms     integer NOT NULL CHECK (max_downtime_ms > 0),
    -- Where the destination waits for it; the source is told when that is known.
    port                integer CHECK (port BETWEEN 1024 AND 65535),
    address             inet,
    -- Since when it shall not be. Once the source was told of it, the source decides.
    cancelled_at        timestamptz,
    cancel_code         text,
    cancel_detail       text,
    -- When it is cancelled by itself.
    due_at              timestamptz NOT NULL,
    -- Of the destination.
    desired_revision    bigint NOT NULL,
    CONSTRAINT migrations_lead_elsewhere CHECK (source_host_id <> destination_host_id),
    CONSTRAINT migrations_lead_to_a_port CHECK ((port IS NULL) = (address IS NULL)),
    CONSTRAINT migrations_say_why CHECK ((cancelled_at IS NULL) = (cancel_code IS NULL))
);
CREATE INDEX migrations_of_source ON migrations (source_host_id);
CREATE INDEX migrations_of_destination ON migrations (destination_host_id, desired_revision);
CREATE INDEX migrations_due ON migrations (due_at);

-- INVARIANT: what a host has reserved is the sum over its instances and those on their way to it.
CREATE FUNCTION keep_migration_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved - OLD.vcpus,
                         memory_mib_reserved = memory_mib_reserved - OLD.memory_mib
        WHERE id = OLD.destination_host_id;
    ELSE
        UPDATE hosts SET vcpus_reserved = vcpus_reserved + NEW.vcpus,
                         memory_mib_reserved = memory_mib_reserved + NEW.memory_mib
        WHERE id = NEW.destination_host_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER migrations_reserve AFTER INSERT OR DELETE ON migrations
    FOR EACH ROW EXECUTE FUNCTION keep_migration_reservations();

-- INVARIANT: both hosts have the same specification of an instance on its way, so nothing changes of it. Whoever has to
-- change something all the same ends the migration first.
CREATE FUNCTION refuse_while_migrating() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM migrations WHERE instance_id = NEW.id) THEN
        RAISE EXCEPTION 'instance % is on its way to another host', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'instances_stay_as_they_are_on_their_way';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER instances_on_their_way BEFORE UPDATE ON instances
    FOR EACH ROW WHEN ((OLD.generation, OLD.host_id) IS DISTINCT FROM (NEW.generation, NEW.host_id))
    EXECUTE FUNCTION refuse_while_migrating();

-- Ends the migration of an instance, which is locked, if there is one: the destination gives up what it has of it.
CREATE FUNCTION end_migration(instance uuid) RETURNS void LANGUAGE plpgsql AS $$
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
    UPDATE hosts SET desired_revision = desired_revision + 1, network_revision = desired_revision + 1
    WHERE id = ended.destination_host_id RETURNING desired_revision INTO revision;
    INSERT INTO departures (instance_id, host_id, generation, desired_revision)
    SELECT instance, ended.destination_host_id, i.generation, revision FROM instances i WHERE i.id = instance;
    PERFORM pg_notify('cumulo', 'host ' || ended.destination_host_id);
END $$;

-- No merge begins while two hosts have the disks open.
ALTER FUNCTION plan_merge(uuid, uuid, uuid, timestamptz) RENAME TO plan_merge_at_rest;
CREATE FUNCTION plan_merge(of_volume uuid, in_instance uuid, new_layer uuid, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM migrations WHERE instance_id = in_instance) THEN
        RETURN false;
    END IF;
    RETURN plan_merge_at_rest(of_volume, in_instance, new_layer, at);
END $$;
