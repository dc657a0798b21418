-- One order of locks for everybody: instances, volumes and snapshots, then what projects have used, then pools, then hosts.
-- 0008_quotas.sql says that charges come last. They do not: what is charged is reserved in pools and on hosts as well, and
-- growing a volume or making an instance charges first. So whoever locks a pool or a host and charges after that, or gives
-- back, locks the quotas before.

-- Locks what these projects have used, in the order of charges.
CREATE FUNCTION lock_quotas(projects uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM project_quotas q WHERE q.project_id = ANY (projects)
    ORDER BY q.project_id, q.resource FOR NO KEY UPDATE;
END $$;

-- An INSERT reserves row by row and charges after that.
CREATE FUNCTION charge_before_reserving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_quotas(ARRAY[NEW.project_id]);
    RETURN NEW;
END $$;
CREATE TRIGGER volumes_charge_before BEFORE INSERT ON volumes
    FOR EACH ROW WHEN (NEW.host_id IS NOT NULL OR NEW.pool_id IS NOT NULL) EXECUTE FUNCTION charge_before_reserving();

-- Locks what is to be locked before anything of these goes that counts: the cards of instances that go and the ports of which
-- guests have let go, then the quotas of their projects and of those with volumes that these orders removed. Instances and
-- volumes are locked.
CREATE FUNCTION lock_before_going(gone uuid[], let_go uuid[], removals uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ports WHERE instance_id = ANY (gone) OR id = ANY (let_go) ORDER BY id FOR UPDATE;
    PERFORM lock_quotas(ARRAY(SELECT project_id FROM instances WHERE id = ANY (gone)
                              UNION SELECT project_id FROM ports WHERE id = ANY (let_go)
                              UNION SELECT project_id FROM volumes WHERE removal_id = ANY (removals)));
END $$;

-- As 0029_memory_snapshots.sql has it, and the quotas come first.
CREATE OR REPLACE FUNCTION forget_removals(done uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_quotas(ARRAY(SELECT project_id FROM volumes WHERE removal_id = ANY (done)));
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
