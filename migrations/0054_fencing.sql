-- Fencing: a program of the operator switches hosts off that have fallen silent.

-- Since when the control plane has listened to agents without a gap: nobody is silent for longer than somebody listens.
CREATE TABLE fence_watch (
    single  boolean PRIMARY KEY DEFAULT true CHECK (single),
    since   timestamptz NOT NULL,
    last_at timestamptz NOT NULL
);

-- What became of switching off a host that is silent now, or was declared dead by that.
CREATE TABLE host_fences (
    host_id     uuid PRIMARY KEY REFERENCES hosts ON DELETE CASCADE,
    -- 'held': it is not switched off, as `detail` says. 'off': the program has said so, and the host was declared dead.
    state       text NOT NULL CHECK (state IN ('running', 'failed', 'held', 'off')),
    detail      text CHECK (char_length(detail) BETWEEN 1 AND 500),
    -- How often the program was begun.
    attempts    integer NOT NULL CHECK (attempts >= 0),
    started_at  timestamptz,
    -- It is begun again after this: the replica that ran it is gone.
    lease_until timestamptz,
    -- Not before.
    due_at      timestamptz,
    CONSTRAINT host_fences_say_why CHECK (state NOT IN ('failed', 'held') OR detail IS NOT NULL),
    CONSTRAINT host_fences_run_for_a_while CHECK (state <> 'running' OR num_nonnulls(started_at, lease_until) = 2)
);

CREATE FUNCTION record_fencing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pending_events (log_id, kind, change, resource_id, resource_name)
    SELECT '00000000-0000-0000-0000-000000000000', 'host', 'state', h.id, h.name FROM hosts h WHERE h.id = NEW.host_id;
    PERFORM pg_notify('cumulo', 'events -');
    RETURN NULL;
END $$;
CREATE TRIGGER host_fences_event_begun AFTER INSERT ON host_fences
    FOR EACH ROW EXECUTE FUNCTION record_fencing();
CREATE TRIGGER host_fences_event_state AFTER UPDATE ON host_fences
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION record_fencing();

-- The same for the operator, while it says anything of how the host is now: whoever is heard is not off.
CREATE FUNCTION fencing_of(host uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'state', f.state, 'detail', f.detail, 'attempts', f.attempts, 'started_at', f.started_at,
        'next_at', CASE WHEN f.state = 'failed' THEN f.due_at END)
    FROM host_fences f JOIN hosts h ON h.id = f.host_id
    WHERE f.host_id = host AND (f.state = 'off') = (h.declared_dead_at IS NOT NULL)
$$;
