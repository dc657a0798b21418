-- What the pools of hosts take and have left, how much of them is promised, and why guests stand still.

ALTER TABLE hosts
    -- Of the pool's file system, as the host last said; agents of earlier releases do not say it.
    ADD COLUMN pool_total_bytes bigint,
    ADD COLUMN pool_free_bytes bigint,
    ADD COLUMN pool_image_cache_bytes bigint,
    -- Hardly anything is free: no new volume goes there.
    ADD COLUMN pool_low boolean NOT NULL DEFAULT false,
    -- The operator's: the free share of the pool below which it is low, in per cent.
    ADD COLUMN pool_low_percent integer NOT NULL DEFAULT 10,
    -- The operator's: how much disk is promised for each GiB that there is.
    ADD COLUMN disk_overcommit double precision NOT NULL DEFAULT 1,
    -- What the host offers with that. The capacity is more while more is promised already.
    ADD COLUMN disk_gib_offered integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT hosts_pool_whole CHECK (
        num_nonnulls(pool_total_bytes, pool_free_bytes, pool_image_cache_bytes) IN (0, 3)),
    ADD CONSTRAINT hosts_pool_low_percent CHECK (pool_low_percent BETWEEN 0 AND 50),
    ADD CONSTRAINT hosts_disk_overcommit CHECK (disk_overcommit BETWEEN 0.1 AND 10);
UPDATE hosts SET disk_gib_offered = disk_gib_capacity;

-- Whether a pool is low. One that was stays so until there is a little more, so that it does not change its mind with
-- every block.
CREATE FUNCTION pool_is_low(total bigint, free bigint, percent integer, was boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT percent > 0 AND free * 100 < total * (percent + CASE WHEN was THEN 2 ELSE 0 END)
$$;

-- INVARIANT: a volume that is on no host goes to none whose pool is low.
CREATE FUNCTION refuse_low_pool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM hosts WHERE id = NEW.host_id AND pool_low) THEN
        RAISE EXCEPTION 'the pool of host % is almost full', NEW.host_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'hosts_pool_low';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER volumes_into_low_pool AFTER UPDATE ON volumes
    FOR EACH ROW WHEN (OLD.host_id IS NULL AND NEW.host_id IS NOT NULL) EXECUTE FUNCTION refuse_low_pool();

DROP TRIGGER hosts_event_created ON hosts;
DROP TRIGGER hosts_event_updated ON hosts;
DROP TRIGGER hosts_event_state ON hosts;
DROP TRIGGER hosts_event_deleted ON hosts;
CALL record_events('hosts', 'host', '{name,pool_low_percent,disk_overcommit}',
    '{hypervisor_degraded,quarantined,pool_low}');

ALTER TABLE instances
    ADD COLUMN observed_paused text
        CONSTRAINT instances_observed_paused CHECK (observed_paused IN ('pool_full', 'io_error', 'suspended'));
-- A change that comes with another one of the state is told with that.
CREATE TRIGGER instances_event_paused AFTER UPDATE ON instances
    FOR EACH ROW WHEN (
        OLD.observed_paused IS DISTINCT FROM NEW.observed_paused
        AND (OLD.observed_state, OLD.observed_boot, OLD.observed_end_reason)
            IS NOT DISTINCT FROM (NEW.observed_state, NEW.observed_boot, NEW.observed_end_reason))
    EXECUTE FUNCTION record_event('instance', 'state', 'project', 'request');
