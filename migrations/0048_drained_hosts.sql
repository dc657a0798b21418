-- Hosts that are emptied for maintenance, and what becomes of each instance there.

ALTER TABLE hosts
    -- 'ending': what was shut down to be moved is being started again where it is.
    ADD COLUMN maintenance text CHECK (maintenance IN ('draining', 'drained', 'ending')),
    ADD CONSTRAINT hosts_in_maintenance_take_nothing CHECK (
        maintenance IS NULL OR maintenance = 'ending' OR cordoned);

-- Where an instance was before is a hint for placement. A host that is removed does not wait for the rows that name it.
ALTER TABLE instances DROP CONSTRAINT instances_left_host_id_fkey;
DROP INDEX instances_that_left_host;

-- Beside that of 0033_placement.sql: one statement writes one event.
CREATE TRIGGER hosts_event_maintenance AFTER UPDATE ON hosts
    FOR EACH ROW WHEN (OLD.maintenance IS DISTINCT FROM NEW.maintenance AND OLD.cordoned = NEW.cordoned)
    EXECUTE FUNCTION record_event('host', 'state', 'cloud', '');

-- Changed with the host's row held.
CREATE TABLE host_drains (
    host_id         uuid PRIMARY KEY REFERENCES hosts ON DELETE CASCADE,
    -- On whose behalf instances are moved; may be gone by then.
    principal_id    uuid NOT NULL,
    stop_running    boolean NOT NULL,
    timeout_seconds integer NOT NULL CHECK (timeout_seconds BETWEEN 1 AND 3600),
    -- Whether the host takes instances again when its maintenance ends: nobody else keeps them away.
    uncordons       boolean NOT NULL,
    started_at      timestamptz NOT NULL,
    drained_at      timestamptz
);

-- Each instance that a host in maintenance had, and how far it is. Changed with the instance's row held.
CREATE TABLE evacuations (
    host_id     uuid NOT NULL REFERENCES host_drains ON DELETE CASCADE,
    -- No foreign key: it may be deleted meanwhile.
    instance_id uuid NOT NULL,
    project_id  uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name        text NOT NULL,
    phase       text NOT NULL CHECK (phase IN ('waiting', 'stays', 'stopping', 'moving', 'left')),
    way         text CHECK (way IN ('move', 'migrate', 'restart_elsewhere')),
    -- Why it is not further.
    code        text,
    message     text,
    -- The operation that has shut its guest down: from then on a start is owed to it, wherever it is. And when its
    -- owner wanted it to be stopped anyway.
    stopped_by  uuid,
    stop_at     timestamptz,
    -- It is neither shut down nor sent again before.
    due_at      timestamptz,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (host_id, instance_id),
    CONSTRAINT evacuations_say_why_in_full CHECK ((code IS NULL) = (message IS NULL)),
    CONSTRAINT evacuations_that_stay_say_why CHECK (phase <> 'stays' OR code IS NOT NULL)
);
CREATE INDEX evacuations_of_instance ON evacuations (instance_id);
CREATE INDEX evacuations_of_project ON evacuations (project_id);

-- The maintenance of a host, for the operator; of what remains the first.
CREATE FUNCTION maintenance_of(host uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'state', coalesce(h.maintenance, 'none'), 'stop_running', d.stop_running, 'timeout_seconds', d.timeout_seconds,
        'uncordons', d.uncordons, 'started_at', d.started_at, 'drained_at', d.drained_at,
        'instances', (SELECT count(*) FROM evacuations e WHERE e.host_id = h.id),
        'left', (SELECT count(*) FROM evacuations e WHERE e.host_id = h.id AND e.phase = 'left'),
        'remaining', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'instance', jsonb_build_object('id', r.instance_id, 'name', r.name), 'project', p.name,
                'phase', r.phase, 'way', r.way, 'code', r.code, 'message', r.message, 'updated_at', r.updated_at)
                ORDER BY r.instance_id)
            FROM (SELECT * FROM evacuations e WHERE e.host_id = h.id AND e.phase <> 'left'
                  ORDER BY e.instance_id LIMIT 20) r
            JOIN projects p ON p.id = r.project_id), '[]'))
    FROM hosts h LEFT JOIN host_drains d ON d.host_id = h.id WHERE h.id = host
$$;
