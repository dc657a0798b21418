//! SQL of what a host knows of networks. Set-based: a fixed number of queries, however much there is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use protocol::agent::{Direction, PortRange, RuleProtocol};
use protocol::{HostId, MacAddress};
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::stored;
use crate::http::ApiError;

pub(in super::super) struct NetworkRow {
    pub id: Uuid,
    pub vni: i32,
    pub mtu: i32,
}

/// The networks with a port on this host, and all that routers lead to from there.
pub(in super::super) async fn networks(
    conn: &mut PgConnection,
    host: HostId,
) -> Result<Vec<NetworkRow>, sqlx::Error> {
    sqlx::query_as!(
        NetworkRow,
        "WITH RECURSIVE reached (network_id) AS (
             SELECT p.network_id FROM instances i JOIN ports p ON p.instance_id = i.id WHERE i.host_id = $1
             UNION
             SELECT there.network_id
             FROM reached r
             JOIN subnets here ON here.network_id = r.network_id
             JOIN router_interfaces entry ON entry.subnet_id = here.id
             JOIN router_interfaces exit ON exit.router_id = entry.router_id
             JOIN subnets there ON there.id = exit.subnet_id)
         SELECT id, vni, mtu FROM networks WHERE id IN (SELECT network_id FROM reached) ORDER BY id",
        host.as_uuid()
    )
    .fetch_all(conn)
    .await
}

pub(in super::super) struct SubnetRow {
    pub id: Uuid,
    pub network_id: Uuid,
    pub cidr: String,
    pub gateway: Option<String>,
    pub routed: bool,
    pub service_address: String,
    pub dhcp: bool,
    pub dns_servers: Vec<String>,
}

pub(in super::super) async fn subnets(
    conn: &mut PgConnection,
    networks: &[Uuid],
) -> Result<Vec<SubnetRow>, sqlx::Error> {
    sqlx::query_as!(
        SubnetRow,
        r#"SELECT s.id, s.network_id, s.cidr::text AS "cidr!", host(s.gateway) AS gateway,
                  EXISTS (SELECT FROM router_interfaces i WHERE i.subnet_id = s.id) AS "routed!",
                  host(s.service_address) AS "service_address!", s.dhcp,
                  ARRAY(SELECT host(server) FROM unnest(s.dns_servers) server) AS "dns_servers!: Vec<String>"
           FROM subnets s WHERE s.network_id = ANY($1) ORDER BY s.id"#,
        networks
    )
    .fetch_all(conn)
    .await
}

/// A port with an instance.
pub(in super::super) struct PortRow {
    pub id: Uuid,
    pub network_id: Uuid,
    pub mac: String,
    pub instance_id: Uuid,
    pub hostname: String,
    pub instance_type: String,
    pub project: String,
    pub host_id: Option<Uuid>,
    pub underlay_address: Option<String>,
}

pub(in super::super) async fn ports(
    conn: &mut PgConnection,
    networks: &[Uuid],
) -> Result<Vec<PortRow>, sqlx::Error> {
    sqlx::query_as!(
        PortRow,
        r#"SELECT p.id, p.network_id, p.mac::text AS "mac!", i.id AS instance_id, i.hostname,
                  t.name AS instance_type, j.name AS project, i.host_id,
                  host(h.underlay_address) AS "underlay_address?"
           FROM ports p
           JOIN instances i ON i.id = p.instance_id
           JOIN instance_types t ON t.id = i.instance_type_id
           JOIN projects j ON j.id = p.project_id
           LEFT JOIN hosts h ON h.id = i.host_id
           WHERE p.network_id = ANY($1) ORDER BY p.id"#,
        networks
    )
    .fetch_all(conn)
    .await
}

/// Addresses by port, with their subnets, primary ones first.
pub(in super::super) async fn addresses(
    conn: &mut PgConnection,
    networks: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<(Uuid, IpAddr)>>, ApiError> {
    let rows = sqlx::query!(
        r#"SELECT p.id, a.subnet_id, host(a.address) AS "address!"
           FROM ports p JOIN subnet_addresses a ON a.port_id = p.id
           WHERE p.network_id = ANY($1) AND p.instance_id IS NOT NULL
           ORDER BY family(a.address), a.subnet_id"#,
        networks
    )
    .fetch_all(conn)
    .await?;
    let mut addresses: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        addresses.entry(row.id).or_default().push((row.subnet_id, stored(&row.address)?));
    }
    Ok(addresses)
}

/// Allowed address pairs by port.
pub(in super::super) async fn pairs(
    conn: &mut PgConnection,
    ports: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<(String, Option<String>)>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT port_id, host(cidr) || '/' || masklen(cidr) AS "cidr!", mac::text AS mac
           FROM port_allowed_address_pairs WHERE port_id = ANY($1) ORDER BY cidr, mac"#,
        ports
    )
    .fetch_all(conn)
    .await?;
    let mut pairs: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        pairs.entry(row.port_id).or_default().push((row.cidr, row.mac));
    }
    Ok(pairs)
}

/// Security groups by port.
pub(in super::super) async fn groups(
    conn: &mut PgConnection,
    ports: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<Uuid>>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT port_id, security_group_id FROM port_security_groups WHERE port_id = ANY($1)
         ORDER BY security_group_id",
        ports
    )
    .fetch_all(conn)
    .await?;
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        groups.entry(row.port_id).or_default().push(row.security_group_id);
    }
    Ok(groups)
}

/// Where a rule leads to or comes from.
pub(in super::super) enum RemoteRow {
    Cidr(String),
    Group(Uuid),
}

pub(in super::super) struct RuleRow {
    pub group: Uuid,
    pub direction: Direction,
    pub protocol: RuleProtocol,
    pub remote: RemoteRow,
}

pub(in super::super) async fn rules(
    conn: &mut PgConnection,
    groups: &[Uuid],
) -> Result<Vec<RuleRow>, ApiError> {
    let rows = sqlx::query!(
        "SELECT id, security_group_id, direction, protocol, port_first, port_last, icmp_type, icmp_code,
                protocol_number, remote_cidr::text AS remote_cidr, remote_group_id
         FROM security_group_rules WHERE security_group_id = ANY($1) ORDER BY id",
        groups
    )
    .fetch_all(conn)
    .await?;
    let read = rows.into_iter().map(|row| {
        let broken = || ApiError::internal(format!("rule {} cannot be read", row.id));
        let byte = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
        let port =
            |number: Option<i32>| number.and_then(|number| u16::try_from(number).ok()).ok_or_else(broken);
        let ports =
            || Ok::<_, ApiError>(PortRange { first: port(row.port_first)?, last: port(row.port_last)? });
        Ok(RuleRow {
            group: row.security_group_id,
            direction: if row.direction == "ingress" { Direction::Ingress } else { Direction::Egress },
            protocol: match row.protocol.as_str() {
                "any" => RuleProtocol::Any,
                "tcp" => RuleProtocol::Tcp { ports: ports()? },
                "udp" => RuleProtocol::Udp { ports: ports()? },
                "icmp" => {
                    RuleProtocol::Icmp { icmp_type: byte(row.icmp_type), icmp_code: byte(row.icmp_code) }
                }
                "number" => RuleProtocol::Number { number: byte(row.protocol_number).ok_or_else(broken)? },
                _ => return Err(broken()),
            },
            remote: match (row.remote_cidr, row.remote_group_id) {
                (Some(cidr), _) => RemoteRow::Cidr(cidr),
                (None, Some(group)) => RemoteRow::Group(group),
                (None, None) => return Err(broken()),
            },
        })
    });
    read.collect()
}

/// Addresses of the members of these groups, wherever they are.
pub(in super::super) async fn members(
    conn: &mut PgConnection,
    groups: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<IpAddr>>, ApiError> {
    let rows = sqlx::query!(
        r#"SELECT m.security_group_id, host(a.address) AS "address!"
           FROM port_security_groups m
           JOIN ports p ON p.id = m.port_id AND p.instance_id IS NOT NULL
           JOIN subnet_addresses a ON a.port_id = p.id
           WHERE m.security_group_id = ANY($1) GROUP BY m.security_group_id, a.address ORDER BY a.address"#,
        groups
    )
    .fetch_all(conn)
    .await?;
    let mut members: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        members.entry(row.security_group_id).or_default().push(stored(&row.address)?);
    }
    Ok(members)
}

pub(in super::super) struct RouterRow {
    pub id: Uuid,
    pub number: i32,
    pub external: bool,
}

/// The routers with an interface in one of these networks.
pub(in super::super) async fn routers(
    conn: &mut PgConnection,
    networks: &[Uuid],
) -> Result<Vec<RouterRow>, sqlx::Error> {
    sqlx::query_as!(
        RouterRow,
        "SELECT id, number, external FROM routers
         WHERE id IN (SELECT i.router_id FROM router_interfaces i JOIN subnets s ON s.id = i.subnet_id
                      WHERE s.network_id = ANY($1))
         ORDER BY id",
        networks
    )
    .fetch_all(conn)
    .await
}

pub(in super::super) struct InterfaceRow {
    pub id: Uuid,
    pub router_id: Uuid,
    pub network_id: Uuid,
    pub subnet_id: Uuid,
    pub address: String,
    pub prefix: i32,
    pub mac: String,
}

pub(in super::super) async fn interfaces(
    conn: &mut PgConnection,
    routers: &[Uuid],
) -> Result<Vec<InterfaceRow>, sqlx::Error> {
    sqlx::query_as!(
        InterfaceRow,
        r#"SELECT i.id, i.router_id, s.network_id, i.subnet_id, host(a.address) AS "address!",
                  masklen(s.cidr) AS "prefix!", i.mac::text AS "mac!"
           FROM router_interfaces i
           JOIN subnets s ON s.id = i.subnet_id
           JOIN subnet_addresses a ON a.router_interface_id = i.id
           WHERE i.router_id = ANY($1) ORDER BY i.id"#,
        routers
    )
    .fetch_all(conn)
    .await
}

/// Static routes by router: destination and next hop.
pub(in super::super) async fn routes(
    conn: &mut PgConnection,
    routers: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<(String, String)>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT router_id, destination::text AS "destination!", host(next_hop) AS "next_hop!"
           FROM router_static_routes WHERE router_id = ANY($1) ORDER BY destination"#,
        routers
    )
    .fetch_all(conn)
    .await?;
    let mut routes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        routes.entry(row.router_id).or_default().push((row.destination, row.next_hop));
    }
    Ok(routes)
}

pub(in super::super) struct FloatingRow {
    pub id: Uuid,
    pub address: String,
    pub port_id: Uuid,
    pub fixed_address: String,
    /// The subnet of the fixed address.
    pub subnet_id: Uuid,
}

/// Floating addresses that stand for these ports.
pub(in super::super) async fn floating_ips(
    conn: &mut PgConnection,
    ports: &[Uuid],
) -> Result<Vec<FloatingRow>, sqlx::Error> {
    sqlx::query_as!(
        FloatingRow,
        r#"SELECT f.id, host(f.address) AS "address!", a.port_id AS "port_id!",
                  host(f.fixed_address) AS "fixed_address!", a.subnet_id
           FROM floating_ips f
           JOIN subnet_addresses a ON a.port_id = f.port_id AND a.address = f.fixed_address
           WHERE f.port_id = ANY($1) ORDER BY f.id"#,
        ports
    )
    .fetch_all(conn)
    .await
}

/// Underlay addresses of all other hosts.
pub(in super::super) async fn peers(conn: &mut PgConnection, host: HostId) -> Result<Vec<IpAddr>, ApiError> {
    let rows = sqlx::query_scalar!(
        r#"SELECT DISTINCT host(underlay_address) AS "address!" FROM hosts
           WHERE id <> $1 AND underlay_address IS NOT NULL ORDER BY 1"#,
        host.as_uuid()
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(|address| stored(address)).collect()
}

impl PortRow {
    pub(in super::super) fn mac(&self) -> Result<MacAddress, ApiError> {
        stored(&self.mac)
    }
}
