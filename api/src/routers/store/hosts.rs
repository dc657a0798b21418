//! What a host is told of routers.

use std::net::IpAddr;

use ipnet::IpNet;
use protocol::agent::{FloatingIp, Router, RouterInterface, StaticRoute};
use protocol::{NetworkId, PortId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::interfaces::InterfaceRow;

/// The routers that stand in one of these networks, each with everywhere it stands and its static routes, and
/// the floating IPs of these ports at the routers that lead to them. Sorted, so that the same routers make the
/// same document.
pub(crate) async fn of_networks(
    conn: &mut PgConnection,
    networks: &[NetworkId],
    ports: &[PortId],
) -> Result<Vec<Router>, sqlx::Error> {
    let networks: Vec<Uuid> = networks.iter().map(|network| network.as_uuid()).collect();
    let rows = sqlx::query!(
        "SELECT id, number, external FROM routers WHERE id IN (
             SELECT i.router_id FROM router_interfaces i JOIN subnets s ON s.id = i.subnet_id
             WHERE s.network_id = ANY($1))
         ORDER BY id",
        &networks
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let parts = super::parts(conn, &ids).await?;
    let floating_ips = floating_ips(conn, &ids, ports).await?;
    rows.into_iter()
        .map(|row| {
            let interfaces = parts.interfaces.iter().filter(|interface| interface.router_id == row.id);
            let routes = parts.routes.iter().filter(|route| route.router_id == row.id);
            let floating_ips = floating_ips.iter().filter(|(router, _)| *router == row.id);
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
        })
        .collect()
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
    ports: &[PortId],
) -> Result<Vec<(Uuid, FloatingIp)>, sqlx::Error> {
    let ports: Vec<Uuid> = ports.iter().map(|port| port.as_uuid()).collect();
    let rows = sqlx::query!(
        r#"SELECT i.router_id, f.id, f.address AS "address: IpAddr", f.port_id AS "port_id!",
                  f.fixed_address AS "fixed_address!: IpAddr"
           FROM floating_ips f
           JOIN subnet_addresses a ON (a.port_id, a.address) = (f.port_id, f.fixed_address)
           JOIN router_interfaces i ON i.subnet_id = a.subnet_id
           JOIN routers r ON r.id = i.router_id AND r.external
           WHERE f.port_id = ANY($1) AND i.router_id = ANY($2) ORDER BY f.id"#,
        &ports,
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
