-- Drift: how hosts differ from what is wanted of them, as their agents find when they look.

-- When each host was last told of, and how much it found. One row says when; so that an hour of the same differences is
-- written a dozen times and not once for each of them.
CREATE TABLE host_looks (
    host_id     uuid PRIMARY KEY REFERENCES hosts ON DELETE CASCADE,
    looked_at   timestamptz NOT NULL,
    -- Those, too, that the host has not named.
    differences integer NOT NULL CHECK (differences >= 0)
);

-- What was found by the last look of each host. Changed with the host's row of host_looks held.
CREATE TABLE drift (
    id            uuid PRIMARY KEY,
    host_id       uuid NOT NULL REFERENCES host_looks ON DELETE CASCADE,
    code          text NOT NULL,
    kind          text NOT NULL CHECK (
        kind IN ('host', 'instance', 'port', 'network', 'router', 'security_group')),
    -- No foreign key: it may be about what is not there any more, or never was.
    subject_id    uuid,
    detail        text NOT NULL CHECK (char_length(detail) BETWEEN 1 AND 500),
    first_seen_at timestamptz NOT NULL,
    CONSTRAINT drift_of_the_host_itself_has_no_id CHECK ((kind = 'host') = (subject_id IS NULL)),
    CONSTRAINT drift_once UNIQUE NULLS NOT DISTINCT (host_id, code, kind, subject_id, detail)
);
CREATE INDEX drift_by_age ON drift (first_seen_at);
