//! Documents in few words.

use std::net::IpAddr;

use protocol::agent::*;
use protocol::{MacAddress, SecurityGroupId, Vni};
use uuid::Uuid;

pub fn id<T: From<Uuid>>(number: u128) -> T {
    Uuid::from_u128(number).into()
}

/// The port's hardware address: `fa:16:3e:00:00:<number>`.
pub fn mac(number: u8) -> MacAddress {
    MacAddress::from_bytes([0xfa, 0x16, 0x3e, 0, 0, number]).unwrap()
}

/// A port in groups.
pub fn port(number: u8, addresses: &[&str], groups: &[u128]) -> Port {
    Port {
        id: id(number.into()),
        instance_id: id(number.into()),
        mac: mac(number),
        addresses: addresses
            .iter()
            .map(|address| PortAddress { subnet_id: id(1), address: address.parse().unwrap() })
            .collect(),
        allowed_address_pairs: Vec::new(),
        security_groups: groups.iter().map(|&group| id(group)).collect(),
        hostname: "guest".parse().unwrap(),
        metadata: Metadata { instance_type: "small".into(), project: "p".into(), public_ipv4: None },
    }
}

pub fn network(vni: u32, subnets: &[(&str, &str)], ports: Vec<Port>) -> Network {
    Network {
        id: id(vni.into()),
        vni: Vni::try_from(vni).unwrap(),
        mtu: 1400,
        dns_domain: "example.internal".into(),
        subnets: subnets
            .iter()
            .map(|(cidr, service)| Subnet {
                id: id(1),
                cidr: cidr.parse().unwrap(),
                gateway: None,
                routed: false,
                service_address: service.parse().unwrap(),
                dhcp: true,
                dns_servers: Vec::new(),
            })
            .collect(),
        ports,
        remote_ports: Vec::new(),
    }
}

pub fn group(number: u128, rules: Vec<SecurityGroupRule>) -> SecurityGroup {
    SecurityGroup { id: id(number), rules }
}

pub fn rule(direction: Direction, protocol: RuleProtocol, remote: Remote) -> SecurityGroupRule {
    SecurityGroupRule { direction, protocol, remote }
}

pub fn ingress(protocol: RuleProtocol, cidr: &str) -> SecurityGroupRule {
    rule(Direction::Ingress, protocol, net(cidr))
}

/// Everything out.
pub fn out() -> Vec<SecurityGroupRule> {
    ["0.0.0.0/0", "::/0"].map(|cidr| rule(Direction::Egress, RuleProtocol::Any, net(cidr))).into()
}

pub fn net(cidr: &str) -> Remote {
    Remote::Cidr { cidr: cidr.parse().unwrap() }
}

pub fn members(group: u128, addresses: &[&str]) -> Remote {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Remote::Group { group_id: SecurityGroupId::from(Uuid::from_u128(group)), addresses }
}

pub fn tcp(first: u16, last: u16) -> RuleProtocol {
    RuleProtocol::Tcp { ports: PortRange { first, last } }
}

pub fn udp(first: u16, last: u16) -> RuleProtocol {
    RuleProtocol::Udp { ports: PortRange { first, last } }
}

pub fn icmp(icmp_type: u8) -> RuleProtocol {
    RuleProtocol::Icmp { icmp_type: Some(icmp_type), icmp_code: None }
}

pub const V4: (&str, &str) = ("10.0.0.0/24", "10.0.0.2");
pub const V6: (&str, &str) = ("fd00::/64", "fd00::2");
