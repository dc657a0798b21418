//! Looks for what must never be: an identifier, a MAC or an IP address with two owners, or with none that lives.

use sqlx::PgConnection;
use uuid::Uuid;

/// Something that must never be.
pub(crate) struct Broken {
    /// Stable.
    pub code: String,
    pub id: Uuid,
    pub detail: String,
}

/// Everything that is wrong, worst first.
pub(crate) async fn verify(conn: &mut PgConnection) -> Result<Vec<Broken>, sqlx::Error> {
    let mut broken = shared(conn).await?;
    broken.extend(astray(conn).await?);
    broken.extend(drifted(conn).await?);
    Ok(broken)
}

/// What has two owners. Constraints refuse that; a restored or repaired database may have lost them.
async fn shared(conn: &mut PgConnection) -> Result<Vec<Broken>, sqlx::Error> {
    sqlx::query_as!(
        Broken,
        r#"SELECT 'vni_shared' AS "code!", min(id::text)::uuid AS "id!",
                  format('%s networks have the VNI %s', count(*), vni) AS "detail!"
           FROM networks GROUP BY vni HAVING count(*) > 1
           UNION ALL
           SELECT 'mac_shared', min(id::text)::uuid,
                  format('%s ports of one network have the MAC address %s', count(*), mac)
           FROM ports GROUP BY network_id, mac HAVING count(*) > 1
           UNION ALL
           SELECT 'address_shared', subnet_id, format('%s has %s owners', host(address), count(*))
           FROM subnet_addresses GROUP BY subnet_id, address HAVING count(*) > 1
           UNION ALL
           SELECT 'address_shared', a.subnet_id,
                  format('the port %s has %s, and so has a guest on %s that the cloud does not know (%s): end one of them',
                         p.name, host(a.address), h.name, w.instance_id)
           FROM unknown_guest_addresses w JOIN subnet_addresses a USING (subnet_id, address)
           JOIN ports p ON p.id = a.port_id JOIN hosts h ON h.id = w.host_id
           WHERE p.instance_id IS DISTINCT FROM w.instance_id
           UNION ALL
           SELECT 'address_shared', min(id::text)::uuid,
                  format('%s is %s floating IPs', host(address), count(*))
           FROM floating_ips GROUP BY address HAVING count(*) > 1
           UNION ALL
           SELECT 'address_pool_has_host', p.id,
                  format('%s, where the host %s is reached by the others, is in the address pool %s; leave it out with '
                         'first_address or last_address', host(h.underlay_address), h.name, p.name)
           FROM address_pools p JOIN hosts h ON h.underlay_address BETWEEN p.first_address AND p.last_address"#
    )
    .fetch_all(conn)
    .await
}

/// What belongs to nobody, or to somebody in another network or project.
async fn astray(conn: &mut PgConnection) -> Result<Vec<Broken>, sqlx::Error> {
    sqlx::query_as!(
        Broken,
        r#"SELECT 'port_astray' AS "code!", p.id AS "id!",
                  'its network or its instance is another project''s or gone' AS "detail!"
           FROM ports p
           LEFT JOIN networks n ON n.id = p.network_id
           LEFT JOIN instances i ON i.id = p.instance_id
           WHERE n.project_id IS DISTINCT FROM p.project_id
              OR p.instance_id IS NOT NULL AND i.project_id IS DISTINCT FROM p.project_id
           UNION ALL
           SELECT 'subnet_astray', s.id, 'its network is another project''s or gone'
           FROM subnets s LEFT JOIN networks n ON n.id = s.network_id
           WHERE n.project_id IS DISTINCT FROM s.project_id
           UNION ALL
           SELECT 'address_astray', a.subnet_id,
                  format('%s is outside of the subnet, or its owner is', host(a.address))
           FROM subnet_addresses a
           LEFT JOIN subnets s ON s.id = a.subnet_id
           LEFT JOIN ports p ON p.id = a.port_id
           LEFT JOIN router_interfaces r ON r.id = a.router_interface_id
           WHERE (a.address << s.cidr) IS NOT TRUE
              OR a.port_id IS NOT NULL AND p.network_id IS DISTINCT FROM s.network_id
              OR a.router_interface_id IS NOT NULL AND r.subnet_id IS DISTINCT FROM s.id
              OR num_nonnulls(a.port_id, a.router_interface_id, a.unknown_guest_id) = 0 AND NOT a.reserved
           UNION ALL
           SELECT 'floating_ip_astray', f.id, format('%s stands for an address that its port has not', host(f.address))
           FROM floating_ips f
           WHERE f.port_id IS NOT NULL
             AND NOT EXISTS (SELECT FROM subnet_addresses a
                             WHERE a.port_id = f.port_id AND a.address = f.fixed_address)"#
    )
    .fetch_all(conn)
    .await
}

/// Subnets whose free ranges are not what their addresses leave of the allocation ranges.
async fn drifted(conn: &mut PgConnection) -> Result<Vec<Broken>, sqlx::Error> {
    sqlx::query_as!(
        Broken,
        r#"WITH used AS (
               SELECT r.subnet_id, r.first_address, a.address
               FROM subnet_allocation_ranges r JOIN subnet_addresses a
                 ON a.subnet_id = r.subnet_id AND a.address BETWEEN r.first_address AND r.last_address),
           gaps (subnet_id, first_address, last_address) AS (
               SELECT subnet_id,
                      coalesce(lag(address) OVER (PARTITION BY subnet_id, first_address ORDER BY address) + 1,
                               first_address),
                      address - 1
               FROM used
               UNION ALL
               SELECT r.subnet_id,
                      coalesce((SELECT max(u.address) + 1 FROM used u WHERE u.subnet_id = r.subnet_id
                                AND u.first_address = r.first_address), r.first_address),
                      r.last_address
               FROM subnet_allocation_ranges r),
           expected AS (SELECT * FROM gaps WHERE first_address <= last_address)
           SELECT 'free_addresses_drift' AS "code!", subnet_id AS "id!",
                  'the free addresses that are kept are not those that are free' AS "detail!"
           FROM ((SELECT * FROM expected EXCEPT SELECT * FROM subnet_free_ranges)
                 UNION ALL
                 (SELECT * FROM subnet_free_ranges EXCEPT SELECT * FROM expected)) differences
           GROUP BY subnet_id"#
    )
    .fetch_all(conn)
    .await
}
