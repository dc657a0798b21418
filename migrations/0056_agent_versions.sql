-- What the agent of a host speaks, so that it is told nothing that it does not know.
ALTER TABLE hosts
    -- The version of the protocol in its newest session; nothing before a replica of this release has opened one.
    ADD COLUMN protocol_version integer,
    -- What its agent speaks when that is neither ours nor the version before, so that no session was opened.
    ADD COLUMN refused_protocol_version integer;

CREATE TRIGGER hosts_event_agent AFTER UPDATE ON hosts
    FOR EACH ROW WHEN (
        OLD.agent_version <> NEW.agent_version
        OR OLD.protocol_version <> NEW.protocol_version
        OR OLD.refused_protocol_version IS DISTINCT FROM NEW.refused_protocol_version)
    EXECUTE FUNCTION record_event('host', 'state', 'cloud', '');
