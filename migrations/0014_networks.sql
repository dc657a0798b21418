-- Virtual networks: what their owners want. Hosts are told what they need of it as one document.

-- Trusted since PostgreSQL 13: the owner of the database may add it.
CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE networks (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES projects,
    name        text NOT NULL,
    description text NOT NULL DEFAULT '',
    labels      jsonb NOT NULL,
    generation  bigint NOT NULL DEFAULT 1,
    -- Given by the application at random, tried again when it is taken.
    vni         integer NOT NULL CONSTRAINT networks_vni_unique UNIQUE CHECK (vni BETWEEN 1 AND 16777215),
    mtu         integer NOT NULL CHECK (mtu BETWEEN 1280 AND 8950),
    -- The network that an instance gets when it asks for none.
    is_default  boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT networks_name_unique UNIQUE (project_id, name)
);
CREATE INDEX networks_of_project ON networks (project_id, id);
CREATE UNIQUE INDEX networks_one_default ON networks (project_id) WHERE is_default;

CREATE TABLE subnets (
    id              uuid PRIMARY KEY,
    project_id      uuid NOT NULL REFERENCES projects,
    network_id      uuid NOT NULL REFERENCES networks,
    name            text NOT NULL,
    labels          jsonb NOT NULL,
    generation      bigint NOT NULL DEFAULT 1,
    cidr            cidr NOT NULL,
    -- Where a router stands when one is attached; no host bits of the prefix are kept in any inet here.
    gateway         inet CHECK (gateway << cidr),
    -- Where DHCP, DNS and metadata answer.
    service_address inet NOT NULL CHECK (service_address << cidr AND service_address IS DISTINCT FROM gateway),
    dhcp            boolean NOT NULL,
    dns_servers     inet[] NOT NULL DEFAULT '{}' CHECK (cardinality(dns_servers) <= 3),
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT subnets_name_unique UNIQUE (project_id, name),
    CONSTRAINT subnets_of_a_network_are_apart EXCLUDE USING gist (network_id WITH =, cidr inet_ops WITH &&)
);
CREATE INDEX subnets_of_project ON subnets (project_id, id);

-- Which addresses of a subnet are given automatically; both ends included.
CREATE TABLE subnet_allocation_ranges (
    subnet_id     uuid NOT NULL REFERENCES subnets ON DELETE CASCADE,
    first_address inet NOT NULL,
    last_address  inet NOT NULL CHECK (first_address <= last_address),
    PRIMARY KEY (subnet_id, first_address)
);

-- INVARIANT: what the addresses in use leave of each allocation range, whatever statement changes them. The trigger on subnet_addresses keeps it, so that nothing is searched for a free one.
CREATE TABLE subnet_free_ranges (
    subnet_id     uuid NOT NULL REFERENCES subnets ON DELETE CASCADE,
    first_address inet NOT NULL,
    last_address  inet NOT NULL CHECK (first_address <= last_address),
    PRIMARY KEY (subnet_id, first_address)
);

CREATE TABLE ports (
    id                   uuid PRIMARY KEY,
    project_id           uuid NOT NULL REFERENCES projects,
    network_id           uuid NOT NULL REFERENCES networks,
    name                 text NOT NULL,
    labels               jsonb NOT NULL,
    generation           bigint NOT NULL DEFAULT 1,
    mac                  macaddr NOT NULL,
    instance_id          uuid REFERENCES instances,
    -- The order in which the guest finds its cards.
    position             integer CHECK (position BETWEEN 0 AND 15),
    -- Made with its instance, and goes with it.
    owned_by_instance    boolean NOT NULL DEFAULT false,
    -- The revision of its host's network document in which it came; NULL while it is on no host.
    host_revision        bigint,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    CONSTRAINT ports_name_unique UNIQUE (project_id, name),
    CONSTRAINT ports_mac_unique UNIQUE (network_id, mac),
    CONSTRAINT ports_attached_have_a_position CHECK ((instance_id IS NULL) = (position IS NULL)),
    CONSTRAINT ports_position_unique UNIQUE (instance_id, position),
    CONSTRAINT ports_owned_are_attached CHECK (instance_id IS NOT NULL OR NOT owned_by_instance)
);
CREATE INDEX ports_of_project ON ports (project_id, id);
CREATE INDEX ports_of_network ON ports (network_id);

-- Further sources that a port's guest may send from.
CREATE TABLE port_allowed_address_pairs (
    port_id uuid NOT NULL REFERENCES ports ON DELETE CASCADE,
    cidr    inet NOT NULL,
    mac     macaddr,
    CONSTRAINT port_allowed_address_pairs_unique UNIQUE NULLS NOT DISTINCT (port_id, cidr, mac)
);

-- What leads from subnet to subnet, and out of the cloud.
CREATE TABLE routers (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES projects,
    name        text NOT NULL,
    labels      jsonb NOT NULL,
    generation  bigint NOT NULL DEFAULT 1,
    -- Names its transit addresses, see protocol::agent::Router::transit.
    number      integer NOT NULL CONSTRAINT routers_number_unique UNIQUE CHECK (number BETWEEN 1 AND 2097151),
    -- Whether it leads out of the cloud, with the address of the host.
    external    boolean NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT routers_name_unique UNIQUE (project_id, name)
);
CREATE INDEX routers_of_project ON routers (project_id, id);

CREATE TABLE router_interfaces (
    id         uuid PRIMARY KEY,
    router_id  uuid NOT NULL REFERENCES routers,
    subnet_id  uuid NOT NULL REFERENCES subnets CONSTRAINT router_interfaces_subnet_unique UNIQUE,
    -- Copied from the subnet, where it never changes: the constraint below needs it here.
    cidr       cidr NOT NULL,
    mac        macaddr NOT NULL CONSTRAINT router_interfaces_mac_unique UNIQUE,
    created_at timestamptz NOT NULL,
    CONSTRAINT router_interfaces_are_apart EXCLUDE USING gist (router_id WITH =, cidr inet_ops WITH &&)
);

CREATE TABLE router_static_routes (
    router_id   uuid NOT NULL REFERENCES routers ON DELETE CASCADE,
    destination cidr NOT NULL,
    next_hop    inet NOT NULL,
    PRIMARY KEY (router_id, destination)
);

-- INVARIANT: no address of a subnet is used twice, by whatever: a port, a router, or the subnet's services.
CREATE TABLE subnet_addresses (
    subnet_id           uuid NOT NULL REFERENCES subnets,
    address             inet NOT NULL,
    port_id             uuid REFERENCES ports ON DELETE CASCADE,
    router_interface_id uuid REFERENCES router_interfaces ON DELETE CASCADE,
    -- Kept free for the gateway and the services of the subnet.
    reserved            boolean NOT NULL DEFAULT false,
    CONSTRAINT subnet_addresses_unique PRIMARY KEY (subnet_id, address),
    CONSTRAINT subnet_addresses_one_owner CHECK (num_nonnulls(port_id, router_interface_id) + reserved::int = 1),
    CONSTRAINT subnet_addresses_one_per_port UNIQUE (port_id, subnet_id),
    -- What a floating IP stands for.
    CONSTRAINT subnet_addresses_of_port_unique UNIQUE (port_id, address)
);
CREATE INDEX subnet_addresses_of_port ON subnet_addresses (port_id);

CREATE TABLE security_groups (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES projects,
    name        text NOT NULL,
    description text NOT NULL DEFAULT '',
    labels      jsonb NOT NULL,
    generation  bigint NOT NULL DEFAULT 1,
    -- The group that a port gets when it asks for none.
    is_default  boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT security_groups_name_unique UNIQUE (project_id, name)
);
CREATE INDEX security_groups_of_project ON security_groups (project_id, id);
CREATE UNIQUE INDEX security_groups_one_default ON security_groups (project_id) WHERE is_default;

CREATE TABLE security_group_rules (
    id                uuid PRIMARY KEY,
    security_group_id uuid NOT NULL REFERENCES security_groups ON DELETE CASCADE,
    direction         text NOT NULL CHECK (direction IN ('ingress', 'egress')),
    protocol          text NOT NULL CHECK (protocol IN ('any', 'tcp', 'udp', 'icmp', 'number')),
    port_first        integer CHECK (port_first BETWEEN 0 AND 65535),
    port_last         integer CHECK (port_last BETWEEN port_first AND 65535),
    icmp_type         integer CHECK (icmp_type BETWEEN 0 AND 255),
    icmp_code         integer CHECK (icmp_code BETWEEN 0 AND 255),
    protocol_number   integer CHECK (protocol_number BETWEEN 0 AND 255),
    remote_cidr       cidr,
    remote_group_id   uuid REFERENCES security_groups,
    description       text NOT NULL DEFAULT '',
    created_at        timestamptz NOT NULL,
    CONSTRAINT security_group_rules_one_remote CHECK (num_nonnulls(remote_cidr, remote_group_id) = 1),
    CONSTRAINT security_group_rules_ports CHECK ((protocol IN ('tcp', 'udp')) = (port_first IS NOT NULL)
        AND (port_first IS NULL) = (port_last IS NULL)),
    CONSTRAINT security_group_rules_icmp CHECK (protocol = 'icmp' OR num_nonnulls(icmp_type, icmp_code) = 0),
    CONSTRAINT security_group_rules_icmp_code CHECK (icmp_code IS NULL OR icmp_type IS NOT NULL),
    CONSTRAINT security_group_rules_number CHECK ((protocol = 'number') = (protocol_number IS NOT NULL)),
    CONSTRAINT security_group_rules_unique UNIQUE NULLS NOT DISTINCT (security_group_id, direction, protocol,
        port_first, port_last, icmp_type, icmp_code, protocol_number, remote_cidr, remote_group_id)
);
CREATE INDEX security_group_rules_of_remote ON security_group_rules (remote_group_id);

CREATE TABLE port_security_groups (
    port_id           uuid NOT NULL REFERENCES ports ON DELETE CASCADE,
    security_group_id uuid NOT NULL REFERENCES security_groups,
    PRIMARY KEY (port_id, security_group_id)
);
CREATE INDEX port_security_groups_of_group ON port_security_groups (security_group_id);

-- Public addresses that the operator gives out.
CREATE TABLE address_pools (
    id          uuid PRIMARY KEY,
    name        text NOT NULL CONSTRAINT address_pools_name_unique UNIQUE,
    description text NOT NULL DEFAULT '',
    generation  bigint NOT NULL DEFAULT 1,
    cidr        cidr NOT NULL,
    -- The first and the last that are given, both included.
    first_address inet NOT NULL CHECK (first_address <<= cidr),
    last_address  inet NOT NULL CHECK (last_address <<= cidr AND first_address <= last_address),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT address_pools_are_apart EXCLUDE USING gist (cidr inet_ops WITH &&)
);

CREATE TABLE floating_ips (
    id              uuid PRIMARY KEY,
    project_id      uuid NOT NULL REFERENCES projects,
    name            text NOT NULL,
    labels          jsonb NOT NULL,
    generation      bigint NOT NULL DEFAULT 1,
    address_pool_id uuid NOT NULL REFERENCES address_pools,
    address         inet NOT NULL CONSTRAINT floating_ips_address_unique UNIQUE,
    -- The port, and which of its addresses. When the port loses that address, or goes, it stands for nothing.
    port_id         uuid,
    fixed_address   inet,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT floating_ips_name_unique UNIQUE (project_id, name),
    CONSTRAINT floating_ips_stand_for_an_address CHECK ((port_id IS NULL) = (fixed_address IS NULL)),
    CONSTRAINT floating_ips_one_per_address UNIQUE (port_id, fixed_address),
    CONSTRAINT floating_ips_of_a_port FOREIGN KEY (port_id, fixed_address)
        REFERENCES subnet_addresses (port_id, address) ON DELETE SET NULL
);
CREATE INDEX floating_ips_of_project ON floating_ips (project_id, id);
CREATE INDEX floating_ips_of_pool ON floating_ips (address_pool_id, address);

INSERT INTO quota_defaults (resource, limit_value) VALUES
    ('networks', 10), ('subnets', 20), ('ports', 100), ('routers', 5), ('floating_ips', 10),
    ('security_groups', 20);
CALL count_in_quota('networks', 'networks');
CALL count_in_quota('subnets', 'subnets');
CALL count_in_quota('ports', 'ports');
CALL count_in_quota('routers', 'routers');
CALL count_in_quota('floating_ips', 'floating_ips');
CALL count_in_quota('security_groups', 'security_groups');

CALL record_events('networks', 'network', '{name,description,labels,generation}');
CALL record_events('subnets', 'subnet', '{name,labels,generation}');
CALL record_events('ports', 'port', '{name,labels,generation}', '{instance_id}');
CALL record_events('routers', 'router', '{name,labels,generation}');
CALL record_events('security_groups', 'security_group', '{name,description,labels,generation}');
CALL record_events('address_pools', 'address_pool', '{name,description,generation}');
CALL record_events('floating_ips', 'floating_ip', '{name,labels,generation}', '{port_id}');

-- Addresses. Whoever changes those of a subnet holds the subnet's row until the transaction ends. Everybody
-- locks in this order: instances, networks, ports, quotas, subnets by id, hosts. Names come first because whoever
-- makes something waits for whoever is deleting what has the name.

CREATE FUNCTION free_new_range() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO subnet_free_ranges (subnet_id, first_address, last_address)
    VALUES (NEW.subnet_id, NEW.first_address, NEW.last_address);
    RETURN NULL;
END $$;
CREATE TRIGGER subnet_allocation_ranges_free AFTER INSERT ON subnet_allocation_ranges
    FOR EACH ROW EXECUTE FUNCTION free_new_range();

CREATE FUNCTION take_address() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    around subnet_free_ranges;
BEGIN
    PERFORM FROM subnets WHERE id = NEW.subnet_id FOR NO KEY UPDATE;
    SELECT * INTO around FROM subnet_free_ranges
    WHERE subnet_id = NEW.subnet_id AND first_address <= NEW.address ORDER BY first_address DESC LIMIT 1;
    IF around.last_address IS NULL OR around.last_address < NEW.address THEN
        RETURN NULL;
    END IF;
    DELETE FROM subnet_free_ranges
    WHERE subnet_id = around.subnet_id AND first_address = around.first_address;
    IF around.first_address < NEW.address THEN
        INSERT INTO subnet_free_ranges VALUES (NEW.subnet_id, around.first_address, NEW.address - 1);
    END IF;
    IF NEW.address < around.last_address THEN
        INSERT INTO subnet_free_ranges VALUES (NEW.subnet_id, NEW.address + 1, around.last_address);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER subnet_addresses_take AFTER INSERT ON subnet_addresses
    FOR EACH ROW EXECUTE FUNCTION take_address();

CREATE FUNCTION give_address_back() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    begins inet := OLD.address;
    ends   inet := OLD.address;
    within subnet_allocation_ranges;
    beside subnet_free_ranges;
BEGIN
    PERFORM FROM subnets WHERE id = OLD.subnet_id FOR NO KEY UPDATE;
    SELECT * INTO within FROM subnet_allocation_ranges
    WHERE subnet_id = OLD.subnet_id AND OLD.address BETWEEN first_address AND last_address;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO beside FROM subnet_free_ranges
    WHERE subnet_id = OLD.subnet_id AND first_address >= within.first_address AND first_address < OLD.address
    ORDER BY first_address DESC LIMIT 1;
    IF beside.last_address = OLD.address - 1 THEN
        begins := beside.first_address;
    END IF;
    SELECT * INTO beside FROM subnet_free_ranges
    WHERE subnet_id = OLD.subnet_id AND first_address = OLD.address + 1
      AND first_address <= within.last_address;
    IF FOUND THEN
        ends := beside.last_address;
    END IF;
    DELETE FROM subnet_free_ranges
    WHERE subnet_id = OLD.subnet_id AND first_address BETWEEN begins AND ends;
    INSERT INTO subnet_free_ranges VALUES (OLD.subnet_id, begins, ends);
    RETURN NULL;
END $$;
CREATE TRIGGER subnet_addresses_give_back AFTER DELETE ON subnet_addresses
    FOR EACH ROW EXECUTE FUNCTION give_address_back();

-- Gives the port the lowest free address of the subnet's allocation ranges; NULL when there is none.
CREATE FUNCTION allocate_address(subnet uuid, port uuid) RETURNS inet LANGUAGE plpgsql AS $$
DECLARE
    chosen inet;
BEGIN
    PERFORM FROM subnets WHERE id = subnet FOR NO KEY UPDATE;
    SELECT first_address INTO chosen FROM subnet_free_ranges
    WHERE subnet_id = subnet ORDER BY first_address LIMIT 1;
    IF chosen IS NOT NULL THEN
        INSERT INTO subnet_addresses (subnet_id, address, port_id) VALUES (subnet, chosen, port);
    END IF;
    RETURN chosen;
END $$;

-- Before instances are deleted: their own ports go, with their addresses; the others become free.
CREATE FUNCTION release_ports(gone uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ports WHERE instance_id = ANY (gone) ORDER BY id FOR UPDATE;
    PERFORM FROM project_quotas WHERE project_id IN (
        SELECT project_id FROM instances WHERE id = ANY (gone)
        UNION SELECT project_id FROM ports WHERE instance_id = ANY (gone))
    ORDER BY project_id, resource FOR NO KEY UPDATE;
    PERFORM FROM subnets WHERE id IN (
        SELECT a.subnet_id FROM subnet_addresses a JOIN ports p ON p.id = a.port_id
        WHERE p.instance_id = ANY (gone) AND p.owned_by_instance) ORDER BY id FOR NO KEY UPDATE;
    DELETE FROM ports WHERE instance_id = ANY (gone) AND owned_by_instance;
    UPDATE ports SET instance_id = NULL, position = NULL, host_revision = NULL WHERE instance_id = ANY (gone);
END $$;

-- Deletes what of a project's networks holds nothing: it has no port and no floating address any more.
CREATE FUNCTION delete_project_networks(project uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM router_interfaces WHERE router_id IN (SELECT id FROM routers WHERE project_id = project);
    DELETE FROM routers WHERE project_id = project;
    DELETE FROM subnet_addresses WHERE subnet_id IN (SELECT id FROM subnets WHERE project_id = project);
    DELETE FROM subnets WHERE project_id = project;
    DELETE FROM networks WHERE project_id = project;
    DELETE FROM security_group_rules
    WHERE security_group_id IN (SELECT id FROM security_groups WHERE project_id = project);
    DELETE FROM security_groups WHERE project_id = project;
END $$;

-- A subnet's allocation ranges in their order: [{first, last}, …].
CREATE FUNCTION subnet_ranges(subnet uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('first', host(first_address), 'last', host(last_address))
                              ORDER BY first_address), '[]')
    FROM subnet_allocation_ranges WHERE subnet_id = subnet
$$;

-- A port's addresses, the primary one first: [{subnet_id, subnet_name, address}, …].
CREATE FUNCTION port_addresses(port uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('subnet_id', s.id, 'subnet_name', s.name,
                                                 'address', host(a.address))
                              ORDER BY family(a.address), s.id), '[]')
    FROM subnet_addresses a JOIN subnets s ON s.id = a.subnet_id WHERE a.port_id = port
$$;

-- A port's allowed address pairs: [{cidr, mac}, …], mac only where there is one.
CREATE FUNCTION port_pairs(port uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                                  'cidr', host(cidr) || '/' || masklen(cidr), 'mac', mac::text))
                              ORDER BY cidr, mac), '[]')
    FROM port_allowed_address_pairs WHERE port_id = port
$$;

-- A port's security groups: [{id, name}, …].
CREATE FUNCTION port_groups(port uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'name', g.name) ORDER BY g.id), '[]')
    FROM port_security_groups m JOIN security_groups g ON g.id = m.security_group_id WHERE m.port_id = port
$$;

-- An instance's network cards in their order.
CREATE FUNCTION instance_nics(instance uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('port_id', p.id, 'port_name', p.name, 'network_id', n.id,
                                                 'network_name', n.name, 'vni', n.vni, 'mtu', n.mtu,
                                                 'mac', p.mac::text, 'addresses', port_addresses(p.id))
                              ORDER BY p.position), '[]')
    FROM ports p JOIN networks n ON n.id = p.network_id WHERE p.instance_id = instance
$$;

-- What changed and may concern hosts. Written in the transaction of the change by triggers; a controller finds
-- the hosts concerned, bumps their revision and removes the row (api/src/networks/reconcile.rs). Hosts cannot
-- be locked by the change itself: one rule of a group may concern a thousand of them.
CREATE TABLE pending_network_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Everything of this project; or this host; or, if both are NULL, every host (an underlay address came,
    -- changed or went).
    project_id uuid,
    host_id    uuid,
    CONSTRAINT pending_network_changes_one_scope CHECK (num_nonnulls(project_id, host_id) <= 1)
);

-- Argument: a query for the ids of the projects of the rows in `changed`.
CREATE FUNCTION note_network_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'INSERT INTO pending_network_changes (project_id) ' || TG_ARGV[0];
    IF FOUND THEN
        PERFORM pg_notify('cumulo', 'networks -');
    END IF;
    RETURN NULL;
END $$;

-- From now on rows that come, go and change (in one of the columns) are told to the hosts of their project.
CREATE PROCEDURE tell_hosts(relation text, columns text[], projects text DEFAULT
    'SELECT DISTINCT project_id FROM changed') LANGUAGE plpgsql AS $$
DECLARE
    differs CONSTANT text := any_changes(columns);
BEGIN
    EXECUTE format('CREATE TRIGGER %I AFTER INSERT ON %I REFERENCING NEW TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION note_network_rows(%L)',
                   relation || '_tell_insert', relation, projects);
    EXECUTE format('CREATE TRIGGER %I AFTER DELETE ON %I REFERENCING OLD TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION note_network_rows(%L)',
                   relation || '_tell_delete', relation, projects);
    IF cardinality(columns) > 0 THEN
        EXECUTE format('CREATE TRIGGER %I AFTER UPDATE ON %I REFERENCING NEW TABLE AS changed
                        FOR EACH ROW WHEN (%s) EXECUTE FUNCTION note_network_rows(%L)',
                       relation || '_tell_update', relation, differs, projects);
    END IF;
END $$;

-- Those that hang on another row: when that went first, its own trigger has told.
CALL tell_hosts('networks', '{}');
CALL tell_hosts('subnets', '{dns_servers}');
CALL tell_hosts('ports', '{mac,instance_id}');
CALL tell_hosts('port_allowed_address_pairs', '{}',
    'SELECT DISTINCT p.project_id FROM changed c JOIN ports p ON p.id = c.port_id');
CALL tell_hosts('port_security_groups', '{}',
    'SELECT DISTINCT p.project_id FROM changed c JOIN ports p ON p.id = c.port_id');
CALL tell_hosts('security_groups', '{}');
CALL tell_hosts('security_group_rules', '{}',
    'SELECT DISTINCT g.project_id FROM changed c JOIN security_groups g ON g.id = c.security_group_id');
CALL tell_hosts('routers', '{external}');
CALL tell_hosts('router_interfaces', '{}',
    'SELECT DISTINCT r.project_id FROM changed c JOIN routers r ON r.id = c.router_id');
CALL tell_hosts('router_static_routes', '{next_hop}',
    'SELECT DISTINCT r.project_id FROM changed c JOIN routers r ON r.id = c.router_id');
CALL tell_hosts('floating_ips', '{port_id,fixed_address}');

-- An instance that changes its host or goes: the project's hosts, and the one that has it no more.
CREATE FUNCTION note_instance_host() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pending_network_changes (project_id) VALUES (OLD.project_id);
    INSERT INTO pending_network_changes (host_id) SELECT OLD.host_id WHERE OLD.host_id IS NOT NULL;
    PERFORM pg_notify('cumulo', 'networks -');
    RETURN NULL;
END $$;
CREATE TRIGGER instances_tell_update AFTER UPDATE ON instances
    FOR EACH ROW WHEN ((OLD.host_id, OLD.hostname) IS DISTINCT FROM (NEW.host_id, NEW.hostname))
    EXECUTE FUNCTION note_instance_host();
CREATE TRIGGER instances_tell_delete AFTER DELETE ON instances
    FOR EACH ROW EXECUTE FUNCTION note_instance_host();

-- DNS names and the metadata service tell a project's name.
CREATE FUNCTION note_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pending_network_changes (project_id) VALUES (NEW.id);
    PERFORM pg_notify('cumulo', 'networks -');
    RETURN NULL;
END $$;
CREATE TRIGGER projects_tell_update AFTER UPDATE ON projects
    FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION note_project();

ALTER TABLE hosts
    -- Where other hosts reach its networks.
    ADD COLUMN underlay_address inet,
    -- The revision at which its network document last changed.
    ADD COLUMN network_revision bigint NOT NULL DEFAULT 1,
    -- The newest document that it matched, and what it could not make.
    ADD COLUMN network_applied  bigint,
    ADD COLUMN network_faults   jsonb NOT NULL DEFAULT '[]';

CREATE FUNCTION note_every_host() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pending_network_changes DEFAULT VALUES;
    PERFORM pg_notify('cumulo', 'networks -');
    RETURN NULL;
END $$;
CREATE TRIGGER hosts_tell_update AFTER UPDATE ON hosts
    FOR EACH ROW WHEN (OLD.underlay_address IS DISTINCT FROM NEW.underlay_address)
    EXECUTE FUNCTION note_every_host();
CREATE TRIGGER hosts_tell_delete AFTER DELETE ON hosts
    FOR EACH ROW WHEN (OLD.underlay_address IS NOT NULL) EXECUTE FUNCTION note_every_host();
