//! What one host knows of the virtual networks: everything that a port on it may need, and nothing more.
//!
//! The document is whole each time. A host makes its devices, packet rules and services a pure function of
//! it; what the document does not name, and bears one of our names, is removed.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    FloatingIpId, InstanceId, MacAddress, Name, NetworkId, PortId, Revision, RouterId, RouterInterfaceId,
    SecurityGroupId, SubnetId, Vni,
};

/// The most faults in one [`NetworkReport`].
pub const MAX_NETWORK_FAULTS: usize = 500;

/// All networks of a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// Underlay addresses of all other hosts: VXLAN is accepted from these alone.
    pub peers: Vec<IpAddr>,
    /// Networks with a port on this host or of a guest that is on its way here, and those that a router of such a network
    /// reaches.
    pub networks: Vec<Network>,
    /// Routers with an interface in one of `networks`.
    pub routers: Vec<Router>,
    /// Groups of local ports.
    pub security_groups: Vec<SecurityGroup>,
}

/// A private Ethernet of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub vni: Vni,
    /// Largest packet inside the network, in bytes; told to guests.
    pub mtu: u16,
    /// Ports are named `<hostname>.<dns_domain>`.
    pub dns_domain: String,
    pub subnets: Vec<Subnet>,
    /// Ports of instances on this host.
    pub ports: Vec<Port>,
    /// Ports elsewhere: where frames for them go, and what answers for them here.
    pub remote_ports: Vec<RemotePort>,
}

/// A range of addresses in a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub cidr: IpNet,
    /// The address of the router's interface; told to guests if a router is attached.
    pub gateway: Option<IpAddr>,
    /// Whether there is a router behind `gateway`.
    pub routed: bool,
    /// Where the network's own services (DHCP, DNS, metadata) answer, on every host alike. Reserved.
    pub service_address: IpAddr,
    pub dhcp: bool,
    /// Resolvers for names outside the cloud that the network's own DNS asks; empty: those of the host.
    pub dns_servers: Vec<IpAddr>,
}

/// A network card of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    pub id: PortId,
    pub instance_id: InstanceId,
    pub mac: MacAddress,
    /// One per subnet at most; the first is the primary one.
    pub addresses: Vec<PortAddress>,
    /// Further sources that the guest may send from.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Empty: everything is denied but what the host's services need.
    pub security_groups: Vec<SecurityGroupId>,
    /// The instance's host name.
    pub hostname: Name,
    /// What the metadata service tells this port.
    pub metadata: Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAddress {
    pub subnet_id: SubnetId,
    pub address: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    pub cidr: IpNet,
    /// The port's own if absent.
    pub mac: Option<MacAddress>,
}

/// What is told to the guest of one port, beside its addresses. User data and keys are the instance's and
/// come with its specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub instance_type: String,
    pub project: String,
    /// The floating address of this port's primary address.
    pub public_ipv4: Option<Ipv4Addr>,
}

/// A port on another host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemotePort {
    pub mac: MacAddress,
    pub addresses: Vec<IpAddr>,
    pub hostname: Name,
    /// The underlay address of its host; absent while it is not placed or its host has none.
    pub host: Option<IpAddr>,
}

/// A router between subnets of a project; present on every host that needs it, each time alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Router {
    pub id: RouterId,
    /// Unique in the cloud, below 2^21. Names the pair of transit addresses (`100.64.0.0/10`) between the
    /// router and its host: see [`Router::transit`].
    pub number: u32,
    pub interfaces: Vec<RouterInterface>,
    /// Whether it leads out of the cloud: packets leave with the host's address.
    pub external: bool,
    pub routes: Vec<StaticRoute>,
    /// Those of local ports.
    pub floating_ips: Vec<FloatingIp>,
}

impl Router {
    /// The host's end and the router's end of the link between them, a /31 in 100.64.0.0/10.
    pub fn transit(&self) -> (Ipv4Addr, Ipv4Addr) {
        let base = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + 2 * (self.number & 0x1f_ffff);
        (base.into(), (base + 1).into())
    }
}

/// Where a router stands in a subnet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterInterface {
    pub id: RouterInterfaceId,
    pub network_id: NetworkId,
    pub subnet_id: SubnetId,
    /// The address with the subnet's prefix length.
    pub address: IpNet,
    /// The same on every host.
    pub mac: MacAddress,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    pub destination: IpNet,
    pub next_hop: IpAddr,
}

/// A public address that stands for a port's private one, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub address: IpAddr,
    pub port_id: PortId,
    pub fixed_address: IpAddr,
}

/// Rules that allow; what none allows is denied. Stateful: answers pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub rules: Vec<SecurityGroupRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub direction: Direction,
    pub protocol: RuleProtocol,
    pub remote: Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Direction {
    /// To the instance.
    Ingress,
    /// From the instance.
    Egress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum RuleProtocol {
    Any,
    Tcp {
        ports: PortRange,
    },
    Udp {
        ports: PortRange,
    },
    /// ICMP with IPv4 remotes, ICMPv6 with IPv6 ones.
    Icmp {
        icmp_type: Option<u8>,
        icmp_code: Option<u8>,
    },
    /// An IP protocol by its number.
    Number {
        number: u8,
    },
}

/// Both ends included, `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Remote {
    Cidr {
        cidr: IpNet,
    },
    /// Any port of a group; `addresses` are those of its members, wherever they are. A document lists them with one
    /// rule that names the group, and they count for all that do.
    Group {
        group_id: SecurityGroupId,
        addresses: Vec<IpAddr>,
    },
}

/// A network card in an instance's specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub port_id: PortId,
    pub network_id: NetworkId,
    pub vni: Vni,
    pub mac: MacAddress,
    pub mtu: u16,
    /// Those of its port, which keeps them. Nothing is done with them but to tell them when the control plane has lost the
    /// instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<PortAddress>,
}

/// The latest word about a host's networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkReport {
    /// The revision of the document that the host has been made to match, faults aside.
    pub revision: Revision,
    /// What could not be made; empty when the host is as the document says.
    pub faults: Vec<NetworkFault>,
    /// Absent until the host has compared itself for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<NetworkCheck>,
}

/// What a host found when it last compared itself with a document, after it had been made to match, and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkCheck {
    #[serde(with = "time::serde::rfc3339")]
    pub checked_at: OffsetDateTime,
    /// That of the document.
    pub revision: Revision,
    /// How many things differ.
    pub differences: u32,
    /// The first of them; at most [`super::MAX_DETAIL_CHARS`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

/// One thing that could not be made. The port it stands for passes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkFault {
    pub subject: NetworkSubject,
    /// For people, in a sentence; at most [`super::MAX_DETAIL_CHARS`] characters.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NetworkSubject {
    Port(PortId),
    Network(NetworkId),
    Router(RouterId),
    SecurityGroup(SecurityGroupId),
    /// The host as a whole.
    Host,
}
