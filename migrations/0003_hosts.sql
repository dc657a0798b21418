-- The machines that run instances, and how they prove who they are.

-- The cluster's own certificate authority; one row, made at first start.
CREATE TABLE certificate_authority (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    certificate_pem text NOT NULL,
    key_pem         text NOT NULL,
    created_at      timestamptz NOT NULL
);

CREATE TABLE host_join_tokens (
    id          uuid PRIMARY KEY,
    secret_hash bytea NOT NULL UNIQUE,
    created_by  uuid NOT NULL REFERENCES users,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);

CREATE TABLE hosts (
    id                  uuid PRIMARY KEY,
    name                text NOT NULL CONSTRAINT hosts_name_unique UNIQUE,
    generation          bigint NOT NULL,
    -- Counts the agent's sessions; only the newest may speak.
    epoch               bigint NOT NULL DEFAULT 0,
    -- Bumped under the row lock by every transaction that changes what this host shall look like, so
    -- revisions commit in order and a feed that has seen one has seen all before it. 0 asks for all.
    desired_revision    bigint NOT NULL DEFAULT 1,
    agent_version       text,
    inventory           jsonb,
    hypervisor_degraded text,
    quarantined         integer NOT NULL DEFAULT 0 CHECK (quarantined >= 0),
    last_seen_at        timestamptz,
    -- What placement may give away, and what it has given away. The trigger on instances keeps the second
    -- pair of each; the CHECKs make overselling impossible for any number of schedulers.
    vcpus_capacity      integer NOT NULL DEFAULT 0,
    vcpus_reserved      integer NOT NULL DEFAULT 0 CHECK (vcpus_reserved >= 0),
    memory_mib_capacity integer NOT NULL DEFAULT 0,
    memory_mib_reserved integer NOT NULL DEFAULT 0 CHECK (memory_mib_reserved >= 0),
    disk_gib_capacity   integer NOT NULL DEFAULT 0,
    disk_gib_reserved   integer NOT NULL DEFAULT 0 CHECK (disk_gib_reserved >= 0),
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    CONSTRAINT hosts_vcpus_fit CHECK (vcpus_reserved <= vcpus_capacity),
    CONSTRAINT hosts_memory_fits CHECK (memory_mib_reserved <= memory_mib_capacity),
    CONSTRAINT hosts_disk_fits CHECK (disk_gib_reserved <= disk_gib_capacity)
);
