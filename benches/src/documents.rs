//! Documents of hosts, in few words.

use std::net::IpAddr;

use protocol::agent::*;
use protocol::{SecurityGroupId, Vni};
use uuid::Uuid;

pub(crate) const MTU: u16 = 1450;

pub(crate) fn id<T: From<Uuid>>(number: u128) -> T {
    Uuid::from_u128(number).into()
}

/// The network 10.0.0.0/16, without ports.
pub(crate) fn network() -> anyhow::Result<Network> {
    let subnet = Subnet {
        id: id(1),
        cidr: "10.0.0.0/16".parse()?,
        gateway: None,
        routed: false,
        service_address: "10.0.0.2".parse()?,
        dhcp: false,
        dns_servers: Vec::new(),
    };
    Ok(Network {
        id: id(1),
        vni: Vni::try_from(7).map_err(anyhow::Error::msg)?,
        mtu: MTU,
        dns_domain: "bench.internal".to_owned(),
        subnets: vec![subnet],
        ports: Vec::new(),
        remote_ports: Vec::new(),
    })
}

/// A port in the group 1, with the address 10.0.1.`number`.
pub(crate) fn port(number: u8) -> anyhow::Result<Port> {
    Ok(Port {
        id: id(number.into()),
        instance_id: id(number.into()),
        mac: format!("52:54:00:00:00:{number:02x}").parse()?,
        addresses: vec![PortAddress { subnet_id: id(1), address: IpAddr::from([10, 0, 1, number]) }],
        allowed_address_pairs: Vec::new(),
        security_groups: vec![id(1)],
        hostname: format!("guest-{number}").parse()?,
        metadata: Metadata { instance_type: String::new(), project: String::new(), public_ipv4: None },
    })
}

/// The group 1: ten rules, one of which lets its 1,000 members meet, TCP and UDP.
pub(crate) fn group_of_a_thousand() -> anyhow::Result<SecurityGroup> {
    let ingress = |protocol, remote| SecurityGroupRule { direction: Direction::Ingress, protocol, remote };
    let mut rules = Vec::new();
    for n in 0..7 {
        let ports = PortRange { first: 1000 + 10 * n, last: 1005 + 10 * n };
        rules.push(ingress(
            RuleProtocol::Tcp { ports },
            Remote::Cidr { cidr: format!("192.168.{n}.0/24").parse()? },
        ));
    }
    let addresses = (0..1000_u32).map(|n| IpAddr::from((0x0a00_0100 + n).to_be_bytes())).collect();
    let members =
        |addresses| Remote::Group { group_id: SecurityGroupId::from(Uuid::from_u128(1)), addresses };
    let iperf3 = PortRange { first: 5201, last: 5201 };
    rules.push(ingress(RuleProtocol::Tcp { ports: iperf3 }, members(addresses)));
    rules.push(ingress(RuleProtocol::Udp { ports: iperf3 }, members(Vec::new())));
    rules.push(SecurityGroupRule {
        direction: Direction::Egress,
        protocol: RuleProtocol::Any,
        remote: Remote::Cidr { cidr: "0.0.0.0/0".parse()? },
    });
    Ok(SecurityGroup { id: id(1), rules })
}
