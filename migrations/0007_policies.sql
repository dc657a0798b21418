-- Policies: documents, their versions, and to whom they apply where.

CREATE TABLE policies (
    id              uuid PRIMARY KEY,
    -- NULL: a policy of the cloud.
    project_id      uuid REFERENCES projects ON DELETE CASCADE,
    name            text NOT NULL,
    description     text NOT NULL,
    -- Shipped with Cumulo; nobody changes or deletes it.
    managed         boolean NOT NULL,
    default_version integer NOT NULL,
    generation      bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT policies_name_unique UNIQUE NULLS NOT DISTINCT (project_id, name),
    CONSTRAINT policies_managed_are_of_the_cloud CHECK (NOT managed OR project_id IS NULL)
);

-- Never changed once written, so whoever has compiled one may keep it for ever.
CREATE TABLE policy_versions (
    policy_id  uuid NOT NULL REFERENCES policies ON DELETE CASCADE,
    version    integer NOT NULL CHECK (version > 0),
    document   jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    created_by uuid,
    PRIMARY KEY (policy_id, version)
);
ALTER TABLE policies ADD CONSTRAINT policies_default_version_exists
    FOREIGN KEY (id, default_version) REFERENCES policy_versions (policy_id, version)
    DEFERRABLE INITIALLY DEFERRED;

-- Whose rights a policy decides, in one project or (project_id NULL) in the whole cloud.
CREATE TABLE policy_attachments (
    id           uuid PRIMARY KEY,
    policy_id    uuid NOT NULL CONSTRAINT policy_attachments_policy_id_fkey REFERENCES policies,
    -- Neither principal nor group: everyone who is signed in.
    principal_id uuid REFERENCES principals ON DELETE CASCADE,
    group_id     uuid REFERENCES groups ON DELETE CASCADE,
    project_id   uuid REFERENCES projects ON DELETE CASCADE,
    subject_id   uuid NOT NULL GENERATED ALWAYS AS
                     (coalesce(principal_id, group_id, '00000000-0000-0000-0000-000000000000')) STORED,
    created_at   timestamptz NOT NULL,
    created_by   uuid,
    CONSTRAINT policy_attachments_one_subject CHECK (num_nonnulls(principal_id, group_id) <= 1),
    CONSTRAINT policy_attachments_to_everyone_are_of_the_cloud
        CHECK (num_nonnulls(principal_id, group_id) = 1 OR project_id IS NULL),
    CONSTRAINT policy_attachments_unique UNIQUE NULLS NOT DISTINCT (policy_id, subject_id, project_id)
);
CREATE INDEX policy_attachments_of_subject ON policy_attachments (subject_id);
CREATE INDEX policy_attachments_of_project ON policy_attachments (project_id, id);
CREATE INDEX policy_attachments_of_policy ON policy_attachments (policy_id);

-- What belongs to a project stays in it: its policies are attached there and nowhere else, and its service
-- accounts get rights there, or from the cloud. Neither ever changes its project.
CREATE FUNCTION keep_attachments_in_scope() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM policies
               WHERE id = NEW.policy_id AND project_id IS NOT NULL AND project_id IS DISTINCT FROM NEW.project_id)
       OR EXISTS (SELECT FROM principals
                  WHERE id = NEW.principal_id AND project_id IS NOT NULL
                    AND NEW.project_id IS NOT NULL AND project_id <> NEW.project_id)
    THEN
        RAISE EXCEPTION 'policy and service account belong to the project of the attachment'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_attachments_in_scope';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER policy_attachments_in_scope BEFORE INSERT OR UPDATE ON policy_attachments
    FOR EACH ROW EXECUTE FUNCTION keep_attachments_in_scope();

-- Until now there were administrators and nobody else.
INSERT INTO policies (id, project_id, name, description, managed, default_version, generation, created_at, updated_at)
VALUES ('00000000-0000-7000-8000-000000000001', NULL, 'administrator', 'Everything, everywhere.', true, 1, 1, now(), now());
INSERT INTO policy_versions (policy_id, version, document, created_at)
VALUES ('00000000-0000-7000-8000-000000000001', 1,
        '{"Version": "2012-10-17", "Statement": [{"Sid": "Everything", "Effect": "Allow", "Action": ["*"], "Resource": ["*"]}]}',
        now());
INSERT INTO policy_attachments (id, policy_id, principal_id, created_at)
SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', id, now() FROM principals WHERE administrator;
ALTER TABLE principals DROP COLUMN administrator;

-- The policies that decide for a principal in a project (NULL: in the cloud), each once, with whether one of
-- its attachments names the project.
CREATE FUNCTION attached_policies(principal uuid, project uuid)
RETURNS TABLE (policy_id uuid, version integer, in_project boolean)
LANGUAGE sql STABLE AS $$
    SELECT o.id, o.default_version, bool_or(a.project_id IS NOT NULL)
    FROM policy_attachments a JOIN policies o ON o.id = a.policy_id
    WHERE a.subject_id = ANY (ARRAY[principal, '00000000-0000-0000-0000-000000000000'::uuid]
                              || ARRAY(SELECT m.group_id FROM group_members m WHERE m.principal_id = principal))
      AND (a.project_id IS NULL OR a.project_id = project)
    GROUP BY o.id
$$;
