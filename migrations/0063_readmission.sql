-- A host that was away until its certificate had run out is let in again, as the host that it is.

-- Such a token is worth something for this host alone; one for a new host has none.
ALTER TABLE host_join_tokens ADD COLUMN host_id uuid REFERENCES hosts ON DELETE CASCADE;
CREATE INDEX host_join_tokens_of_host ON host_join_tokens (host_id) WHERE host_id IS NOT NULL;

-- Unknown of hosts that got theirs from an earlier release, until they renew it. The key is that of the newest certificate: who
-- is let in again has to have it.
ALTER TABLE hosts
    ADD COLUMN certificate_expires_at timestamptz,
    ADD COLUMN certificate_key_sha256 bytea CHECK (octet_length(certificate_key_sha256) = 32);
