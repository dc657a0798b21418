-- Images of other hypervisors.

ALTER TABLE blobs
    DROP CONSTRAINT blobs_format_check,
    ADD CONSTRAINT blobs_format_check CHECK (format IN ('qcow2', 'raw', 'vmdk', 'vhdx', 'vdi'));
ALTER TABLE images
    DROP CONSTRAINT images_format_check,
    ADD CONSTRAINT images_format_check CHECK (format IN ('qcow2', 'raw', 'vmdk', 'vhdx', 'vdi'));
