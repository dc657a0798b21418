-- What images need, who may use them, and how they end.

ALTER TABLE images
    ADD COLUMN firmware       text NOT NULL DEFAULT 'bios' CHECK (firmware IN ('bios', 'uefi')),
    -- What an instance must have at least; 0 asks for nothing.
    ADD COLUMN min_disk_gib   integer NOT NULL DEFAULT 0 CHECK (min_disk_gib BETWEEN 0 AND 16384),
    ADD COLUMN min_memory_mib integer NOT NULL DEFAULT 0 CHECK (min_memory_mib BETWEEN 0 AND 8388608),
    ADD COLUMN default_user   text CHECK (default_user ~ '^[a-z_][a-z0-9_-]{0,31}$'),
    -- Every project may use it.
    ADD COLUMN public         boolean NOT NULL DEFAULT false,
    ADD COLUMN deprecated_at  timestamptz,
    -- No foreign key: a replacement that is gone is not shown.
    ADD COLUMN replacement_id uuid,
    -- Deleted images belong to nobody, so no project finds them and no quota counts them. The row stays until
    -- no instance is made from it.
    ADD COLUMN deleted_at     timestamptz,
    ALTER COLUMN project_id DROP NOT NULL,
    ADD CONSTRAINT images_deleted_belong_to_nobody CHECK ((project_id IS NULL) = (deleted_at IS NOT NULL)),
    ADD CONSTRAINT images_replaced_are_deprecated CHECK (replacement_id IS NULL OR deprecated_at IS NOT NULL);
CREATE INDEX images_of_project ON images (project_id, id);
CREATE INDEX images_public ON images (id) WHERE public;
CREATE INDEX images_deleted ON images (id) WHERE deleted_at IS NOT NULL;

-- Projects that may use an image of another one. Changed only by who has locked the image.
CREATE TABLE image_shares (
    image_id   uuid NOT NULL REFERENCES images ON DELETE CASCADE,
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (image_id, project_id)
);
CREATE INDEX image_shares_of_project ON image_shares (project_id, image_id);

CREATE FUNCTION may_use_image(image images, project uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT image.deleted_at IS NULL
       AND (image.project_id = project OR image.public
            OR EXISTS (SELECT FROM image_shares s WHERE s.image_id = image.id AND s.project_id = project))
$$;

CREATE FUNCTION image_visibility(image images) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN image.public THEN 'public'
                WHEN EXISTS (SELECT FROM image_shares s WHERE s.image_id = image.id) THEN 'shared'
                ELSE 'private' END
$$;

-- What an instance keeps of its image, whatever becomes of that.
ALTER TABLE instances
    -- Shown when the project may not use the image any more.
    ADD COLUMN image_name text,
    ADD COLUMN firmware   text NOT NULL DEFAULT 'bios' CHECK (firmware IN ('bios', 'uefi'));
UPDATE instances SET image_name = m.name FROM images m WHERE m.id = image_id;
ALTER TABLE instances ALTER COLUMN image_name SET NOT NULL;

-- An image ends for its owner when it is deleted, not when its row goes.
DROP TRIGGER images_event_created ON images;
DROP TRIGGER images_event_updated ON images;
DROP TRIGGER images_event_state ON images;
DROP TRIGGER images_event_deleted ON images;
CALL record_events('images', 'image',
    '{name,description,labels,architecture,firmware,min_disk_gib,min_memory_mib,default_user,public,deprecated_at}',
    '{blob_id}');
DROP TRIGGER images_event_deleted ON images;
CREATE TRIGGER images_event_deleted AFTER DELETE ON images FOR EACH ROW WHEN (OLD.project_id IS NOT NULL)
    EXECUTE FUNCTION record_event('image', 'deleted', 'project', '');

CREATE FUNCTION record_image_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pending_events (log_id, kind, change, resource_id, resource_name)
    VALUES (OLD.project_id, 'image', 'deleted', OLD.id, OLD.name);
    PERFORM pg_notify('cumulo', 'events -');
    RETURN NULL;
END $$;
CREATE TRIGGER images_event_ended AFTER UPDATE ON images
    FOR EACH ROW WHEN (OLD.project_id IS NOT NULL AND NEW.project_id IS NULL)
    EXECUTE FUNCTION record_image_end();

-- The owner's image has changed; for the other project one has come or gone.
CREATE FUNCTION record_image_share() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    share image_shares;
    image images;
BEGIN
    IF TG_OP = 'DELETE' THEN share := OLD; ELSE share := NEW; END IF;
    SELECT * INTO image FROM images WHERE id = share.image_id;
    INSERT INTO pending_events (log_id, kind, change, resource_id, resource_name)
    SELECT log_id, 'image', change, image.id, image.name
    FROM (VALUES (image.project_id, 'updated'),
                 (CASE WHEN NOT image.public THEN share.project_id END,
                  CASE TG_OP WHEN 'INSERT' THEN 'created' ELSE 'deleted' END)) event (log_id, change)
    WHERE log_id IS NOT NULL;
    PERFORM pg_notify('cumulo', 'events -');
    RETURN NULL;
END $$;
CREATE TRIGGER image_shares_event AFTER INSERT OR DELETE ON image_shares
    FOR EACH ROW EXECUTE FUNCTION record_image_share();
