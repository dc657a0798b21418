//! What hosts know of the virtual networks, put together from the rows of one snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use protocol::agent::{
    AddressPair, FloatingIp, HostNetwork, Metadata, Network, Port, PortAddress, RemotePort, Router, Subnet,
};
use protocol::{HostId, PortId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::store::document::{self, NetworkRow, PortRow, SubnetRow};
use super::{dns_domain, stored};
use crate::http::ApiError;
use crate::routers::store::hosts::{self as routers, Routers};
use crate::security_groups::store::hosts::{self as security_groups, Groups};

/// What some hosts have to know. What they have in common is there once.
pub(super) struct Rows {
    underlay: Vec<(IpAddr, Vec<Uuid>)>,
    /// By host.
    reached: BTreeMap<Uuid, BTreeSet<Uuid>>,
    networks: Vec<NetworkRow>,
    subnets: Vec<SubnetRow>,
    /// By network.
    ports: BTreeMap<Uuid, Vec<PortRow>>,
    /// By port.
    addresses: BTreeMap<Uuid, Vec<(Uuid, IpAddr)>>,
    /// By port.
    pairs: BTreeMap<Uuid, Vec<(String, Option<String>)>>,
    groups: Groups,
    routers: Routers,
}

impl Rows {
    /// To be read in one snapshot.
    pub(super) async fn read(conn: &mut PgConnection, hosts: &[HostId]) -> Result<Self, ApiError> {
        let hosts: BTreeSet<_> = hosts.iter().map(|host| host.as_uuid()).collect();
        let reached = document::reached(conn, &hosts.iter().copied().collect::<Vec<_>>()).await?;
        let ids: BTreeSet<_> = reached.values().flatten().copied().collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let mut ports: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut local = Vec::new();
        for port in document::ports(conn, &ids).await? {
            if port.host_id.is_some_and(|host| hosts.contains(&host)) {
                local.push(port.id);
            }
            ports.entry(port.network_id).or_default().push(port);
        }
        Ok(Self {
            underlay: document::underlay(conn).await?,
            networks: document::networks(conn, &ids).await?,
            subnets: document::subnets(conn, &ids).await?,
            addresses: document::addresses(conn, &ids).await?,
            pairs: document::pairs(conn, &local).await?,
            groups: security_groups::of_ports(conn, &local).await?,
            routers: routers::of_networks(conn, &ids, &local).await?,
            reached,
            ports,
        })
    }

    /// Everything that a port on this host, one of those that were read, may need, and nothing more.
    pub(super) fn document(&self, host: HostId) -> Result<HostNetwork, ApiError> {
        let host = host.as_uuid();
        let nothing = BTreeSet::new();
        let reached = self.reached.get(&host).unwrap_or(&nothing);
        let is_local = |port: &&PortRow| port.host_id == Some(host);
        let local = reached.iter().flat_map(|network| self.ports(*network)).filter(is_local);
        let local: BTreeSet<_> = local.map(|port| port.id).collect();
        let routers = self.routers.told(reached, &local)?;
        let networks = self.networks.iter().filter(|network| reached.contains(&network.id));
        let peers = self.underlay.iter().filter(|(_, hosts)| hosts.iter().any(|other| *other != host));
        Ok(HostNetwork {
            peers: peers.map(|(address, _)| *address).collect(),
            networks: networks
                .map(|network| self.network(host, network, &routers))
                .collect::<Result<_, _>>()?,
            security_groups: self.groups.told(&local)?,
            routers,
        })
    }

    fn ports(&self, network: Uuid) -> &[PortRow] {
        self.ports.get(&network).map(Vec::as_slice).unwrap_or_default()
    }

    fn network(&self, host: Uuid, row: &NetworkRow, routers: &[Router]) -> Result<Network, ApiError> {
        let subnets = self.subnets.iter().filter(|subnet| subnet.network_id == row.id);
        let (mut ports, mut remote_ports) = (Vec::new(), Vec::new());
        for port in self.ports(row.id) {
            if port.host_id == Some(host) {
                ports.push(self.local(port, routers)?);
            } else {
                remote_ports.push(self.remote(port)?);
            }
        }
        Ok(Network {
            id: row.id.into(),
            vni: row.vni.unsigned_abs().try_into().map_err(ApiError::internal)?,
            mtu: u16::try_from(row.mtu).map_err(ApiError::internal)?,
            dns_domain: dns_domain(&row.project),
            subnets: subnets.map(subnet).collect::<Result<_, _>>()?,
            ports,
            remote_ports,
        })
    }

    fn addresses(&self, port: &PortRow) -> &[(Uuid, IpAddr)] {
        self.addresses.get(&port.id).map(Vec::as_slice).unwrap_or_default()
    }

    fn local(&self, row: &PortRow, routers: &[Router]) -> Result<Port, ApiError> {
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
        Ok(Port {
            id: row.id.into(),
            instance_id: row.instance_id.into(),
            mac: row.mac()?,
            allowed_address_pairs: pairs.iter().map(pair).collect::<Result<_, _>>()?,
            security_groups: self.groups.of_port(row.id).iter().map(|&id| id.into()).collect(),
            hostname: stored(&row.hostname)?,
            metadata: Metadata {
                instance_type: row.instance_type.clone(),
                project: row.project.clone(),
                public_ipv4: addresses.first().and_then(|primary| public_ipv4(routers, row, primary)),
            },
            addresses,
        })
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

/// The floating address of the primary address.
fn public_ipv4(routers: &[Router], port: &PortRow, primary: &PortAddress) -> Option<Ipv4Addr> {
    let of_port = |floating: &&FloatingIp| {
        floating.port_id == PortId::from(port.id) && floating.fixed_address == primary.address
    };
    match routers.iter().flat_map(|router| &router.floating_ips).find(of_port)?.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
