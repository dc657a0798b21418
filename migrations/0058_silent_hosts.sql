-- When hosts fall silent and are heard again.

ALTER TABLE hosts
    -- A pass of the control plane has seen that nothing was heard of it for a while; not before it has listened as long itself.
    ADD COLUMN silent boolean NOT NULL DEFAULT false,
    -- Since when it is heard without a gap of more than that. NULL: since before this was noted. (Functions in SQL take a name for a
    -- column before they take it for a parameter: some have `heard_since`.)
    ADD COLUMN heard_again_at timestamptz;

CREATE FUNCTION note_heard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.silent := false;
    NEW.heard_again_at := NEW.last_seen_at;
    RETURN NEW;
END $$;
-- 20 s as in `UNREACHABLE_AFTER` (api/src/hosts/model.rs).
CREATE TRIGGER hosts_heard BEFORE UPDATE OF last_seen_at ON hosts
    FOR EACH ROW WHEN (NEW.last_seen_at > coalesce(OLD.last_seen_at, '-infinity')
        AND (OLD.silent OR OLD.last_seen_at IS NULL OR NEW.last_seen_at > OLD.last_seen_at + interval '20 seconds'))
    EXECUTE FUNCTION note_heard();

-- Beside those of 0024, 0033, 0048 and 0056: one statement writes one event.
CREATE TRIGGER hosts_event_heard AFTER UPDATE ON hosts
    FOR EACH ROW WHEN (
        (OLD.silent, OLD.declared_dead_at IS NULL) IS DISTINCT FROM (NEW.silent, NEW.declared_dead_at IS NULL)
        AND (OLD.name, OLD.pool_low_percent, OLD.disk_overcommit, OLD.hypervisor_degraded, OLD.quarantined, OLD.pool_low,
             OLD.cordoned, OLD.maintenance)
            IS NOT DISTINCT FROM
            (NEW.name, NEW.pool_low_percent, NEW.disk_overcommit, NEW.hypervisor_degraded, NEW.quarantined, NEW.pool_low,
             NEW.cordoned, NEW.maintenance)
        -- Of 0056, which may come back with another agent.
        AND (OLD.agent_version <> NEW.agent_version
             OR OLD.protocol_version <> NEW.protocol_version
             OR OLD.refused_protocol_version IS DISTINCT FROM NEW.refused_protocol_version) IS NOT TRUE)
    EXECUTE FUNCTION record_event('host', 'state', 'cloud', '');
