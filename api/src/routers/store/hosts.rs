//! What a host is told of routers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use protocol::agent::{FloatingIp, Router, RouterInterface, StaticRoute};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Parts;
use super::interfaces::InterfaceRow;

/// The routers of some networks, and the floating IPs of some ports.
#[derive(Debug)]
pub(crate) struct Routers {
    rows: Vec<Row>,
    parts: Parts,
    /// Each with the external router that leads to it.
    floating_ips: Vec<(Uuid, FloatingIp)>,
}

#[derive(Debug)]
struct Row {
    id: Uuid,
    number: i32,
    external: bool,
}

/// What [`Routers::told`] needs to know of these networks and ports.
pub(crate) async fn of_networks(
    conn: &mut PgConnection,
    networks: &[Uuid],
    ports: &[Uuid],
) -> Result<Routers, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, number, external FROM routers WHERE id IN (
             SELECT i.router_id FROM router_interfaces i JOIN subnets s ON s.id = i.subnet_id
             WHERE s.network_id = ANY($1))
         ORDER BY id",
        networks
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let parts = super::parts(conn, &ids).await?;
    let floating_ips = floating_ips(conn, &ids, ports).await?;
    Ok(Routers { rows, parts, floating_ips })
}

impl Routers {
    /// What a host is told that these networks reach, and that has these ports: the routers that stand in one of the
    /// networks, each with everywhere it stands and its static routes, and the floating IPs of the ports at the
    /// routers that lead to them. Sorted, so that the same routers make the same document.
    pub(crate) fn told(
        &self,
        networks: &BTreeSet<Uuid>,
        ports: &BTreeSet<Uuid>,
    ) -> Result<Vec<Router>, sqlx::Error> {
        let here = self.parts.interfaces.iter().filter(|interface| networks.contains(&interface.network_id));
        let here: BTreeSet<_> = here.map(|interface| interface.router_id).collect();
        let rows = self.rows.iter().filter(|row| here.contains(&row.id));
        rows.map(|row| self.router(row, ports)).collect()
    }

    fn router(&self, row: &Row, ports: &BTreeSet<Uuid>) -> Result<Router, sqlx::Error> {
        let interfaces = self.parts.interfaces.iter().filter(|interface| interface.router_id == row.id);
        let routes = self.parts.routes.iter().filter(|route| route.router_id == row.id);
        let floating_ips = self.floating_ips.iter().filter(|(router, floating_ip)| {
            *router == row.id && ports.contains(&floating_ip.port_id.as_uuid())
        });
        Ok(Router {
            id: row.id.into(),
            number: u32::try_from(row.number).map_err(|error| sqlx::Error::Decode(error.into()))?,
            interfaces: interfaces.map(interface).collect::<Result<_, _>>()?,
            external: row.external,
            routes: routes
                .map(|route| StaticRoute { destination: route.destination, next_hop: route.next_hop })
                .collect(),
            floating_ips: floating_ips.map(|(_, floating_ip)| floating_ip.clone()).collect(),
        })
    }
}

fn interface(row: &InterfaceRow) -> Result<RouterInterface, sqlx::Error> {
    let address = IpNet::new(row.address, row.cidr.prefix_len());
    Ok(RouterInterface {
        id: row.id.into(),
        network_id: row.network_id.into(),
        subnet_id: row.subnet_id.into(),
        address: address.map_err(|error| sqlx::Error::Decode(error.into()))?,
        mac: row.mac.parse().map_err(|error: protocol::ParseMacError| sqlx::Error::Decode(error.into()))?,
    })
}

/// The floating IPs of these ports, each with the external router that leads to it.
async fn floating_ips(
    conn: &mut PgConnection,
    routers: &[Uuid],
    ports: &[Uuid],
) -> Result<Vec<(Uuid, FloatingIp)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT i.router_id, f.id, f.address AS "address: IpAddr", f.port_id AS "port_id!",
                  f.fixed_address AS "fixed_address!: IpAddr"
           FROM floating_ips f
           JOIN subnet_addresses a ON (a.port_id, a.address) = (f.port_id, f.fixed_address)
           JOIN router_interfaces i ON i.subnet_id = a.subnet_id
           JOIN routers r ON r.id = i.router_id AND r.external
           WHERE f.port_id = ANY($1) AND i.router_id = ANY($2) ORDER BY f.id"#,
        ports,
        routers
    )
    .fetch_all(conn)
    .await?;
    let floating_ip = rows.into_iter().map(|row| {
        let floating_ip = FloatingIp {
            id: row.id.into(),
            address: row.address,
            port_id: row.port_id.into(),
            fixed_address: row.fixed_address,
        };
        (row.router_id, floating_ip)
    });
    Ok(floating_ip.collect())
}
