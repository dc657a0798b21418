-- What happened to what: a log for each project, and one for the cloud.
--
-- A later migration adds a table with one call, naming the columns that its owner changes and those that tell
-- how it fares:
--     CALL record_events('volumes', 'volume', '{name,labels,size_gib}', '{observed_state}');

-- What has happened and has no position in its log yet. Written in the transaction of the change itself;
-- emptied after its commit by the sequencer (api/src/events/sequence.rs).
CREATE TABLE pending_events (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The project; or, all zeros, the cloud.
    log_id        uuid NOT NULL,
    kind          text NOT NULL,
    change        text NOT NULL CHECK (change IN ('created', 'updated', 'state', 'deleted')),
    resource_id   uuid NOT NULL,
    resource_name text NOT NULL,
    request_id    uuid
);

-- How far each log has come. A row outlives its project until its events are swept.
CREATE TABLE event_logs (
    log_id        uuid PRIMARY KEY,
    last_position bigint NOT NULL CHECK (last_position > 0),
    last_at       timestamptz NOT NULL
);

-- INVARIANT: the positions of a log are 1, 2, 3 … without a gap, become visible in that order, and their times
-- never go back. Only the oldest are ever removed.
CREATE TABLE events (
    log_id        uuid NOT NULL,
    position      bigint NOT NULL CHECK (position > 0),
    kind          text NOT NULL,
    change        text NOT NULL,
    resource_id   uuid NOT NULL,
    resource_name text NOT NULL,
    request_id    uuid,
    at            timestamptz NOT NULL,
    PRIMARY KEY (log_id, position)
);
CREATE INDEX events_at ON events (at);

-- Arguments: the kind, the change, whose log ('project' or 'cloud'), and whether the row names the request that
-- is behind it ('request' or '').
CREATE FUNCTION record_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    cloud   CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    kind    CONSTANT text := TG_ARGV[0];
    change  CONSTANT text := TG_ARGV[1];
    subject record;
    named   text;
    request uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN subject := OLD; ELSE subject := NEW; END IF;
    -- An operation has no name; what it does stands for it.
    IF kind = 'operation' THEN named := subject.kind; ELSE named := subject.name; END IF;
    IF TG_ARGV[3] = 'request' THEN request := subject.request_id; END IF;

    IF TG_ARGV[2] = 'cloud' THEN
        INSERT INTO pending_events (log_id, kind, change, resource_id, resource_name, request_id)
        VALUES (cloud, kind, change, subject.id, named, request);
    ELSE
        INSERT INTO pending_events (log_id, kind, change, resource_id, resource_name, request_id)
        VALUES (subject.project_id, kind, change, subject.id, named, request);
    END IF;
    -- Its members do not read the cloud's log.
    IF kind = 'project' AND TG_OP <> 'DELETE' THEN
        INSERT INTO pending_events (log_id, kind, change, resource_id, resource_name, request_id)
        VALUES (subject.id, kind, change, subject.id, named, request);
    END IF;
    PERFORM pg_notify('cumulo', 'events -');
    RETURN NULL;
END $$;

CREATE FUNCTION has_column(relation text, name text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = relation::regclass AND attname = name AND NOT attisdropped)
$$;

-- The condition that one of these columns changes.
CREATE FUNCTION any_changes(columns text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce('(' || string_agg(format('OLD.%1$I IS DISTINCT FROM NEW.%1$I', name), ' OR ') || ')', 'false')
    FROM unnest(columns) name
$$;

-- From now on the rows of this table write events: 'created' and 'deleted', 'updated' when one of the first
-- columns changes, and 'state' when only one of the others does. One statement writes one event about a row.
CREATE PROCEDURE record_events(relation text, kind text, updated text[], state text[] DEFAULT '{}')
LANGUAGE plpgsql AS $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        VALUES ('created', 'INSERT', 'true'),
               ('updated', 'UPDATE', any_changes(updated)),
               ('state', 'UPDATE', any_changes(state) || ' AND NOT ' || any_changes(updated)),
               ('deleted', 'DELETE', 'true')
    LOOP
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %I FOR EACH ROW WHEN (%s)
                        EXECUTE FUNCTION record_event(%L, %L, %L, %L)',
            relation || '_event_' || wanted.column1, wanted.column2, relation, wanted.column3,
            kind, wanted.column1,
            CASE WHEN has_column(relation, 'project_id') THEN 'project' ELSE 'cloud' END,
            CASE WHEN has_column(relation, 'request_id') THEN 'request' ELSE '' END);
    END LOOP;
END $$;

CALL record_events('projects', 'project', '{name,description,labels}');
CALL record_events('images', 'image', '{name,description,labels}', '{blob_id}');
CALL record_events('instances', 'instance',
    '{name,labels,generation,vcpus,memory_mib,root_disk_gib,power,boot,stop_mode,stop_timeout_seconds,'
    'deletion_requested_at}',
    '{host_id,placement_explanation,observed_state,observed_boot,observed_end_reason}');
CALL record_events('operations', 'operation', '{}', '{status}');
CALL record_events('instance_types', 'instance_type', '{name,generation,vcpus,memory_mib,root_disk_gib}');
CALL record_events('hosts', 'host', '{name}', '{hypervisor_degraded,quarantined}');
-- Operations go with their project, and only with it.
DROP TRIGGER operations_event_deleted ON operations;
