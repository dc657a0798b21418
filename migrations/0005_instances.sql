-- Virtual machines: what their owner wants, and what their host saw.

CREATE TABLE operations (
    id                uuid PRIMARY KEY,
    project_id        uuid NOT NULL REFERENCES projects,
    kind              text NOT NULL,
    -- No foreign key: an operation outlives the resource that it deleted.
    resource_id       uuid NOT NULL,
    resource_name     text NOT NULL,
    status            text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled')),
    error_code        text,
    error_detail      text,
    principal_id      uuid NOT NULL REFERENCES users,
    request_id        uuid NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    deadline_at       timestamptz NOT NULL,
    finished_at       timestamptz,
    CONSTRAINT operations_finished_have_a_time CHECK ((status = 'running') = (finished_at IS NULL)),
    CONSTRAINT operations_failures_have_a_reason CHECK (
        (status IN ('failed', 'cancelled')) = (error_code IS NOT NULL))
);
CREATE INDEX operations_of_resource ON operations (resource_id, id DESC);
CREATE INDEX operations_of_project ON operations (project_id, id);
CREATE INDEX operations_due ON operations (deadline_at) WHERE status = 'running';

-- The trail: every step once, in the order in which we heard of it.
CREATE TABLE operation_steps (
    operation_id uuid NOT NULL REFERENCES operations ON DELETE CASCADE,
    position     bigint GENERATED ALWAYS AS IDENTITY,
    step         text NOT NULL,
    at           timestamptz NOT NULL,
    detail       text,
    PRIMARY KEY (operation_id, step)
);

CREATE TABLE instances (
    id                    uuid PRIMARY KEY,
    project_id            uuid NOT NULL REFERENCES projects,
    name                  text NOT NULL,
    labels                jsonb NOT NULL,
    -- Counts changes of intent; the agent refuses an older one.
    generation            bigint NOT NULL,

    -- Intent.
    image_id              uuid NOT NULL REFERENCES images,
    instance_type_id      uuid NOT NULL REFERENCES instance_types,
    architecture          text NOT NULL,
    vcpus                 integer NOT NULL CHECK (vcpus > 0),
    memory_mib            integer NOT NULL CHECK (memory_mib > 0),
    root_disk_gib         integer NOT NULL CHECK (root_disk_gib > 0),
    hostname              text NOT NULL,
    user_data             text,
    ssh_authorized_keys   text[] NOT NULL,
    power                 text NOT NULL CHECK (power IN ('running', 'stopped')),
    boot                  bigint NOT NULL CHECK (boot > 0),
    stop_mode             text NOT NULL CHECK (stop_mode IN ('graceful', 'force')),
    stop_timeout_seconds  integer NOT NULL CHECK (stop_timeout_seconds BETWEEN 1 AND 3600),
    deletion_requested_at timestamptz,
    -- The newest operation, open or not, and the request that made this generation.
    operation_id          uuid NOT NULL REFERENCES operations,
    request_id            uuid NOT NULL,

    -- Placement.
    host_id               uuid REFERENCES hosts,
    -- The host's revision at which this row last changed what the host shall do.
    desired_revision      bigint,
    placement_due_at      timestamptz NOT NULL,
    placement_explanation jsonb,

    -- Observation, by the host.
    observed_generation   bigint,
    observed_boot         bigint,
    observed_state        text CHECK (observed_state IN
                              ('preparing', 'running', 'stopping', 'stopped', 'failed', 'absent')),
    observed_end_reason   text CHECK (observed_end_reason IN
                              ('requested', 'guest_shutdown', 'crashed', 'unobserved', 'never_started')),
    observed_detail       text,
    observed_at           timestamptz,

    created_at            timestamptz NOT NULL,
    updated_at            timestamptz NOT NULL,
    CONSTRAINT instances_name_unique UNIQUE (project_id, name),
    CONSTRAINT instances_placed_have_a_revision CHECK ((host_id IS NULL) = (desired_revision IS NULL)),
    CONSTRAINT instances_end_reason CHECK ((observed_state = 'stopped') = (observed_end_reason IS NOT NULL)
                              OR observed_state IS NULL)
);
CREATE INDEX instances_of_project ON instances (project_id, id);
CREATE INDEX instances_of_image ON instances (image_id);
CREATE INDEX instances_of_type ON instances (instance_type_id);
CREATE INDEX instances_of_host ON instances (host_id, desired_revision);
CREATE INDEX instances_unplaced ON instances (placement_due_at) WHERE host_id IS NULL;

-- INVARIANT: hosts.*_reserved is the sum over the instances placed there, whatever statement changes them.
CREATE FUNCTION keep_host_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') AND OLD.host_id IS NOT NULL THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved - OLD.vcpus,
                         memory_mib_reserved = memory_mib_reserved - OLD.memory_mib,
                         disk_gib_reserved = disk_gib_reserved - OLD.root_disk_gib
        WHERE id = OLD.host_id;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') AND NEW.host_id IS NOT NULL THEN
        UPDATE hosts SET vcpus_reserved = vcpus_reserved + NEW.vcpus,
                         memory_mib_reserved = memory_mib_reserved + NEW.memory_mib,
                         disk_gib_reserved = disk_gib_reserved + NEW.root_disk_gib
        WHERE id = NEW.host_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER instances_reserve AFTER INSERT OR DELETE ON instances
    FOR EACH ROW EXECUTE FUNCTION keep_host_reservations();
CREATE TRIGGER instances_move AFTER UPDATE ON instances
    FOR EACH ROW WHEN ((OLD.host_id, OLD.vcpus, OLD.memory_mib, OLD.root_disk_gib)
        IS DISTINCT FROM (NEW.host_id, NEW.vcpus, NEW.memory_mib, NEW.root_disk_gib))
    EXECUTE FUNCTION keep_host_reservations();

-- Bytes that the control plane asked a host for, on their way to whoever waits for them.
CREATE TABLE transfers (
    id               uuid PRIMARY KEY,
    host_id          uuid NOT NULL REFERENCES hosts,
    instance_id      uuid NOT NULL REFERENCES instances ON DELETE CASCADE,
    max_bytes        integer NOT NULL CHECK (max_bytes > 0),
    desired_revision bigint NOT NULL,
    body             bytea,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL
);
CREATE INDEX transfers_of_host ON transfers (host_id, desired_revision) WHERE body IS NULL;
CREATE INDEX transfers_expiry ON transfers (expires_at);
