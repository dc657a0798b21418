-- Instances that start elsewhere when their host dies, and what hosts say of each other's leases in shared pools.

ALTER TABLE instances
    ADD COLUMN on_host_failure text NOT NULL DEFAULT 'wait' CHECK (on_host_failure IN ('wait', 'restart')),
    -- The generation in which its host hears what it has to guard. NULL: it has never heard of it in another way.
    ADD COLUMN guarded_from bigint,
    -- Starts after its guard had cut its power, shortly one after the other, and when the next may be.
    ADD COLUMN fenced_starts integer NOT NULL DEFAULT 0,
    ADD COLUMN fenced_due_at timestamptz,
    DROP CONSTRAINT instances_observed_end_reason_check,
    ADD CONSTRAINT instances_observed_end_reason_check CHECK (observed_end_reason IN
        ('requested', 'guest_shutdown', 'crashed', 'unobserved', 'never_started', 'fenced'));
CREATE INDEX instances_that_restart ON instances (host_id) WHERE on_host_failure = 'restart';
CREATE INDEX instances_fenced ON instances (id) WHERE observed_end_reason = 'fenced';

-- INVARIANT: a disk in another pool counts for the guard only once the host has reported the generation that brings it.
CREATE FUNCTION guard_new_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE instances SET guarded_from = generation + 1
    WHERE id = NEW.instance_id AND host_id IS NOT NULL AND on_host_failure = 'restart';
    RETURN NULL;
END $$;
CREATE TRIGGER volumes_come_under_guard AFTER UPDATE OF instance_id ON volumes
    FOR EACH ROW WHEN (NEW.instance_id IS NOT NULL AND NEW.instance_id IS DISTINCT FROM OLD.instance_id)
    EXECUTE FUNCTION guard_new_disk();
CREATE TRIGGER new_volumes_come_under_guard AFTER INSERT ON volumes
    FOR EACH ROW WHEN (NEW.instance_id IS NOT NULL) EXECUTE FUNCTION guard_new_disk();

-- The last word of each host in its present session. What is wrong or too much was left out before.
CREATE TABLE host_leases (
    host_id uuid PRIMARY KEY REFERENCES hosts ON DELETE CASCADE,
    seen_at timestamptz NOT NULL,
    -- Names of shared pools in which its guard keeps its lease fresh, with the counter.
    guarded jsonb NOT NULL DEFAULT '{}',
    -- What it sees of others: pool, host, counter, unchanged_seconds.
    seen    jsonb NOT NULL DEFAULT '[]'
);
-- Opening a session makes it; so it is there before anybody tells of leases.
INSERT INTO host_leases (host_id, seen_at) SELECT id, 'epoch' FROM hosts;

-- The pools in which the guards of hosts keep leases fresh, as heard since then.
CREATE FUNCTION guarded_pools_since(heard_since timestamptz) RETURNS TABLE (pool_id uuid, host_id uuid)
LANGUAGE sql STABLE AS $$
    SELECT p.id, l.host_id FROM host_leases l JOIN pool_hosts ph ON ph.host_id = l.host_id
    JOIN pools p ON p.id = ph.pool_id
    WHERE l.seen_at >= heard_since AND l.guarded ? p.name
$$;

-- Leases that are proven to have lapsed. INVARIANT: the host is silent, and its last word was that its guard kept the
-- lease; another host that has the pool, keeps a lease of its own there and was just heard has seen it unchanged for so
-- long, at a counter that is not older than that word; and no host that was just heard has seen it change since. With
-- `subject` it looks at one host only.
CREATE FUNCTION lapsed_leases(
    subject uuid, silent_since timestamptz, heard_since timestamptz, lapsed_seconds integer
) RETURNS TABLE (host_id uuid, pool_id uuid, pool text, counter bigint, witnesses bigint, unchanged_seconds integer)
LANGUAGE sql STABLE AS $$
    SELECT h.id, p.id, p.name, own.counter, count(*) FILTER (WHERE said.proves),
           max(said.unchanged) FILTER (WHERE said.proves)
    FROM hosts h
    JOIN host_leases l ON l.host_id = h.id
    CROSS JOIN LATERAL (SELECT key AS name, value::bigint AS counter FROM jsonb_each_text(l.guarded)) own
    JOIN pools p ON p.name = own.name
    JOIN pool_hosts ph ON ph.pool_id = p.id AND ph.host_id = h.id
    CROSS JOIN LATERAL (
        SELECT s.unchanged_seconds AS unchanged,
               s.unchanged_seconds >= lapsed_seconds AND s.counter >= own.counter AND w.guarded ? p.name AS proves
        FROM host_leases w
        JOIN hosts wh ON wh.id = w.host_id AND wh.last_seen_at >= heard_since
        JOIN pool_hosts wp ON wp.pool_id = p.id AND wp.host_id = w.host_id
        CROSS JOIN LATERAL jsonb_to_recordset(w.seen)
            AS s (pool text, host uuid, counter bigint, unchanged_seconds integer)
        WHERE w.host_id <> h.id AND w.seen_at >= heard_since AND s.pool = p.name AND s.host = h.id) said
    WHERE h.last_seen_at < silent_since AND (subject IS NULL OR h.id = subject)
    GROUP BY h.id, p.id, p.name, own.counter
    HAVING count(*) FILTER (WHERE said.proves) > 0
       AND count(*) FILTER (WHERE said.unchanged < lapsed_seconds) = 0
$$;
