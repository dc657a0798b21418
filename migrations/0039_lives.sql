-- What instances hold while they change, and what hosts are asked for.

-- Whether its host has said that no guest of another size runs. One that is to stop may be going down for a while.
CREATE OR REPLACE FUNCTION size_is_made(i instances) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT i.host_id IS NULL
        OR coalesce(i.observed_generation >= i.generation
                    AND (i.observed_state IN ('stopped', 'absent')
                         OR i.power <> 'stopped' AND i.observed_boot >= i.boot), false)
$$;

-- On whose behalf a host is asked; hosts that were asked earlier have answered within a minute.
ALTER TABLE transfers ADD COLUMN principal_id uuid;
