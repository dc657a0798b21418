-- What placement goes by: where hosts stand, what they are kept for, how much of them is promised; and placement groups.
--
-- Everybody locks placement groups after hosts, by id.

-- The operator's settings for the whole cloud; one row.
CREATE TABLE placement_settings (
    singleton         boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    generation        bigint NOT NULL DEFAULT 1,
    strategy          text NOT NULL DEFAULT 'spread' CHECK (strategy IN ('spread', 'pack')),
    -- How much a cached image and an instance that is being made weigh beside the share of a host that is free.
    image_weight      double precision NOT NULL DEFAULT 0.05 CHECK (image_weight BETWEEN 0 AND 1),
    load_weight       double precision NOT NULL DEFAULT 0.01 CHECK (load_weight BETWEEN 0 AND 1),
    -- Of hosts that have none of their own.
    vcpu_overcommit   double precision NOT NULL DEFAULT 4 CHECK (vcpu_overcommit BETWEEN 0.1 AND 64),
    memory_overcommit double precision NOT NULL DEFAULT 1 CHECK (memory_overcommit BETWEEN 0.1 AND 4)
);
INSERT INTO placement_settings DEFAULT VALUES;

ALTER TABLE hosts
    ADD COLUMN rack text,
    ADD COLUMN zone text,
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN taints text[] NOT NULL DEFAULT '{}',
    -- No new instance goes there; those that are there stay.
    ADD COLUMN cordoned boolean NOT NULL DEFAULT false,
    -- NULL for the cloud's.
    ADD COLUMN vcpu_overcommit double precision CHECK (vcpu_overcommit BETWEEN 0.1 AND 64),
    ADD COLUMN memory_overcommit double precision CHECK (memory_overcommit BETWEEN 0.1 AND 4),
    -- What the host offers with that. The capacity is more while more is promised already.
    ADD COLUMN vcpus_offered integer NOT NULL DEFAULT 0,
    ADD COLUMN memory_mib_offered integer NOT NULL DEFAULT 0;
UPDATE hosts SET vcpus_offered = vcpus_capacity, memory_mib_offered = memory_mib_capacity;
-- Beside those of 0024_pool_usage.sql: one statement writes one event.
CREATE TRIGGER hosts_event_placement AFTER UPDATE ON hosts
    FOR EACH ROW WHEN (
        (OLD.rack, OLD.zone, OLD.labels, OLD.taints, OLD.cordoned, OLD.vcpu_overcommit, OLD.memory_overcommit)
            IS DISTINCT FROM
        (NEW.rack, NEW.zone, NEW.labels, NEW.taints, NEW.cordoned, NEW.vcpu_overcommit, NEW.memory_overcommit)
        AND (OLD.name, OLD.pool_low_percent, OLD.disk_overcommit, OLD.pool_low)
            IS NOT DISTINCT FROM (NEW.name, NEW.pool_low_percent, NEW.disk_overcommit, NEW.pool_low))
    EXECUTE FUNCTION record_event('host', 'updated', 'cloud', '');

-- The hosts that a type is meant for.
ALTER TABLE instance_types
    ADD COLUMN host_labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN tolerations text[] NOT NULL DEFAULT '{}';

CREATE TABLE placement_groups (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES projects,
    name        text NOT NULL,
    description text NOT NULL DEFAULT '',
    labels      jsonb NOT NULL,
    generation  bigint NOT NULL DEFAULT 1,
    -- The rule; never changed.
    policy      text NOT NULL CHECK (policy IN ('affinity', 'anti_affinity')),
    strength    text NOT NULL CHECK (strength IN ('hard', 'soft')),
    scope       text NOT NULL CHECK (scope IN ('host', 'rack', 'zone')),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT placement_groups_name_unique UNIQUE (project_id, name),
    CONSTRAINT placement_groups_of_project_unique UNIQUE (id, project_id)
);
CREATE INDEX placement_groups_of_project ON placement_groups (project_id, id);
INSERT INTO quota_defaults (resource, limit_value) VALUES ('placement_groups', 20);
CALL count_in_quota('placement_groups', 'placement_groups');
CALL record_events('placement_groups', 'placement_group', '{name,description,labels}');

ALTER TABLE instances
    ADD COLUMN placement_group_id uuid,
    ADD CONSTRAINT instances_of_a_group_of_the_project FOREIGN KEY (placement_group_id, project_id)
        REFERENCES placement_groups (id, project_id);
CREATE INDEX instances_of_placement_group ON instances (placement_group_id) WHERE placement_group_id IS NOT NULL;

-- The host, rack or zone that instances of a group share or do not share; NULL when nobody has said it.
CREATE FUNCTION placement_domain(host hosts, scope text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE scope WHEN 'host' THEN host.id::text
                      WHEN 'rack' THEN coalesce(host.zone, '') || '/' || host.rack
                      ELSE host.zone END
$$;

-- INVARIANT: no two instances with hosts break the hard rule of their group. Whoever places one of the group holds the
-- group until the end of the transaction, and looks after it has it: so nobody misses what another one did.
CREATE FUNCTION keep_placement_rules() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    rule   placement_groups;
    domain text;
BEGIN
    SELECT * INTO rule FROM placement_groups WHERE id = NEW.placement_group_id FOR NO KEY UPDATE;
    IF rule.strength = 'soft' THEN
        RETURN NULL;
    END IF;
    SELECT placement_domain(h, rule.scope) INTO domain FROM hosts h WHERE h.id = NEW.host_id;
    IF domain IS NULL OR EXISTS (
        SELECT FROM instances i JOIN hosts h ON h.id = i.host_id
        WHERE i.placement_group_id = rule.id AND i.id <> NEW.id
          AND (placement_domain(h, rule.scope) IS NOT DISTINCT FROM domain) = (rule.policy = 'anti_affinity'))
    THEN
        RAISE EXCEPTION 'instance % breaks the rule of its placement group', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'hosts_placement_group';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER instances_keep_placement_rules AFTER UPDATE ON instances
    FOR EACH ROW WHEN (NEW.placement_group_id IS NOT NULL AND NEW.host_id IS NOT NULL
                       AND (OLD.host_id, OLD.placement_group_id) IS DISTINCT FROM (NEW.host_id, NEW.placement_group_id))
    EXECUTE FUNCTION keep_placement_rules();
CREATE TRIGGER instances_made_by_placement_rules AFTER INSERT ON instances
    FOR EACH ROW WHEN (NEW.placement_group_id IS NOT NULL AND NEW.host_id IS NOT NULL)
    EXECUTE FUNCTION keep_placement_rules();

-- The same when a host is said to stand elsewhere.
CREATE FUNCTION keep_placement_rules_of_host() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM placement_groups g
    WHERE g.id IN (SELECT placement_group_id FROM instances WHERE host_id = NEW.id)
    ORDER BY g.id FOR NO KEY UPDATE;
    IF EXISTS (
        SELECT FROM instances mine JOIN placement_groups g ON g.id = mine.placement_group_id
        LEFT JOIN instances i ON i.placement_group_id = g.id AND i.id <> mine.id AND i.host_id IS NOT NULL
        LEFT JOIN hosts h ON h.id = i.host_id
        WHERE mine.host_id = NEW.id AND g.strength = 'hard'
          AND (placement_domain(NEW, g.scope) IS NULL
               OR i.id IS NOT NULL
                  AND (placement_domain(h, g.scope) IS NOT DISTINCT FROM placement_domain(NEW, g.scope))
                      = (g.policy = 'anti_affinity')))
    THEN
        RAISE EXCEPTION 'instances on host % would break the rule of their placement group', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'hosts_placement_group';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER hosts_keep_placement_rules AFTER UPDATE ON hosts
    FOR EACH ROW WHEN ((OLD.rack, OLD.zone) IS DISTINCT FROM (NEW.rack, NEW.zone))
    EXECUTE FUNCTION keep_placement_rules_of_host();

-- What hosts make just now weighs against them.
CREATE INDEX instances_starting ON instances (host_id)
    WHERE host_id IS NOT NULL AND (observed_state IS NULL OR observed_state = 'preparing');
