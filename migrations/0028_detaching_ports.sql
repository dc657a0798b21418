-- A port that is taken away from an instance stays its card until the host has said that the guest has let go of it:
-- only then is it another's, or its address.

ALTER TABLE ports
    ADD COLUMN detaching boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT ports_detaching_are_attached CHECK (instance_id IS NOT NULL OR NOT detaching);

-- The cards that its domain still has although they are not wanted any more, as its host said: heartbeats carry a
-- digest of them.
ALTER TABLE instances ADD COLUMN observed_leaving_cards jsonb NOT NULL DEFAULT '[]';

DROP TRIGGER ports_event_created ON ports;
DROP TRIGGER ports_event_updated ON ports;
DROP TRIGGER ports_event_state ON ports;
DROP TRIGGER ports_event_deleted ON ports;
CALL record_events('ports', 'port', '{name,labels,generation}', '{instance_id,detaching}');

-- To hosts a port that leaves its instance is nobody's.
DROP TRIGGER ports_tell_update ON ports;
CREATE TRIGGER ports_tell_update AFTER UPDATE ON ports REFERENCING NEW TABLE AS changed FOR EACH ROW
    WHEN ((OLD.mac, CASE WHEN NOT OLD.detaching THEN OLD.instance_id END) IS DISTINCT FROM
          (NEW.mac, CASE WHEN NOT NEW.detaching THEN NEW.instance_id END))
    EXECUTE FUNCTION note_network_rows('SELECT DISTINCT project_id FROM changed');

-- Before instances are deleted, and when guests have let go of cards: ports that were made with an instance go, with
-- their addresses; the others are attached to nothing.
DROP FUNCTION release_ports(uuid[]);
CREATE FUNCTION release_ports(gone uuid[], let_go uuid[], at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    free uuid[];
BEGIN
    SELECT array_agg(id) INTO free FROM (
        SELECT id FROM ports WHERE instance_id = ANY (gone) OR id = ANY (let_go) ORDER BY id FOR UPDATE) locked;
    PERFORM FROM project_quotas WHERE project_id IN (
        SELECT project_id FROM instances WHERE id = ANY (gone)
        UNION SELECT project_id FROM ports WHERE id = ANY (free))
    ORDER BY project_id, resource FOR NO KEY UPDATE;
    PERFORM FROM subnets WHERE id IN (
        SELECT a.subnet_id FROM subnet_addresses a JOIN ports p ON p.id = a.port_id
        WHERE p.id = ANY (free) AND p.owned_by_instance) ORDER BY id FOR NO KEY UPDATE;
    DELETE FROM ports WHERE id = ANY (free) AND owned_by_instance;
    UPDATE ports SET instance_id = NULL, position = NULL, host_revision = NULL, detaching = false, updated_at = at
    WHERE id = ANY (free);
END $$;

-- An instance's network cards in their order, with those that are on their way out.
CREATE OR REPLACE FUNCTION instance_nics(instance uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('port_id', p.id, 'port_name', p.name, 'network_id', n.id,
                                                     'network_name', n.name, 'vni', n.vni, 'mtu', n.mtu,
                                                     'mac', p.mac::text, 'addresses', port_addresses(p.id),
                                                     'detaching', p.detaching)
                                  ORDER BY p.position), '[]')
        FROM ports p JOIN networks n ON n.id = p.network_id WHERE p.instance_id = instance);
END $$;
