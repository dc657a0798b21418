-- What was slow where there is much of it: retention, the search for merges, and what is deleted while others may refer to it.

-- Foreign keys without an index: whoever deletes what they name looks at every row of theirs.
CREATE INDEX instances_of_operation ON instances (operation_id) WHERE operation_id IS NOT NULL;
CREATE INDEX volumes_of_operation ON volumes (operation_id) WHERE operation_id IS NOT NULL;
CREATE INDEX snapshots_of_operation ON snapshots (operation_id) WHERE operation_id IS NOT NULL;
CREATE INDEX instances_that_left_host ON instances (left_host_id) WHERE left_host_id IS NOT NULL;
CREATE INDEX layers_of_host ON layers (host_id) WHERE host_id IS NOT NULL;
CREATE INDEX layers_of_pool ON layers (pool_id) WHERE pool_id IS NOT NULL;
CREATE INDEX transfers_of_instance ON transfers (instance_id);
CREATE INDEX subnet_addresses_of_router_interface ON subnet_addresses (router_interface_id)
    WHERE router_interface_id IS NOT NULL;
CREATE INDEX policy_attachments_of_principal ON policy_attachments (principal_id) WHERE principal_id IS NOT NULL;
CREATE INDEX policy_attachments_of_group ON policy_attachments (group_id) WHERE group_id IS NOT NULL;

-- As 0036_quota_of_bytes.sql has it, in one pass over what schedules made; whoever asks for one schedule reads that one only.
DROP FUNCTION surplus_snapshots();
CREATE VIEW surplus_snapshots AS
    SELECT id, schedule_id FROM (
        SELECT s.id, s.schedule_id, s.state, c.keep, count(*) OVER newer AS newer,
               count(*) FILTER (WHERE s.state = 'available') OVER newer AS newer_there
        FROM snapshots s JOIN snapshot_schedules c ON c.id = s.schedule_id
        WHERE CASE WHEN c.instance_id IS NOT NULL THEN s.instance_id = c.instance_id
                   ELSE s.instance_id IS NULL AND EXISTS (
                       SELECT FROM snapshot_volumes v WHERE v.snapshot_id = s.id AND v.volume_id = c.volume_id) END
        WINDOW newer AS (PARTITION BY s.schedule_id ORDER BY s.created_at DESC, s.id DESC
                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) made
    WHERE CASE state WHEN 'creating' THEN false WHEN 'failed' THEN newer >= 1 ELSE newer_there >= keep END;

-- Layers that somebody needs as they are, not only what stands on them. A later migration that knows of others writes this
-- view anew.
CREATE VIEW held_layers AS
    SELECT layer_id AS id FROM snapshot_volumes WHERE layer_id IS NOT NULL
    UNION ALL SELECT layer_id FROM image_imports WHERE layer_id IS NOT NULL
    UNION ALL SELECT memory_id FROM snapshots WHERE memory_id IS NOT NULL;
CREATE OR REPLACE FUNCTION layer_held(layer uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM held_layers WHERE id = layer)
$$;

-- As 0022_snapshots.sql has it. What is held is left out before anybody climbs.
CREATE OR REPLACE FUNCTION volumes_to_merge() RETURNS TABLE (volume uuid, instance uuid) LANGUAGE sql STABLE AS $$
    WITH free AS MATERIALIZED (
        SELECT DISTINCT l.id FROM layers l JOIN layers c ON c.parent_id = l.id
        WHERE l.sealed AND l.kept AND (c.sealed OR l.spare) AND NOT EXISTS (SELECT FROM held_layers h WHERE h.id = l.id))
    SELECT DISTINCT v.id, v.instance_id
    FROM free CROSS JOIN LATERAL only_volume_above(free.id) above
    JOIN volumes v ON v.id = above
    JOIN instances i ON i.id = v.instance_id
    WHERE i.host_id IS NOT NULL AND i.deletion_requested_at IS NULL AND v.attachment_state <> 'detaching'
      AND NOT EXISTS (SELECT FROM layers m WHERE m.parent_merge IS NOT NULL AND m.id = ANY (chain_of(v.layer_id)))
$$;

-- As 0029_memory_snapshots.sql has it, and the virtual machine around the guest is another one with another type.
CREATE OR REPLACE FUNCTION instance_hardware(instance uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
                   'size', jsonb_build_array(i.vcpus, i.memory_mib, i.architecture, i.firmware),
                   'machine', coalesce(t.hardware, '{}'),
                   'processor', jsonb_build_array(h.inventory -> 'cpu_model', h.inventory -> 'acceleration'),
                   'volumes', (SELECT coalesce(jsonb_agg(jsonb_build_array(v.position, v.id, v.size_gib) ORDER BY v.position), '[]')
                               FROM volumes v WHERE v.instance_id = i.id AND v.attachment_state <> 'detaching'),
                   'cards', (SELECT coalesce(jsonb_agg(jsonb_build_array(p.position, p.id, p.mac::text, n.mtu)
                                                       ORDER BY p.position), '[]')
                             FROM ports p JOIN networks n ON n.id = p.network_id
                             WHERE p.instance_id = i.id AND NOT p.detaching))
        FROM instances i LEFT JOIN hosts h ON h.id = i.host_id LEFT JOIN instance_types t ON t.id = i.instance_type_id
        WHERE i.id = instance);
END $$;
UPDATE snapshots s
SET hardware = s.hardware || jsonb_build_object(
    'machine', coalesce((SELECT t.hardware FROM instance_types t WHERE t.id = s.instance_type_id), '{}'))
WHERE s.hardware IS NOT NULL;
