-- PostgreSQL plans the body of a function in SQL anew for each statement that calls it, one in PL/pgSQL once for each
-- connection. These are called with every instance, port and subnet that is shown; planning them took ten times as
-- long as running them. What they return is the same.

CREATE OR REPLACE FUNCTION subnet_ranges(subnet uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('first', host(first_address), 'last', host(last_address))
                                  ORDER BY first_address), '[]')
        FROM subnet_allocation_ranges WHERE subnet_id = subnet);
END $$;

CREATE OR REPLACE FUNCTION port_addresses(port uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('subnet_id', s.id, 'subnet_name', s.name,
                                                     'address', host(a.address))
                                  ORDER BY family(a.address), s.id), '[]')
        FROM subnet_addresses a JOIN subnets s ON s.id = a.subnet_id WHERE a.port_id = port);
END $$;

CREATE OR REPLACE FUNCTION port_pairs(port uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                                      'cidr', host(cidr) || '/' || masklen(cidr), 'mac', mac::text))
                                  ORDER BY cidr, mac), '[]')
        FROM port_allowed_address_pairs WHERE port_id = port);
END $$;

CREATE OR REPLACE FUNCTION port_groups(port uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'name', g.name) ORDER BY g.id), '[]')
        FROM port_security_groups m JOIN security_groups g ON g.id = m.security_group_id WHERE m.port_id = port);
END $$;

CREATE OR REPLACE FUNCTION instance_nics(instance uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('port_id', p.id, 'port_name', p.name, 'network_id', n.id,
                                                     'network_name', n.name, 'vni', n.vni, 'mtu', n.mtu,
                                                     'mac', p.mac::text, 'addresses', port_addresses(p.id))
                                  ORDER BY p.position), '[]')
        FROM ports p JOIN networks n ON n.id = p.network_id WHERE p.instance_id = instance);
END $$;

CREATE OR REPLACE FUNCTION instance_volumes(instance uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'id', v.id, 'name', v.name, 'position', v.position, 'size_gib', v.size_gib,
                   'attachment_state', v.attachment_state, 'delete_with_instance', v.delete_with_instance)
               ORDER BY v.position), '[]')
        FROM volumes v WHERE v.instance_id = instance);
END $$;
