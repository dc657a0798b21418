-- How much there is to look at when something is decided.

INSERT INTO quota_defaults (resource, limit_value) VALUES ('policies', 100);
CALL count_in_quota('policies', 'policies');

-- At most 20 attachments of one subject in one place; those that were more before stay. The detail of a refusal is
-- shown to whoever asked.
CREATE FUNCTION keep_attachments_few() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    most    CONSTANT bigint := 20;
    subject CONSTANT uuid := coalesce(NEW.principal_id, NEW.group_id, '00000000-0000-0000-0000-000000000000');
    present bigint;
BEGIN
    -- Of two at once, the second waits and counts the first.
    PERFORM pg_advisory_xact_lock(hashtextextended(format('attachments %s %s', subject, NEW.project_id), 0));
    SELECT count(*) INTO present FROM policy_attachments
    WHERE subject_id = subject AND project_id IS NOT DISTINCT FROM NEW.project_id;
    IF present >= most THEN
        RAISE EXCEPTION 'too many policies are attached to one subject'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_attachments_few',
                  DETAIL = format('%s policies are attached to it here, and %s is the most', present, most);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER policy_attachments_few BEFORE INSERT ON policy_attachments
    FOR EACH ROW EXECUTE FUNCTION keep_attachments_few();
