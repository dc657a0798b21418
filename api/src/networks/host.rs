//! What one host knows of the virtual networks, put together from the rows of one snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use protocol::HostId;
use protocol::agent::{
    AddressPair, FloatingIp, HostNetwork, Metadata, Network, Port, PortAddress, Remote, RemotePort, Router,
    RouterInterface, SecurityGroup, SecurityGroupRule, StaticRoute, Subnet,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::store::document::{self, FloatingRow, InterfaceRow, PortRow, RemoteRow, RouterRow, SubnetRow};
use super::{DNS_DOMAIN, stored};
use crate::http::ApiError;

/// Everything that a port on this host may need, and nothing more. To be read in one snapshot.
pub(crate) async fn document(conn: &mut PgConnection, host: HostId) -> Result<HostNetwork, ApiError> {
    let peers = document::peers(conn, host).await?;
    let networks = document::networks(conn, host).await?;
    let ids: Vec<_> = networks.iter().map(|network| network.id).collect();
    let subnets = document::subnets(conn, &ids).await?;
    let addresses = document::addresses(conn, &ids).await?;
    let (local, remote): (Vec<_>, Vec<_>) =
        document::ports(conn, &ids).await?.into_iter().partition(|port| port.host_id == Some(host.as_uuid()));

    let local_ids: Vec<_> = local.iter().map(|port| port.id).collect();
    let details = Details {
        pairs: document::pairs(conn, &local_ids).await?,
        groups: document::groups(conn, &local_ids).await?,
        floating: document::floating_ips(conn, &local_ids).await?,
        addresses,
    };
    let groups: BTreeSet<_> = details.groups.values().flatten().copied().collect();
    let security_groups = security_groups(conn, &groups).await?;
    let routers = routers(conn, &ids, &details.floating).await?;

    let mut made = Vec::new();
    for network in networks {
        let subnets = subnets.iter().filter(|subnet| subnet.network_id == network.id).map(subnet);
        let of_network = |port: &&PortRow| port.network_id == network.id;
        made.push(Network {
            id: network.id.into(),
            vni: network.vni.unsigned_abs().try_into().map_err(ApiError::internal)?,
            mtu: u16::try_from(network.mtu).map_err(ApiError::internal)?,
            dns_domain: DNS_DOMAIN.to_owned(),
            subnets: subnets.collect::<Result<_, _>>()?,
            ports: local
                .iter()
                .filter(of_network)
                .map(|port| details.local(port))
                .collect::<Result<_, _>>()?,
            remote_ports: remote
                .iter()
                .filter(of_network)
                .map(|port| details.remote(port))
                .collect::<Result<_, _>>()?,
        });
    }
    Ok(HostNetwork { peers, networks: made, routers, security_groups })
}

fn subnet(row: &SubnetRow) -> Result<Subnet, ApiError> {
    Ok(Subnet {
        id: row.id.into(),
        cidr: stored(&row.cidr)?,
        gateway: row.gateway.as_deref().map(stored).transpose()?,
        routed: row.routed,
        service_address: stored(&row.service_address)?,
        dhcp: row.dhcp,
        dns_servers: row.dns_servers.iter().map(|server| stored(server)).collect::<Result<_, _>>()?,
    })
}

/// What belongs to ports, by port.
struct Details {
    addresses: BTreeMap<Uuid, Vec<(Uuid, IpAddr)>>,
    pairs: BTreeMap<Uuid, Vec<(String, Option<String>)>>,
    groups: BTreeMap<Uuid, Vec<Uuid>>,
    floating: Vec<FloatingRow>,
}

impl Details {
    fn addresses(&self, port: &PortRow) -> &[(Uuid, IpAddr)] {
        self.addresses.get(&port.id).map(Vec::as_slice).unwrap_or_default()
    }

    fn local(&self, row: &PortRow) -> Result<Port, ApiError> {
        let addresses: Vec<_> = self
            .addresses(row)
            .iter()
            .map(|&(subnet, address)| PortAddress { subnet_id: subnet.into(), address })
            .collect();
        let pairs = self.pairs.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        let pair = |(cidr, mac): &(String, Option<String>)| {
            Ok::<_, ApiError>(AddressPair {
                cidr: stored(cidr)?,
                mac: mac.as_deref().map(stored).transpose()?,
            })
        };
        let groups = self.groups.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        Ok(Port {
            id: row.id.into(),
            instance_id: row.instance_id.into(),
            mac: row.mac()?,
            allowed_address_pairs: pairs.iter().map(pair).collect::<Result<_, _>>()?,
            security_groups: groups.iter().map(|&id| id.into()).collect(),
            hostname: stored(&row.hostname)?,
            metadata: Metadata {
                instance_type: row.instance_type.clone(),
                project: row.project.clone(),
                public_ipv4: self.public_ipv4(row, addresses.first())?,
            },
            addresses,
        })
    }

    /// The floating address of the primary address.
    fn public_ipv4(
        &self,
        port: &PortRow,
        primary: Option<&PortAddress>,
    ) -> Result<Option<std::net::Ipv4Addr>, ApiError> {
        let Some(primary) = primary else { return Ok(None) };
        let fixed = primary.address.to_string();
        let floating = self.floating.iter().find(|row| row.port_id == port.id && row.fixed_address == fixed);
        floating.filter(|_| primary.address.is_ipv4()).map(|row| stored(&row.address)).transpose()
    }

    fn remote(&self, row: &PortRow) -> Result<RemotePort, ApiError> {
        Ok(RemotePort {
            mac: row.mac()?,
            addresses: self.addresses(row).iter().map(|&(_, address)| address).collect(),
            hostname: stored(&row.hostname)?,
            host: row.underlay_address.as_deref().map(stored).transpose()?,
        })
    }
}

async fn security_groups(
    conn: &mut PgConnection,
    groups: &BTreeSet<Uuid>,
) -> Result<Vec<SecurityGroup>, ApiError> {
    let ids: Vec<_> = groups.iter().copied().collect();
    let rules = document::rules(conn, &ids).await?;
    let remote: BTreeSet<_> = rules
        .iter()
        .filter_map(|rule| match rule.remote {
            RemoteRow::Group(group) => Some(group),
            RemoteRow::Cidr(_) => None,
        })
        .collect();
    let members = document::members(conn, &remote.into_iter().collect::<Vec<_>>()).await?;
    let mut made: BTreeMap<Uuid, Vec<_>> = ids.into_iter().map(|id| (id, Vec::new())).collect();
    for rule in rules {
        let remote = match rule.remote {
            RemoteRow::Cidr(cidr) => Remote::Cidr { cidr: stored(&cidr)? },
            RemoteRow::Group(group) => Remote::Group {
                group_id: group.into(),
                addresses: members.get(&group).cloned().unwrap_or_default(),
            },
        };
        let (direction, protocol) = (rule.direction, rule.protocol);
        made.entry(rule.group).or_default().push(SecurityGroupRule { direction, protocol, remote });
    }
    Ok(made.into_iter().map(|(id, rules)| SecurityGroup { id: id.into(), rules }).collect())
}

/// The routers of these networks, each with the floating addresses that it translates: those of local ports in
/// its subnets, if it leads out of the cloud.
async fn routers(
    conn: &mut PgConnection,
    networks: &[Uuid],
    floating: &[FloatingRow],
) -> Result<Vec<Router>, ApiError> {
    let rows = document::routers(conn, networks).await?;
    let ids: Vec<_> = rows.iter().map(|router| router.id).collect();
    let interfaces = document::interfaces(conn, &ids).await?;
    let mut routes = document::routes(conn, &ids).await?;
    let made = rows.iter().map(|row| {
        let interfaces: Vec<_> =
            interfaces.iter().filter(|interface| interface.router_id == row.id).collect();
        let routes = routes.remove(&row.id).unwrap_or_default();
        let route = |(destination, next_hop): &(String, String)| {
            Ok::<_, ApiError>(StaticRoute { destination: stored(destination)?, next_hop: stored(next_hop)? })
        };
        Ok(Router {
            id: row.id.into(),
            number: row.number.unsigned_abs(),
            external: row.external,
            routes: routes.iter().map(route).collect::<Result<_, _>>()?,
            floating_ips: translated(row, &interfaces, floating)?,
            interfaces: interfaces.into_iter().map(interface).collect::<Result<_, _>>()?,
        })
    });
    made.collect()
}

fn interface(row: &InterfaceRow) -> Result<RouterInterface, ApiError> {
    let prefix = u8::try_from(row.prefix).map_err(ApiError::internal)?;
    Ok(RouterInterface {
        id: row.id.into(),
        network_id: row.network_id.into(),
        subnet_id: row.subnet_id.into(),
        address: IpNet::new(stored(&row.address)?, prefix).map_err(ApiError::internal)?,
        mac: stored(&row.mac)?,
    })
}

fn translated(
    router: &RouterRow,
    interfaces: &[&InterfaceRow],
    floating: &[FloatingRow],
) -> Result<Vec<FloatingIp>, ApiError> {
    let stands_here =
        |row: &&FloatingRow| interfaces.iter().any(|interface| interface.subnet_id == row.subnet_id);
    let read = |row: &FloatingRow| {
        Ok(FloatingIp {
            id: row.id.into(),
            address: stored(&row.address)?,
            port_id: row.port_id.into(),
            fixed_address: stored(&row.fixed_address)?,
        })
    };
    floating.iter().filter(|_| router.external).filter(stands_here).map(read).collect()
}
