-- Running instances that start elsewhere when their host fails go to another host, too, if the agent there lets its guard know
-- of them before it takes them.

-- Whether an agent that has told this of its host takes a guest that is guarded.
CREATE FUNCTION knows_guarded_migrations(inventory jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT knows_migrations(inventory) AND coalesce(inventory -> 'features' ? 'guarded_migration', false)
$$;

-- Whether an agent that has told this of its host can take what that migration brings. INVARIANT: an agent before that
-- would let a guest that comes to it go on without a guard. What does not run is guarded when it starts.
CREATE FUNCTION takes_migration(one migrations, inventory jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN one.layers IS NULL THEN knows_migrations(inventory)
                WHEN one.tops IS NULL THEN knows_disk_moves(inventory)
                ELSE knows_live_disks(inventory) END
       AND (knows_guarded_migrations(inventory)
            OR one.layers IS NOT NULL AND one.tops IS NULL
            OR NOT EXISTS (SELECT FROM instances i WHERE i.id = one.instance_id AND i.on_host_failure = 'restart'))
$$;
