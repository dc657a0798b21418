-- Operating systems as files.

-- An object in the image store. The row comes before the file and goes after it, so every file has a row.
CREATE TABLE blobs (
    id                 uuid PRIMARY KEY,
    -- receiving -> stored, or receiving -> discarded, or stored -> discarded; discarded rows are swept.
    state              text NOT NULL CHECK (state IN ('receiving', 'stored', 'discarded')),
    sha256             bytea CHECK (length(sha256) = 32),
    format             text CHECK (format IN ('qcow2', 'raw')),
    size_bytes         bigint CHECK (size_bytes > 0),
    virtual_size_bytes bigint CHECK (virtual_size_bytes > 0),
    created_at         timestamptz NOT NULL,
    -- A receiver that has not renewed by then is dead.
    lease_until        timestamptz NOT NULL,
    CONSTRAINT blobs_stored_are_described CHECK (
        state <> 'stored' OR (sha256, format, size_bytes, virtual_size_bytes) IS NOT NULL)
);
CREATE UNIQUE INDEX blobs_content_unique ON blobs (sha256, format) WHERE state = 'stored';
CREATE INDEX blobs_unfinished ON blobs (lease_until) WHERE state <> 'stored';

CREATE TABLE images (
    id              uuid PRIMARY KEY,
    project_id      uuid NOT NULL REFERENCES projects,
    name            text NOT NULL,
    description     text NOT NULL,
    labels          jsonb NOT NULL,
    architecture    text NOT NULL CHECK (architecture IN ('x86_64', 'aarch64', 'riscv64')),
    format          text NOT NULL CHECK (format IN ('qcow2', 'raw')),
    expected_sha256 bytea CHECK (length(expected_sha256) = 32),
    blob_id         uuid REFERENCES blobs,
    generation      bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT images_name_unique UNIQUE (project_id, name)
);
CREATE INDEX images_blob ON images (blob_id);
