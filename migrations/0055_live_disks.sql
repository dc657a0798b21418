-- Running instances go to another host with what is on the disk of theirs: what its guest does not write to is copied first,
-- as of one that is stopped, and then the guest goes as one does all of whose volumes are in shared pools.

ALTER TABLE migrations
    -- Of a guest that runs, those of `layers` that it writes to: they are made there, empty, and written to from its host.
    ADD COLUMN tops uuid[],
    -- When the destination has had all the others.
    ADD COLUMN received_at timestamptz,
    -- The hosts are told of the guest itself, and not only of files.
    ADD COLUMN sends_guest boolean NOT NULL GENERATED ALWAYS AS (layers IS NULL OR received_at IS NOT NULL) STORED,
    ADD CONSTRAINT migrations_of_running_disks
        CHECK ((tops IS NULL OR layers IS NOT NULL) AND (received_at IS NULL OR tops IS NOT NULL));

-- Whether an agent that has told this of its host copies disks of guests that run.
CREATE FUNCTION knows_live_disks(inventory jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT knows_migrations(inventory) AND knows_disk_moves(inventory)
       AND coalesce(inventory -> 'features' ? 'live_disks', false)
$$;

-- The layers on the disk of its host that an instance's guest writes to.
CREATE FUNCTION layers_written_to(instance uuid) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(layer_id ORDER BY id), '{}') FROM volumes
    WHERE instance_id = instance AND pool_id IS NULL AND host_id IS NOT NULL
$$;

-- INVARIANT: when the source has handed a guest over it is too late to find that something else needs its disks where they
-- are. So nothing begins to, while they are on their way. Whoever reads this has the layer, which is held when that is
-- looked at for the last time.
CREATE FUNCTION refuse_layers_on_their_way() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    needed uuid := (to_jsonb(NEW) ->> CASE TG_TABLE_NAME WHEN 'layers' THEN 'parent_id' ELSE 'layer_id' END)::uuid;
BEGIN
    PERFORM FROM layers WHERE id = needed FOR KEY SHARE;
    IF EXISTS (SELECT FROM migrations WHERE tops IS NOT NULL AND needed = ANY (layers)) THEN
        RAISE EXCEPTION 'layer % is on its way to another host', needed
            USING ERRCODE = 'check_violation', CONSTRAINT = 'instances_stay_as_they_are_on_their_way';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER layers_above_those_on_their_way BEFORE INSERT ON layers
    FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION refuse_layers_on_their_way();
CREATE TRIGGER images_of_layers_on_their_way BEFORE INSERT ON image_imports
    FOR EACH ROW WHEN (NEW.layer_id IS NOT NULL) EXECUTE FUNCTION refuse_layers_on_their_way();
