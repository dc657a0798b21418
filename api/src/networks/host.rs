//! What one host knows of the virtual networks, put together from the rows of one snapshot.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use protocol::agent::{
    AddressPair, FloatingIp, HostNetwork, Metadata, Network, Port, PortAddress, RemotePort, Router, Subnet,
};
use protocol::{HostId, NetworkId, PortId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::store::document::{self, PortRow, SubnetRow};
use super::{dns_domain, stored};
use crate::http::ApiError;
use crate::{routers, security_groups};

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
    let local_ports: Vec<PortId> = local_ids.iter().copied().map(PortId::from).collect();
    let security_groups = security_groups::store::hosts::of_ports(conn, &local_ports).await?;
    let reached: Vec<NetworkId> = ids.iter().copied().map(NetworkId::from).collect();
    let routers = routers::store::hosts::of_networks(conn, &reached, &local_ports).await?;
    let details = Details {
        pairs: document::pairs(conn, &local_ids).await?,
        groups: document::groups(conn, &local_ids).await?,
        floating: routers.iter().flat_map(|router: &Router| &router.floating_ips).cloned().collect(),
        addresses,
    };

    let mut made = Vec::new();
    for network in networks {
        let subnets = subnets.iter().filter(|subnet| subnet.network_id == network.id).map(subnet);
        let of_network = |port: &&PortRow| port.network_id == network.id;
        made.push(Network {
            id: network.id.into(),
            vni: network.vni.unsigned_abs().try_into().map_err(ApiError::internal)?,
            mtu: u16::try_from(network.mtu).map_err(ApiError::internal)?,
            dns_domain: dns_domain(&network.project),
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
    floating: Vec<FloatingIp>,
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
                public_ipv4: addresses.first().and_then(|primary| self.public_ipv4(row, primary)),
            },
            addresses,
        })
    }

    /// The floating address of the primary address.
    fn public_ipv4(&self, port: &PortRow, primary: &PortAddress) -> Option<Ipv4Addr> {
        let of_port = |floating: &&FloatingIp| {
            floating.port_id == PortId::from(port.id) && floating.fixed_address == primary.address
        };
        match self.floating.iter().find(of_port)?.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
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
