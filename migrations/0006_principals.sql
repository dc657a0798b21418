-- Principals: people (users) and programs (service accounts), their groups, and everything that proves who
-- they are.
--
-- A way to sign in is a table of its own beside `principals`, keyed by user: passwords, second factors, and one
-- day the subjects of identity providers (OpenID Connect). A user may have several, or none.

ALTER TABLE users RENAME TO principals;
ALTER TABLE principals DROP CONSTRAINT users_name_unique;
ALTER TABLE principals
    ADD COLUMN kind        text NOT NULL DEFAULT 'user' CHECK (kind IN ('user', 'service_account')),
    -- A service account belongs to a project, a user to the cloud.
    ADD COLUMN project_id  uuid REFERENCES projects,
    ADD COLUMN description text NOT NULL DEFAULT '',
    ADD COLUMN generation  bigint NOT NULL DEFAULT 1,
    ADD COLUMN disabled_at timestamptz,
    ADD COLUMN updated_at  timestamptz,
    ADD CONSTRAINT principals_service_accounts_have_a_project
        CHECK ((kind = 'service_account') = (project_id IS NOT NULL));
UPDATE principals SET updated_at = created_at;
ALTER TABLE principals ALTER COLUMN updated_at SET NOT NULL, ALTER COLUMN kind DROP DEFAULT,
    ALTER COLUMN description DROP DEFAULT, ALTER COLUMN generation DROP DEFAULT;
CREATE UNIQUE INDEX users_name_unique ON principals (name) WHERE kind = 'user';
CREATE UNIQUE INDEX service_accounts_name_unique ON principals (project_id, name) WHERE kind = 'service_account';

-- What somebody did outlives them.
ALTER TABLE operations DROP CONSTRAINT operations_principal_id_fkey;
ALTER TABLE host_join_tokens DROP CONSTRAINT host_join_tokens_created_by_fkey;

-- Where a session came from, and when its second factor was shown.
ALTER TABLE sessions
    ADD COLUMN second_factor_at timestamptz,
    ADD COLUMN refreshed_at     timestamptz,
    ADD COLUMN source_address   text,
    ADD COLUMN user_agent       text;
CREATE INDEX sessions_of_user ON sessions (user_id);

-- A second sign-in method beside the password: time-based one-time passwords (RFC 6238).
CREATE TABLE user_totp (
    user_id      uuid PRIMARY KEY REFERENCES principals ON DELETE CASCADE,
    secret       bytea NOT NULL,
    -- NULL until a first code has proved that the app has the secret.
    confirmed_at timestamptz,
    -- The time step of the newest code that was accepted: no code works twice.
    last_step    bigint NOT NULL DEFAULT 0,
    -- Wrong codes in a row, and the last of them: six digits are soon guessed by whoever may go on trying.
    wrong_codes  integer NOT NULL DEFAULT 0,
    wrong_at     timestamptz,
    created_at   timestamptz NOT NULL
);

-- For whoever lost the app; each works once.
CREATE TABLE recovery_codes (
    user_id   uuid NOT NULL REFERENCES principals ON DELETE CASCADE,
    code_hash bytea NOT NULL,
    used_at   timestamptz,
    PRIMARY KEY (user_id, code_hash)
);

-- One-time codes with which somebody sets a password: an invitation, or a reset.
CREATE TABLE password_codes (
    user_id    uuid PRIMARY KEY REFERENCES principals ON DELETE CASCADE,
    code_hash  bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Keys of programs, and of people who let programs act for them.
CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    principal_id uuid NOT NULL REFERENCES principals ON DELETE CASCADE,
    description  text NOT NULL,
    -- The first characters, so that an owner can tell keys apart.
    hint         text NOT NULL,
    secret_hash  bytea NOT NULL CONSTRAINT api_keys_secret_unique UNIQUE,
    -- Narrows what the owner may do; never widens it.
    policy       jsonb,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_of_principal ON api_keys (principal_id);

CREATE TABLE groups (
    id          uuid PRIMARY KEY,
    name        text NOT NULL CONSTRAINT groups_name_unique UNIQUE,
    description text NOT NULL,
    generation  bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE TABLE group_members (
    group_id     uuid NOT NULL REFERENCES groups ON DELETE CASCADE,
    principal_id uuid NOT NULL REFERENCES principals ON DELETE CASCADE,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (group_id, principal_id)
);
CREATE INDEX group_members_of_principal ON group_members (principal_id);
