-- Images that hosts make of disks, as imports: the bytes come from the host that holds the layers.

ALTER TABLE image_imports
    -- The disk: this layer with everything that it stands on, kept as it is until the import is over.
    ADD COLUMN layer_id         uuid,
    -- Where it is.
    ADD COLUMN host_id          uuid REFERENCES hosts,
    -- Of which volume it was, which may be gone, and how large that was.
    ADD COLUMN volume_id        uuid,
    ADD COLUMN size_gib         integer CHECK (size_gib > 0),
    -- What its lowest layer stands on.
    ADD COLUMN base_image_id    uuid REFERENCES images,
    -- The host's revision that tells it to send.
    ADD COLUMN desired_revision bigint,
    ADD COLUMN layer_sealed     boolean GENERATED ALWAYS AS (CASE WHEN layer_id IS NOT NULL THEN true END) STORED,
    ADD COLUMN layer_kept       boolean GENERATED ALWAYS AS (CASE WHEN layer_id IS NOT NULL THEN true END) STORED,
    DROP CONSTRAINT image_imports_one_source,
    ADD CONSTRAINT image_imports_one_source CHECK (num_nonnulls(url, upload_id, layer_id) = 1),
    ADD CONSTRAINT image_imports_of_disks_whole CHECK (
        num_nonnulls(layer_id, host_id, volume_id, size_gib, desired_revision) IN (0, 5)),
    ADD CONSTRAINT image_imports_base_is_a_disks CHECK (base_image_id IS NULL OR layer_id IS NOT NULL),
    ADD CONSTRAINT image_imports_hold_sealed_layers_that_stay FOREIGN KEY (layer_id, layer_sealed, layer_kept)
        REFERENCES layers (id, sealed, kept);
CREATE INDEX image_imports_of_layer ON image_imports (layer_id) WHERE layer_id IS NOT NULL;
CREATE INDEX image_imports_of_host ON image_imports (host_id, desired_revision) WHERE host_id IS NOT NULL;
CREATE INDEX image_imports_of_base ON image_imports (base_image_id) WHERE base_image_id IS NOT NULL;

-- As 0022_snapshots.sql has it, and a disk that becomes an image.
CREATE OR REPLACE FUNCTION layer_held(layer uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM snapshot_volumes WHERE layer_id = layer)
        OR EXISTS (SELECT FROM image_imports WHERE layer_id = layer)
$$;
