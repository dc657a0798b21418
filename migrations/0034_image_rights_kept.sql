-- PostgreSQL plans the body of an SQL function anew in each statement when it holds a subquery; that of a PL/pgSQL
-- function once for each connection. The first of these is asked for every instance that is shown.

CREATE OR REPLACE FUNCTION may_use_image(image images, project uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN image.deleted_at IS NULL
       AND (image.project_id = project OR image.public
            OR EXISTS (SELECT FROM image_shares s WHERE s.image_id = image.id AND s.project_id = project));
END $$;

CREATE OR REPLACE FUNCTION image_visibility(image images) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN image.public THEN 'public'
                WHEN EXISTS (SELECT FROM image_shares s WHERE s.image_id = image.id) THEN 'shared'
                ELSE 'private' END;
END $$;
