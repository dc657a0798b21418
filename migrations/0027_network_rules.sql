-- A rule concerns the hosts with a port in its group, not all of its project.
ALTER TABLE pending_network_changes
    ADD COLUMN security_group_id uuid,
    DROP CONSTRAINT pending_network_changes_one_scope,
    ADD CONSTRAINT pending_network_changes_one_scope
        CHECK (num_nonnulls(project_id, host_id, security_group_id) <= 1);

CREATE FUNCTION note_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pending_network_changes (security_group_id) SELECT DISTINCT security_group_id FROM changed;
    IF FOUND THEN
        PERFORM pg_notify('cumulo', 'networks -');
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER security_group_rules_tell_insert ON security_group_rules;
DROP TRIGGER security_group_rules_tell_delete ON security_group_rules;
CREATE TRIGGER security_group_rules_tell_insert AFTER INSERT ON security_group_rules
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_rules();
CREATE TRIGGER security_group_rules_tell_delete AFTER DELETE ON security_group_rules
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_rules();
