-- What hosts are told of networks depends on instances with cards alone. One without was told to each host of its project: among a thousand
-- hosts, each new one had all of them fetch and compare what had not changed.
CREATE OR REPLACE FUNCTION note_instance_host() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Cards that go with it are told of by themselves.
    INSERT INTO pending_network_changes (project_id, host_id)
    SELECT OLD.project_id, NULL WHERE EXISTS (SELECT FROM ports WHERE instance_id = OLD.id)
    UNION ALL
    SELECT NULL, OLD.host_id WHERE OLD.host_id IS NOT NULL;
    IF FOUND THEN
        PERFORM pg_notify('cumulo', 'networks -');
    END IF;
    RETURN NULL;
END $$;
