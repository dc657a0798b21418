//! Security groups: sets of addresses, protocols and ports, and one chain per group and direction that looks a
//! connection up in them.
//!
//! A rule is matched with the packet that began the connection, for every packet of it, both ways. So what no
//! rule allows any more ends at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use protocol::SecurityGroupId;
use protocol::agent::{Direction, Remote, RuleProtocol, SecurityGroup};

use super::expr::*;
use super::limits;
use super::ranges::{disjoint, merged};
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
    fn remote(self, direction: &str) -> serde_json::Value {
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
    let allow = limits::allow(name);
    let mut rules = Vec::new();
    for ((version, kind), blocks) in nets {
        let set = format!("{chain}_{}{}", kind.as_str(), version.digit());
        let number_type = if kind == Kind::Protocol { "inet_proto" } else { "inet_service" };
        let elements = table.intervals(set.clone(), &[version.address_type(), number_type]);
        for (net, first, last) in disjoint(blocks) {
            elements.add([net.into(), Part::range(first, last)]);
        }
        let set = format!("@{set}");
        let is_version = eq(meta("nfproto"), version.nfproto());
        let remote = version.remote(name);
        rules.push(match kind.protocol(version) {
            Some(protocol) => rule(
                [
                    is_version,
                    eq(ct("protocol"), protocol),
                    eq(concat([remote, ct_original("proto-dst")]), set),
                ],
                goto(&allow),
            ),
            None => rule([is_version, eq(concat([remote, ct("protocol")]), set)], goto(&allow)),
        });
    }
    for ((remote, kind), ranges) in members {
        rules.extend(member_rules(table, &chain, name, remote, kind, ranges));
    }
    table.chain(chain, rules);
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

/// Rules of one kind for members of one group. Their numbers are in one set for both versions of IP, with the
/// protocol beside them: a set of intervals with one field only cannot be changed element by element.
fn member_rules(
    table: &mut Table,
    chain: &str,
    direction: &str,
    remote: SecurityGroupId,
    kind: Kind,
    ranges: Vec<(u32, u32)>,
) -> Vec<Rule> {
    let ranges = merged(ranges);
    let set = format!("{chain}_{}_{}", kind.as_str(), remote.as_uuid().simple());
    let everything = kind == Kind::Protocol && ranges == [(0, 255)];
    if kind == Kind::Protocol && !everything {
        let elements = table.set(set.clone(), &["inet_proto"]);
        for number in ranges.iter().flat_map(|&(first, last)| first..=last) {
            elements.add([Part::Number(number)]);
        }
    } else if !everything {
        let elements = table.intervals(set.clone(), &["inet_proto", "inet_service"]);
        let protocols: BTreeSet<_> =
            Version::ALL.iter().filter_map(|&version| kind.protocol(version)).collect();
        for protocol in protocols {
            for &(first, last) in &ranges {
                elements.add([Part::Number(protocol), Part::range(first, last)]);
            }
        }
    }
    let allow = limits::allow(direction);
    let rule_of = |version: Version| {
        let is_version = eq(meta("nfproto"), version.nfproto());
        let member = eq(version.remote(direction), format!("@{}", members_of(remote, version)));
        let set = format!("@{set}");
        match kind.protocol(version) {
            Some(protocol) => rule(
                [
                    is_version,
                    eq(ct("protocol"), protocol),
                    member,
                    eq(concat([ct("protocol"), ct_original("proto-dst")]), set),
                ],
                goto(&allow),
            ),
            None if everything => rule([is_version, member], goto(&allow)),
            None => rule([is_version, member, eq(ct("protocol"), set)], goto(&allow)),
        }
    };
    Version::ALL.map(rule_of).into()
}
