-- Images that come by themselves: by URL, or out of the parts of an upload that goes on after a broken connection.
--
-- INVARIANT: whoever locks several of these locks in this order: the operation, the image, the import, the upload, blobs.

-- Bytes of an operation that moves bytes.
ALTER TABLE operations
    ADD COLUMN progress_bytes       bigint CHECK (progress_bytes >= 0),
    ADD COLUMN progress_total_bytes bigint CHECK (progress_total_bytes >= 0);

ALTER TABLE images
    ADD COLUMN import_state   text CHECK (import_state IN ('importing', 'failed')),
    ADD COLUMN failure_code   text,
    ADD COLUMN failure_detail text,
    -- The newest import. No foreign key: an image outlives its operations.
    ADD COLUMN import_operation_id uuid,
    ADD CONSTRAINT images_filled_are_not_imported CHECK (blob_id IS NULL OR import_state IS NULL),
    ADD CONSTRAINT images_failures_have_a_reason CHECK (
        (import_state IS NOT DISTINCT FROM 'failed') = (failure_code IS NOT NULL));
-- One statement writes one event: the trigger on blob_id speaks for those that change both.
CREATE TRIGGER images_event_import AFTER UPDATE ON images FOR EACH ROW
    WHEN (OLD.import_state IS DISTINCT FROM NEW.import_state AND OLD.blob_id IS NOT DISTINCT FROM NEW.blob_id)
    EXECUTE FUNCTION record_event('image', 'state', 'project', '');

-- A file on its way in parts.
CREATE TABLE image_uploads (
    id              uuid PRIMARY KEY,
    -- Null once the image is gone.
    image_id        uuid REFERENCES images ON DELETE SET NULL,
    size_bytes      bigint NOT NULL CHECK (size_bytes > 0),
    expected_sha256 bytea CHECK (length(expected_sha256) = 32),
    -- The parts up to here are kept.
    offset_bytes    bigint NOT NULL DEFAULT 0 CHECK (offset_bytes BETWEEN 0 AND size_bytes),
    -- Takes no more parts; what it has is swept.
    ended           boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL,
    -- Nobody sends any more.
    expires_at      timestamptz NOT NULL
);
CREATE INDEX image_uploads_of_image ON image_uploads (image_id);
CREATE INDEX image_uploads_due ON image_uploads (expires_at);

-- A part is a blob that belongs to an upload: receiving -> part -> discarded.
ALTER TABLE blobs
    ADD COLUMN upload_id   uuid REFERENCES image_uploads,
    ADD COLUMN start_bytes bigint CHECK (start_bytes >= 0),
    DROP CONSTRAINT blobs_state_check,
    ADD CONSTRAINT blobs_state_check CHECK (state IN ('receiving', 'stored', 'part', 'discarded')),
    ADD CONSTRAINT blobs_parts_are_described CHECK (
        state <> 'part' OR (upload_id, start_bytes, size_bytes) IS NOT NULL);
CREATE UNIQUE INDEX blobs_part_unique ON blobs (upload_id, start_bytes) WHERE state = 'part';
CREATE INDEX blobs_of_upload ON blobs (upload_id);
DROP INDEX blobs_unfinished;
CREATE INDEX blobs_unfinished ON blobs (lease_until) WHERE state IN ('receiving', 'discarded');

-- An import that is not over; any replica may take it.
CREATE TABLE image_imports (
    operation_id    uuid PRIMARY KEY REFERENCES operations ON DELETE CASCADE,
    image_id        uuid NOT NULL UNIQUE REFERENCES images ON DELETE CASCADE,
    -- May hold a secret of its owner, so it goes with the row.
    url             text,
    upload_id       uuid REFERENCES image_uploads,
    expected_sha256 bytea CHECK (length(expected_sha256) = 32),
    attempts        integer NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL,
    not_before      timestamptz NOT NULL,
    -- What the present attempt fills. Each attempt has its own, so an old one cannot end a new one. No foreign
    -- key: its row may be swept first.
    blob_id         uuid,
    -- A replica that has not renewed by then is dead.
    lease_until     timestamptz,
    CONSTRAINT image_imports_one_source CHECK (num_nonnulls(url, upload_id) = 1),
    CONSTRAINT image_imports_attempts_have_a_lease CHECK ((blob_id IS NULL) = (lease_until IS NULL))
);
CREATE INDEX image_imports_due ON image_imports (not_before);
CREATE INDEX image_imports_of_upload ON image_imports (upload_id);
