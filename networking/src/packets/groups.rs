//! Security groups: one chain per group and direction that looks a connection up in sets of addresses, protocols and
//! ports.
//!
//! A rule is matched with the packet that began the connection, for every packet of it, both ways. So what no
//! rule allows any more ends at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use protocol::SecurityGroupId;
use protocol::agent::{Direction, Remote, RuleProtocol, SecurityGroup};
use serde_json::Value;

use super::expr::*;
use super::limits;
use super::ranges::{Block, disjoint, merged};
use super::ruleset::{Part, Table};

pub(super) const INGRESS: &str = "in";
pub(super) const EGRESS: &str = "out";

/// The chain of a group for connections to its ports ([`INGRESS`]) or from them ([`EGRESS`]).
pub(super) fn chain(group: SecurityGroupId, direction: &str) -> String {
    format!("g_{}_{direction}", group.as_uuid().simple())
}

/// What a set is looked up for: the numbers in it are ports, types and codes of ICMP, or protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
    Protocol,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Protocol => "protocol",
        }
    }

    const fn protocol(self, family: Version) -> Option<u32> {
        match (self, family) {
            (Self::Tcp, _) => Some(6),
            (Self::Udp, _) => Some(17),
            (Self::Icmp, Version::Four) => Some(1),
            (Self::Icmp, Version::Six) => Some(58),
            (Self::Protocol, _) => None,
        }
    }

    /// The number of a connection, as its first packet named it.
    fn number(self) -> Value {
        if self == Self::Protocol { ct("protocol") } else { ct_original("proto-dst") }
    }

    const fn last_number(self) -> u32 {
        if matches!(self, Self::Protocol) { 255 } else { 0xffff }
    }

    /// A rule for connections of this kind and version with a number in one of the ranges, which are merged, that
    /// `is_remote` holds for.
    fn rule(
        self,
        version: Version,
        ranges: &[(u32, u32)],
        is_remote: Option<Value>,
        direction: &str,
    ) -> Rule {
        let part = |&(first, last): &(u32, u32)| -> Value {
            if first == last { first.into() } else { range(first, last) }
        };
        let is_number = match ranges {
            [(0, last)] if *last >= self.last_number() => None,
            [one] => Some(eq(self.number(), part(one))),
            several => Some(eq(self.number(), any_of(several.iter().map(part)))),
        };
        let matches = self.matches(version).chain(is_number).chain(is_remote);
        matches.chain(goto(&limits::allow(direction))).collect()
    }

    /// Holds for connections of this kind and version. Without it a port has no type for nft.
    fn matches(self, version: Version) -> impl Iterator<Item = Value> {
        let protocol = self.protocol(version).map(|protocol| eq(ct("protocol"), protocol));
        [eq(meta("nfproto"), version.nfproto())].into_iter().chain(protocol)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Four,
    Six,
}

impl Version {
    const ALL: [Self; 2] = [Self::Four, Self::Six];

    const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Four } else { Self::Six }
    }

    const fn digit(self) -> char {
        if matches!(self, Self::Four) { '4' } else { '6' }
    }

    const fn nfproto(self) -> &'static str {
        if matches!(self, Self::Four) { "ipv4" } else { "ipv6" }
    }

    const fn address_type(self) -> &'static str {
        if matches!(self, Self::Four) { "ipv4_addr" } else { "ipv6_addr" }
    }

    /// The other end of the connection, as its first packet named it.
    fn remote(self, direction: &str) -> Value {
        let family = if matches!(self, Self::Four) { "ip" } else { "ip6" };
        let end = if direction == INGRESS { "saddr" } else { "daddr" };
        ct_original(&format!("{family} {end}"))
    }
}

/// What stands in the way of a group's rules, if something does.
pub(super) fn refusal(group: &SecurityGroup) -> Option<String> {
    group.rules.iter().find_map(|rule| numbers(&rule.protocol).err())
}

/// The sets that numbers of a rule are in, and which numbers.
fn numbers(protocol: &RuleProtocol) -> Result<(Kind, u32, u32), String> {
    let ports = |kind, first: u16, last: u16| {
        if first > last {
            return Err(format!("its ports {first} to {last} are in the wrong order"));
        }
        Ok((kind, first.into(), last.into()))
    };
    match *protocol {
        RuleProtocol::Any => Ok((Kind::Protocol, 0, 255)),
        RuleProtocol::Number { number } => Ok((Kind::Protocol, number.into(), number.into())),
        RuleProtocol::Tcp { ports: of } => ports(Kind::Tcp, of.first, of.last),
        RuleProtocol::Udp { ports: of } => ports(Kind::Udp, of.first, of.last),
        // Connection tracking keeps type and code where other protocols have the destination port.
        RuleProtocol::Icmp { icmp_type, icmp_code } => match (icmp_type, icmp_code) {
            (None, None) => Ok((Kind::Icmp, 0, 0xffff)),
            (Some(kind), None) => Ok((Kind::Icmp, u32::from(kind) << 8, u32::from(kind) << 8 | 0xff)),
            (Some(kind), Some(code)) => {
                let number = u32::from(kind) << 8 | u32::from(code);
                Ok((Kind::Icmp, number, number))
            }
            (None, Some(code)) => Err(format!("its ICMP code {code} has no type")),
        },
    }
}

/// Adds sets and chains of a group. One with a [`refusal`] gets no rules.
pub(super) fn add(table: &mut Table, group: &SecurityGroup) {
    for (direction, name) in [(Direction::Ingress, INGRESS), (Direction::Egress, EGRESS)] {
        add_direction(table, group, direction, name);
    }
}

fn add_direction(table: &mut Table, group: &SecurityGroup, direction: Direction, name: &str) {
    let mut nets: BTreeMap<(Version, Kind), Vec<_>> = BTreeMap::new();
    let mut members: BTreeMap<(SecurityGroupId, Kind), Vec<(u32, u32)>> = BTreeMap::new();
    for rule in group.rules.iter().filter(|rule| rule.direction == direction) {
        let Ok((kind, first, last)) = numbers(&rule.protocol) else { continue };
        match &rule.remote {
            Remote::Cidr { cidr } => {
                nets.entry((Version::of(cidr.addr()), kind)).or_default().push((*cidr, first, last));
            }
            Remote::Group { group_id, addresses } => {
                declare_members(table, *group_id, addresses);
                members.entry((*group_id, kind)).or_default().push((first, last));
            }
        }
    }
    let chain = chain(group.id, name);
    // What needs no look into a set of addresses comes first.
    let (mut of_anybody, mut of_some) = (Vec::new(), Vec::new());
    for ((version, kind), blocks) in nets {
        let (anybody, some): (Vec<_>, Vec<_>) =
            disjoint(blocks).into_iter().partition(|(net, ..)| net.prefix_len() == 0);
        let ranges = merged(anybody.into_iter().map(|(_, first, last)| (first, last)));
        if !ranges.is_empty() {
            of_anybody.push(kind.rule(version, &ranges, None, name));
        }
        if !some.is_empty() {
            let set = format!("{chain}_{}{}", kind.as_str(), version.digit());
            of_some.push(net_rule(table, &set, (version, kind), some, name));
        }
    }
    for ((remote, kind), ranges) in members {
        let ranges = merged(ranges);
        let member = |version: Version| eq(version.remote(name), format!("@{}", members_of(remote, version)));
        of_some.extend(Version::ALL.map(|version| kind.rule(version, &ranges, Some(member(version)), name)));
    }
    of_anybody.extend(of_some);
    table.chain(chain, of_anybody);
}

/// A rule for what is from or to one of these nets, each with numbers of its own.
fn net_rule(
    table: &mut Table,
    set: &str,
    (version, kind): (Version, Kind),
    blocks: Vec<Block>,
    direction: &str,
) -> Rule {
    let number_type = if kind == Kind::Protocol { "inet_proto" } else { "inet_service" };
    let elements = table.intervals(set, &[version.address_type(), number_type]);
    for (net, first, last) in blocks {
        elements.add([net.into(), Part::range(first, last)]);
    }
    let is_in = eq(concat([version.remote(direction), kind.number()]), format!("@{set}"));
    kind.matches(version).chain([is_in]).chain(goto(&limits::allow(direction))).collect()
}

fn declare_members(table: &mut Table, group: SecurityGroupId, addresses: &[IpAddr]) {
    for version in Version::ALL {
        let set = table.set(members_of(group, version), &[version.address_type()]);
        let addresses: BTreeSet<_> = addresses.iter().filter(|&&it| Version::of(it) == version).collect();
        for address in addresses {
            set.add([(*address).into()]);
        }
    }
}

fn members_of(group: SecurityGroupId, version: Version) -> String {
    format!("m_{}_{}", group.as_uuid().simple(), version.digit())
}
