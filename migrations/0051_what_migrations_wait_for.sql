-- A guest on a host that is emptied is not shut down for what passes by itself, nor waits for it for ever.
ALTER TABLE evacuations
    -- Since when it waits for something that may pass, to go while it runs.
    ADD COLUMN waits_since timestamptz;

-- Whether an agent that has told this of its host knows of migrations. To others the specification of a guest that is to
-- come is that of one that is to be started.
CREATE FUNCTION knows_migrations(inventory jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(inventory -> 'features' ? 'live_migration', false)
$$;
