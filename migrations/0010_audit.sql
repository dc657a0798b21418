-- Who did what: one record per mutation and per refusal, in the transaction that it describes.

CREATE TABLE audit_records (
    id                uuid PRIMARY KEY,
    at                timestamptz NOT NULL,
    project_id        uuid,
    request_id        uuid NOT NULL,
    principal_id      uuid,
    principal_name    text NOT NULL,
    credential_kind   text NOT NULL CHECK (credential_kind IN ('session', 'api_key', 'password', 'none')),
    credential_id     uuid,
    source_address    text NOT NULL,
    action            text NOT NULL,
    resource          text NOT NULL,
    resource_id       uuid,
    outcome           text NOT NULL CHECK (outcome IN ('allowed', 'denied', 'failed')),
    -- Which statements made the decision.
    deciding          jsonb NOT NULL,
    before            jsonb,
    after             jsonb
);
CREATE INDEX audit_records_of_project ON audit_records (project_id, id);

-- The chain: every record once, in the order in which the notary saw it, each link holding the hash of the
-- one before. Written after the commit of its record, so that calls never wait for one another.
CREATE TABLE audit_chain (
    position  bigint PRIMARY KEY CHECK (position > 0),
    record_id uuid NOT NULL UNIQUE,
    hash      bytea NOT NULL CHECK (length(hash) = 32)
);

-- Signatures over the newest link.
CREATE TABLE audit_heads (
    position  bigint PRIMARY KEY,
    hash      bytea NOT NULL,
    key_id    uuid NOT NULL,
    signature bytea NOT NULL,
    signed_at timestamptz NOT NULL
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are written once', TG_TABLE_NAME;
END $$;

CREATE TRIGGER audit_records_written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_chain_written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_heads_written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_heads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The records that the notary has not seen yet; emptied by it.
CREATE TABLE audit_pending (
    record_id uuid PRIMARY KEY
);
CREATE FUNCTION await_notary() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_pending (record_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_records_await_the_notary AFTER INSERT ON audit_records
    FOR EACH ROW EXECUTE FUNCTION await_notary();

-- The notary's own key: unlike those of access tokens it never retires.
CREATE TABLE audit_keys (
    id            uuid PRIMARY KEY,
    private_pkcs8 bytea NOT NULL,
    public_key    bytea NOT NULL,
    created_at    timestamptz NOT NULL
);
