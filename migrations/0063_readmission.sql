-- A host that was away until its certificate had run out is let in again, as the host that it is.

-- Such a token is worth something for this host alone; one for a new host has none.
ALTER TABLE host_join_tokens ADD COLUMN host_id uuid REFERENCES hosts ON DELETE CASCADE;

-- Unknown of hosts that got theirs from an earlier release, until they renew it.
ALTER TABLE hosts ADD COLUMN certificate_expires_at timestamptz;
