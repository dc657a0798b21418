-- SSH keys that instances are given, and what an instance's owner may say of it beyond its power: a description, a
-- protection, a pause, and until when it is wanted.

-- The public half alone. What an instance was given stays with it, whatever becomes of the key pair.
CREATE TABLE key_pairs (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name        text NOT NULL,
    labels      jsonb NOT NULL,
    generation  bigint NOT NULL DEFAULT 1,
    -- As OpenSSH calls it, like ssh-ed25519.
    algorithm   text NOT NULL,
    -- One line of an authorized_keys file, without options.
    public_key  text NOT NULL,
    -- As ssh-keygen -l shows it: SHA256:….
    fingerprint text NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT key_pairs_name_unique UNIQUE (project_id, name)
);
CREATE INDEX key_pairs_of_project ON key_pairs (project_id, id);
INSERT INTO quota_defaults (resource, limit_value) VALUES ('key_pairs', 100);
CALL count_in_quota('key_pairs', 'key_pairs');
CALL record_events('key_pairs', 'key_pair', '{name,labels}');

ALTER TABLE instances
    ADD COLUMN description text NOT NULL DEFAULT '',
    ADD COLUMN delete_protection boolean NOT NULL DEFAULT false,
    -- The key pairs that it was made with, as they were called then.
    ADD COLUMN key_pairs text[] NOT NULL DEFAULT '{}',
    -- Any bytes.
    ALTER COLUMN user_data TYPE bytea USING convert_to(user_data, 'UTF8'),
    DROP CONSTRAINT instances_power_check,
    ADD CONSTRAINT instances_power_check CHECK (power IN ('running', 'stopped', 'paused')),
    DROP CONSTRAINT instances_observed_paused,
    ADD CONSTRAINT instances_observed_paused CHECK (
        observed_paused IN ('pool_full', 'io_error', 'suspended', 'requested')),
    -- When it is to be stopped or deleted, who said so, and why that was not done.
    ADD COLUMN stop_at timestamptz,
    ADD COLUMN delete_at timestamptz,
    ADD COLUMN lease_principal_id uuid,
    ADD COLUMN lease_failure text,
    -- When to look again.
    ADD COLUMN lease_due_at timestamptz,
    ADD CONSTRAINT instances_leased_by_somebody CHECK (
        (num_nonnulls(stop_at, delete_at) > 0) = (lease_principal_id IS NOT NULL)
        AND (lease_principal_id IS NULL) = (lease_due_at IS NULL)
        AND (lease_failure IS NULL OR lease_principal_id IS NOT NULL));
CREATE INDEX instances_leased ON instances (lease_due_at) WHERE lease_due_at IS NOT NULL;
CREATE TRIGGER instances_event_lease AFTER UPDATE ON instances FOR EACH ROW
    WHEN (OLD.lease_failure IS DISTINCT FROM NEW.lease_failure AND OLD.generation = NEW.generation)
    EXECUTE FUNCTION record_event('instance', 'state', 'project', 'request');
