-- Snapshots that hold the memory of a guest, and why hosts do not take one.

ALTER TABLE layers
    -- The memory of a guest is a file of its own among the layers: sealed, over nothing, and so large.
    ADD COLUMN memory_gib integer NOT NULL DEFAULT 0 CHECK (memory_gib >= 0);

ALTER TABLE snapshots
    -- Why its host did not take it, as it said.
    ADD COLUMN not_taken text CHECK (not_taken IN ('no_guest_agent', 'not_frozen', 'no_room', 'memory_not_saved')),
    ADD COLUMN with_memory boolean NOT NULL DEFAULT false,
    -- The memory; NULL when it has failed.
    ADD COLUMN memory_id uuid REFERENCES layers,
    -- What it takes of the project's disk.
    ADD COLUMN memory_gib integer NOT NULL DEFAULT 0 CHECK (memory_gib >= 0),
    -- What the memory fits to: see instance_hardware().
    ADD COLUMN hardware jsonb,
    ADD CONSTRAINT snapshots_with_memory_have_it CHECK (
        (memory_id IS NOT NULL) = (with_memory AND state <> 'failed')
        AND with_memory = (hardware IS NOT NULL) AND (with_memory OR memory_gib = 0)
        AND NOT (with_memory AND (consistency <> 'crash' OR instance_id IS NULL)));
CREATE INDEX snapshots_of_memory ON snapshots (memory_id) WHERE memory_id IS NOT NULL;
CALL count_in_quota('disk_gib', 'snapshots', 'memory_gib');

ALTER TABLE instances
    -- What its host keeps of the guest's memory when it adds layers (protocol::agent::SaveMemory).
    ADD COLUMN saves_memory jsonb,
    -- The boot that goes on from the memory of this snapshot. No other boot does.
    ADD COLUMN resume_boot bigint,
    ADD COLUMN resume_snapshot_id uuid CONSTRAINT instances_resume_from_a_snapshot REFERENCES snapshots,
    ADD CONSTRAINT instances_resume_whole CHECK ((resume_boot IS NULL) = (resume_snapshot_id IS NULL));
CREATE INDEX instances_of_resume ON instances (resume_snapshot_id) WHERE resume_snapshot_id IS NOT NULL;

-- INVARIANT: as 0022_snapshots.sql has it, decided anew with each generation, and with nothing else.
CREATE OR REPLACE FUNCTION decide_freeze() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.freezes := EXISTS (SELECT FROM snapshots
                          WHERE taking_instance_id = NEW.id AND consistency = 'filesystem');
    NEW.saves_memory := (
        SELECT jsonb_build_object(
                   'file', jsonb_build_object('id', m.id, 'pool', p.name),
                   'above', ARRAY(SELECT above.id
                                  FROM snapshot_volumes sv JOIN volumes v ON v.id = sv.volume_id
                                  JOIN layers above ON above.parent_id = sv.layer_id AND above.id = ANY (chain_of(v.layer_id))
                                  WHERE sv.snapshot_id = s.id AND v.instance_id = NEW.id ORDER BY sv.position))
        FROM snapshots s JOIN layers m ON m.id = s.memory_id LEFT JOIN pools p ON p.id = m.pool_id
        WHERE s.taking_instance_id = NEW.id);
    RETURN NEW;
END $$;

-- As 0023_image_sources.sql has it, and the memory of a guest.
CREATE OR REPLACE FUNCTION layer_held(layer uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM snapshot_volumes WHERE layer_id = layer)
        OR EXISTS (SELECT FROM image_imports WHERE layer_id = layer)
        OR EXISTS (SELECT FROM snapshots WHERE memory_id = layer)
$$;

-- What a saved memory fits to, whatever it is called: a guest finds the same processors, memory, disks and cards.
CREATE FUNCTION instance_hardware(instance uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
                   'size', jsonb_build_array(i.vcpus, i.memory_mib, i.architecture, i.firmware),
                   'processor', jsonb_build_array(h.inventory -> 'cpu_model', h.inventory -> 'acceleration'),
                   'volumes', (SELECT coalesce(jsonb_agg(jsonb_build_array(v.position, v.id, v.size_gib) ORDER BY v.position), '[]')
                               FROM volumes v WHERE v.instance_id = i.id AND v.attachment_state <> 'detaching'),
                   'cards', (SELECT coalesce(jsonb_agg(jsonb_build_array(p.position, p.id, p.mac::text, n.mtu)
                                                       ORDER BY p.position), '[]')
                             FROM ports p JOIN networks n ON n.id = p.network_id
                             WHERE p.instance_id = i.id AND NOT p.detaching))
        FROM instances i LEFT JOIN hosts h ON h.id = i.host_id WHERE i.id = instance);
END $$;

-- INVARIANT: disk_gib_reserved of hosts and pools is the sum over the volumes and the memory of guests there.
CREATE FUNCTION keep_memory_reservations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE pools SET disk_gib_reserved = disk_gib_reserved - OLD.memory_gib WHERE id = OLD.pool_id;
        UPDATE hosts SET disk_gib_reserved = disk_gib_reserved - OLD.memory_gib WHERE id = OLD.host_id;
    ELSE
        UPDATE pools SET disk_gib_reserved = disk_gib_reserved + NEW.memory_gib WHERE id = NEW.pool_id;
        UPDATE hosts SET disk_gib_reserved = disk_gib_reserved + NEW.memory_gib WHERE id = NEW.host_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER layers_reserve AFTER INSERT ON layers
    FOR EACH ROW WHEN (NEW.memory_gib > 0) EXECUTE FUNCTION keep_memory_reservations();
CREATE TRIGGER layers_give_back AFTER DELETE ON layers
    FOR EACH ROW WHEN (OLD.memory_gib > 0) EXECUTE FUNCTION keep_memory_reservations();

-- As 0025_shared_pools.sql has it, and memory of guests gives room back, too.
CREATE OR REPLACE FUNCTION forget_removals(done uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM pools WHERE id IN (SELECT pool_id FROM volumes WHERE removal_id = ANY (done)
                                    UNION SELECT pool_id FROM layers WHERE removal_id = ANY (done) AND memory_gib > 0)
    ORDER BY id FOR NO KEY UPDATE;
    DELETE FROM volumes WHERE removal_id = ANY (done);
    -- What is removed later may stand on what is gone.
    UPDATE layers SET parent_id = NULL, parent_merge = NULL
    WHERE removal_id <> ALL (done) AND parent_id IN (SELECT id FROM layers WHERE removal_id = ANY (done));
    DELETE FROM layers WHERE removal_id = ANY (done);
    DELETE FROM layer_removals WHERE id = ANY (done);
END $$;
