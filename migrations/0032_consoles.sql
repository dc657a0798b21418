-- Consoles: whose ticket it was, which are open, and how a host is asked for one.

-- What the host is asked for: bytes that it posts, or a console.
ALTER TABLE transfers
    ADD kind    text NOT NULL DEFAULT 'serial_log'
        CHECK (kind IN ('serial_log', 'vnc_console', 'serial_console', 'screenshot', 'guest_info')),
    -- The replica at which the host brings a console; nothing is the address that the host knows.
    ADD dial    text CHECK (length(dial) <= 300),
    -- Why the host does not do it.
    ADD refusal text;

-- From the ticket to the end of the session. The instance is not referenced: what was open is written into the audit
-- log when it ends, whatever is left by then.
CREATE TABLE consoles (
    id              uuid PRIMARY KEY,
    project_id      uuid NOT NULL,
    instance_id     uuid NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('vnc', 'serial')),
    -- As the audit log names it.
    resource        text NOT NULL,
    -- SHA-256 of the ticket.
    ticket_hash     bytea NOT NULL CHECK (length(ticket_hash) = 32),
    -- Whose it is, and by which credential.
    principal_id    uuid NOT NULL,
    principal_name  text NOT NULL,
    credential_kind text NOT NULL CHECK (credential_kind IN ('session', 'api_key')),
    credential_id   uuid NOT NULL,
    request_id      uuid NOT NULL,
    created_at      timestamptz NOT NULL,
    -- When the ticket does not open anything any more.
    expires_at      timestamptz NOT NULL,
    -- All three with the use of the ticket.
    source_address  text,
    opened_at       timestamptz,
    -- When the replica that has the session last said so.
    heard_at        timestamptz,
    -- When the bytes began to flow.
    began_at        timestamptz,
    CONSTRAINT consoles_open_whole CHECK (num_nulls(source_address, opened_at, heard_at) IN (0, 3)),
    CONSTRAINT consoles_begin_open CHECK (began_at IS NULL OR opened_at IS NOT NULL)
);
-- Two readers of one serial port would each get half of what it says.
CREATE UNIQUE INDEX consoles_one_serial ON consoles (instance_id) WHERE kind = 'serial' AND opened_at IS NOT NULL;
CREATE INDEX consoles_of_instance ON consoles (instance_id);
CREATE INDEX consoles_of_principal ON consoles (principal_id);
CREATE INDEX consoles_unheard ON consoles (coalesce(heard_at, expires_at));
