-- Tenants, and the sizes of instances that the operator offers them.

CREATE TABLE projects (
    id          uuid PRIMARY KEY,
    name        text NOT NULL CONSTRAINT projects_name_unique UNIQUE,
    description text NOT NULL,
    labels      jsonb NOT NULL,
    generation  bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE TABLE instance_types (
    id            uuid PRIMARY KEY,
    name          text NOT NULL CONSTRAINT instance_types_name_unique UNIQUE,
    architecture  text NOT NULL CHECK (architecture IN ('x86_64', 'aarch64', 'riscv64')),
    vcpus         integer NOT NULL CHECK (vcpus > 0),
    memory_mib    integer NOT NULL CHECK (memory_mib > 0),
    root_disk_gib integer NOT NULL CHECK (root_disk_gib > 0),
    generation    bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);
