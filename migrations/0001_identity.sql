-- Who signs in, and what proves it.

CREATE TABLE users (
    id            uuid PRIMARY KEY,
    name          text NOT NULL CONSTRAINT users_name_unique UNIQUE,
    administrator boolean NOT NULL,
    created_at    timestamptz NOT NULL
);

-- One sign-in method of a user. Others will stand beside it, each in a table of its own.
CREATE TABLE user_passwords (
    user_id       uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    password_hash text NOT NULL,
    changed_at    timestamptz NOT NULL
);

-- Keys that sign access tokens. The newest signs, all verify.
CREATE TABLE signing_keys (
    id            uuid PRIMARY KEY,
    private_pkcs8 bytea NOT NULL,
    public_key    bytea NOT NULL,
    created_at    timestamptz NOT NULL
);

-- A sign-in. Its refresh tokens form a family: the use of a spent one revokes them all.
CREATE TABLE sessions (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    spent_at   timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- One row per (caller, Idempotency-Key), written in the transaction that it describes.
CREATE TABLE idempotency_keys (
    principal_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    status       smallint NOT NULL,
    etag         text,
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (principal_id, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
