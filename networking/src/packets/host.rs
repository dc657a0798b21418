//! The host's table of the inet family: connections of guests, and what the host itself accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::IpNet;
use protocol::agent::HostNetwork;
use protocol::{SecurityGroupId, Vni};
use serde_json::Value;

use super::drops::DropKind::{self, *};
use super::expr::*;
use super::forwarded;
use super::groups::{self, EGRESS, INGRESS};
use super::guests::{ALLOWED, Guest};
use super::limits;
use super::ruleset::{Datum, Family, Part, Table};
use crate::names;

const KINDS: [DropKind; 9] =
    [Invalid, Egress, Ingress, Host, Underlay, Protected, RouterSource, Unsolicited, TooMuch];

pub(super) const VXLAN_PORT: u32 = 4789;
/// Where frames are judged that go to a tap.
pub(super) const TO_TAP: &str = "to_tap";
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The conntrack zone of each network, by its bridge's name.
pub(super) type Zones = BTreeMap<String, u16>;

/// Zones for networks: those that they had, else one that is free, as near as can be to the VNI's own.
pub(super) fn zones(networks: impl IntoIterator<Item = Vni>, had: &Zones) -> Zones {
    let networks: BTreeSet<Vni> = networks.into_iter().collect();
    let mut zones = Zones::new();
    let mut used = BTreeSet::new();
    for vni in &networks {
        let bridge = names::bridge(*vni);
        if let Some(&zone) = had.get(&bridge).filter(|zone| used.insert(**zone)) {
            zones.insert(bridge, zone);
        }
    }
    for vni in networks {
        let preferred = vni.get() % u32::from(u16::MAX);
        let bridge = names::bridge(vni);
        if zones.contains_key(&bridge) {
            continue;
        }
        // Zone 0 is the host's own.
        let mut candidates =
            (0..u32::from(u16::MAX)).map(|step| (preferred + step) % u32::from(u16::MAX) + 1);
        let free = candidates.find_map(|zone| u16::try_from(zone).ok().filter(|zone| used.insert(*zone)));
        zones.extend(free.map(|zone| (bridge, zone)));
    }
    zones
}

pub(super) fn table(
    want: &HostNetwork,
    guests: &[Guest<'_>],
    refused: &BTreeMap<SecurityGroupId, String>,
    had: &Zones,
    protected: &BTreeSet<IpNet>,
    outside: &BTreeSet<String>,
) -> Table {
    let mut table = Table::new(Family::Inet, &KINDS);
    add_zones(&mut table, &zones(want.networks.iter().map(|network| network.vni), had));
    sides(&mut table);
    services(&mut table, want);
    for group in want.security_groups.iter().filter(|group| !refused.contains_key(&group.id)) {
        groups::add(&mut table, group);
    }
    for guest in guests {
        add_guest(&mut table, guest);
    }
    to_host(&mut table, want);
    forwarded::add(&mut table, want, protected, outside);
    table
}

fn add_zones(table: &mut Table, zones: &Zones) {
    table.map("zones", &["ifname"], "verdict");
    for (bridge, zone) in zones {
        let chain = format!("zone_{zone}");
        table.map("zones", &[], "").put([Part::word(bridge)], Datum::Goto(chain.clone()));
        table.chain(chain, vec![vec![set_zone(*zone)]]);
    }
    // Before fragments are put together (-400), so that those of two networks never meet.
    let by_bridge = verdict_of(&meta("iifname"), "zones");
    table.hook("zone", "filter", "prerouting", -450, vec![by_bridge]);
}

/// A frame is judged when it comes from a tap, and when it goes to one; its mark names the port.
fn sides(table: &mut Table) {
    let side = |same: &str, other: &str| {
        vec![
            rule([eq(meta("mark"), 0)], accept()),
            // A packet of no connection has no direction.
            rule([eq(ct("direction"), "original")], goto(same)),
            rule([eq(ct("direction"), "reply")], goto(other)),
            rule([has(ct("state"), "untracked")], goto("untracked")),
            deny(Invalid),
        ]
    };
    let mut from_tap = vec![rule([ne(meta("iifname"), "cbr*")], accept())];
    from_tap.extend(side("egress", "ingress"));
    table.hook("from_tap", "filter", "prerouting", -150, from_tap);
    // By the hook of what is forwarded: see [`super::forwarded`].
    table.chain(TO_TAP, side("ingress", "egress"));
    limits::add_allow(table, INGRESS);
    limits::add_allow(table, EGRESS);
    // Conntrack leaves out neighbour discovery and multicast listeners; guests are kept honest frame by frame.
    table.chain(
        "untracked",
        vec![
            rule(
                [eq(field("icmpv6", "type"), any_of([range(130, 137), 143.into()])), set_mark(ALLOWED)],
                accept(),
            ),
            deny(Invalid),
        ],
    );
    table.map("egress", &["mark"], "verdict");
    table.map("ingress", &["mark"], "verdict");
}

/// DHCP, DNS and metadata need no rule of a group. They come after groups, since most packets are not theirs.
fn services(table: &mut Table, want: &HostNetwork) {
    table.set("services4", &["ifname", "ipv4_addr"]);
    table.set("services6", &["ifname", "ipv6_addr"]);
    for network in &want.networks {
        let bridge = Part::word(names::bridge(network.vni));
        let own = network.subnets.iter().map(|subnet| subnet.service_address);
        for address in own.chain([METADATA.into()]) {
            let set = if address.is_ipv4() { "services4" } else { "services6" };
            table.set(set, &[]).add([bridge.clone(), address.into()]);
        }
    }
    let version = |name: &str| eq(meta("nfproto"), name);
    let protocol = |number: u32| eq(ct("protocol"), number);
    let to_service = |family: &str, set: &str| {
        eq(concat([meta("iifname"), ct_original(&format!("{family} daddr"))]), format!("@{set}"))
    };
    let allow = limits::allow(EGRESS);
    let port = |ports: Value| eq(ct_original("proto-dst"), ports);
    let from_port = |number: u32| eq(ct_original("proto-src"), number);
    let four = |number, ports: Value| {
        rule([version("ipv4"), protocol(number), to_service("ip", "services4"), port(ports)], goto(&allow))
    };
    let six = |number, ports: Value| {
        rule([version("ipv6"), protocol(number), to_service("ip6", "services6"), port(ports)], goto(&allow))
    };
    table.chain(
        "egress",
        vec![
            verdict_of(&meta("mark"), "egress"),
            four(17, any_of([53, 67])),
            four(6, any_of([53, 80])),
            four(1, (8 << 8).into()),
            six(17, any_of([53, 547])),
            six(6, any_of([53, 80])),
            six(58, (128 << 8).into()),
            rule(
                [
                    version("ipv4"),
                    protocol(17),
                    eq(ct_original("ip daddr"), "255.255.255.255"),
                    port(67.into()),
                ],
                goto(&allow),
            ),
            rule(
                [version("ipv6"), protocol(17), eq(ct_original("ip6 daddr"), "ff02::1:2"), port(547.into())],
                goto(&allow),
            ),
            deny(Egress),
        ],
    );
    // A server's answer to a broadcast begins a connection. The tables of the bridge let no guest answer.
    let from_service = eq(concat([meta("iifname"), ct_original("ip saddr")]), "@services4");
    let allow = limits::allow(INGRESS);
    table.chain(
        "ingress",
        vec![
            verdict_of(&meta("mark"), "ingress"),
            rule([version("ipv4"), protocol(17), from_service, from_port(67), port(68.into())], goto(&allow)),
            rule(
                [
                    version("ipv6"),
                    protocol(17),
                    eq(ct_original("ip6 saddr"), prefix("fe80::", 10)),
                    from_port(547),
                    port(546.into()),
                ],
                goto(&allow),
            ),
            deny(Ingress),
        ],
    );
}

fn add_guest(table: &mut Table, guest: &Guest<'_>) {
    let groups: BTreeSet<_> = guest.port.security_groups.iter().copied().collect();
    for (map, direction) in [("ingress", INGRESS), ("egress", EGRESS)] {
        let mut chains: Vec<_> = groups.iter().map(|group| groups::chain(*group, direction)).collect();
        let chain = match chains.as_slice() {
            [one] => one.clone(),
            _ => {
                let chain = format!("p_{}_{direction}", guest.tail());
                table.chain(chain.clone(), chains.drain(..).map(|group| jump(&group)).collect());
                chain
            }
        };
        table.map(map, &[], "").put([Part::Number(guest.mark)], Datum::Jump(chain));
    }
}

/// VXLAN from peers alone, on whatever address: the kernel takes it on each of them. Nothing from guests but answers.
fn to_host(table: &mut Table, want: &HostNetwork) {
    table.set("peers4", &["ipv4_addr"]);
    table.set("peers6", &["ipv6_addr"]);
    for peer in &want.peers {
        table.set(if peer.is_ipv4() { "peers4" } else { "peers6" }, &[]).add([(*peer).into()]);
    }
    let from_stranger = |family: &str, set: &str| {
        let mut matches = vec![eq(field("udp", "dport"), VXLAN_PORT)];
        matches.push(ne(field(family, "saddr"), format!("@{set}")));
        matches.extend(deny(Underlay));
        matches
    };
    table.hook(
        "to_host",
        "filter",
        "input",
        -10,
        vec![
            rule([eq(meta("iifname"), "cbr*")], deny(Host)),
            rule([eq(meta("iifname"), "cre*"), eq(ct("direction"), "reply")], accept()),
            rule([eq(meta("iifname"), "cre*")], deny(Host)),
            from_stranger("ip", "peers4"),
            from_stranger("ip6", "peers6"),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_keep_their_zones_and_share_none() {
        let [a, b, c] = [7, 7 + 65535, 9].map(|vni| Vni::try_from(vni).unwrap());
        let first = zones([b, c], &Zones::new());
        let second = zones([a, b, c], &first);
        assert_eq!(second[&names::bridge(b)], first[&names::bridge(b)]);
        assert_eq!(second.values().collect::<BTreeSet<_>>().len(), 3);
        assert!(second.values().all(|zone| *zone != 0));
    }
}
