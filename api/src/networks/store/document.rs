//! SQL of what hosts know of networks. Set-based: a fixed number of queries, however much there is and however many
//! hosts it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use protocol::MacAddress;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::stored;
use crate::http::ApiError;

pub(in super::super) struct NetworkRow {
    pub id: Uuid,
    pub vni: i32,
    pub mtu: i32,
    /// The name of its project.
    pub project: String,
}

/// By host, the networks with a port there and all that routers lead to from them.
pub(in super::super) async fn reached(
    conn: &mut PgConnection,
    hosts: &[Uuid],
) -> Result<BTreeMap<Uuid, BTreeSet<Uuid>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH RECURSIVE reached (host_id, network_id) AS (
             (SELECT i.host_id, p.network_id FROM instances i
              JOIN ports p ON p.instance_id = i.id AND NOT p.detaching
              WHERE i.host_id = ANY($1)
              UNION
              -- The cards of guests that are on their way there find their networks.
              SELECT m.destination_host_id, p.network_id FROM migrations m
              JOIN ports p ON p.instance_id = m.instance_id
              WHERE m.destination_host_id = ANY($1))
             UNION
             SELECT r.host_id, there.network_id
             FROM reached r
             JOIN subnets here ON here.network_id = r.network_id
             JOIN router_interfaces entry ON entry.subnet_id = here.id
             JOIN router_interfaces exit ON exit.router_id = entry.router_id
             JOIN subnets there ON there.id = exit.subnet_id)
           SELECT host_id AS "host_id!", network_id AS "network_id!" FROM reached"#,
        hosts
    )
    .fetch_all(conn)
    .await?;
    let mut reached: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for row in rows {
        reached.entry(row.host_id).or_default().insert(row.network_id);
    }
    Ok(reached)
}

/// These networks, by id.
pub(in super::super) async fn networks(
    conn: &mut PgConnection,
    networks: &[Uuid],
) -> Result<Vec<NetworkRow>, sqlx::Error> {
    sqlx::query_as!(
        NetworkRow,
        "SELECT n.id, n.vni, n.mtu, j.name AS project FROM networks n JOIN projects j ON j.id = n.project_id
         WHERE n.id = ANY($1) ORDER BY n.id",
        networks
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

/// A port with an instance, which does not leave it.
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
           WHERE p.network_id = ANY($1) AND NOT p.detaching ORDER BY p.id"#,
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

/// Where hosts are reached, and which are reached there.
pub(in super::super) async fn underlay(
    conn: &mut PgConnection,
) -> Result<Vec<(IpAddr, Vec<Uuid>)>, ApiError> {
    let rows = sqlx::query!(
        r#"SELECT host(underlay_address) AS "address!", array_agg(id) AS "hosts!" FROM hosts
           WHERE underlay_address IS NOT NULL GROUP BY 1 ORDER BY 1"#
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((stored(&row.address)?, row.hosts))).collect()
}

impl PortRow {
    pub(in super::super) fn mac(&self) -> Result<MacAddress, ApiError> {
        stored(&self.mac)
    }
}
