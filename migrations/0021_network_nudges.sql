-- EXECUTE leaves FOUND as it was, so that the change was noted and nobody woken: hosts heard of it at the controller's
-- next look, up to five seconds later.
CREATE OR REPLACE FUNCTION note_network_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    noted bigint;
BEGIN
    EXECUTE 'INSERT INTO pending_network_changes (project_id) ' || TG_ARGV[0];
    GET DIAGNOSTICS noted = ROW_COUNT;
    IF noted > 0 THEN
        PERFORM pg_notify('cumulo', 'networks -');
    END IF;
    RETURN NULL;
END $$;
