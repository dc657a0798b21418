-- How often a sign-in has failed lately, see api/src/auth/backoff. A key is a hash of what was tried, whether
-- there is such a user or not, so nothing here refers to users.
CREATE TABLE sign_in_backoff (
    key             bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    failures        integer NOT NULL CHECK (failures >= 0),
    last_attempt_at timestamptz NOT NULL,
    -- Attempts before this are refused.
    open_at         timestamptz NOT NULL,
    -- When it last was the right password.
    succeeded_at    timestamptz
);
CREATE INDEX sign_in_backoff_age ON sign_in_backoff (last_attempt_at);
