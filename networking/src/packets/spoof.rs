//! The table of the bridge family: what a guest may put on the wire, by its tap, frame by frame.
//!
//! The rules are the same whatever the document says; ports are elements of its sets and maps. A tap that is no
//! element passes nothing, so the table is right before any tap is there. Packets from a port's own addresses, which are
//! nearly all, take a short way: one look into `own4` or `own6` tells that tap, hardware address and address belong
//! together. Whatever is not found there goes through all checks. Bridges call the hooks in this order:
//! `prerouting` (ours, then conntrack and [`super::groups`] by br_netfilter), `forward` (ours, then by
//! br_netfilter, then ours again). A frame is handed from one to the next by its mark: the port's until a group
//! allowed it, then [`ALLOWED`]. So nothing passes when the other table, or br_netfilter, is not there.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use protocol::MacAddress;
use serde_json::Value;

use super::drops::DropKind::{self, *};
use super::expr::*;
use super::guests::{ALLOWED, Guest};
use super::limits;
use super::ranges::widest;
use super::ruleset::{Datum, Family, Part, Table};
use crate::services::METADATA_ADDRESS;

const KINDS: [DropKind; 16] = [
    UnknownTap,
    Mac,
    Arp,
    Ipv4Source,
    Ipv6Source,
    Neighbour,
    RouterAdvertisement,
    DhcpServer,
    Vlan,
    LinkControl,
    Ethertype,
    Fragment,
    ExtensionHeader,
    Host,
    Unfiltered,
    TooMuch,
];

const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
/// Neighbour discovery: router solicitation, neighbour solicitation, neighbour advertisement.
const RS: u32 = 133;
const NS: u32 = 135;
const NA: u32 = 136;
/// First bytes of neighbour discovery's options (RFC 4861, RFC 7527): type and length in 8 bytes.
const SOURCE_LINK: u32 = 0x0101;
const TARGET_LINK: u32 = 0x0201;
const NONCE: u32 = 0x0e01;

pub(super) fn table(guests: &[Guest<'_>]) -> Table {
    let mut table = Table::new(Family::Bridge, &KINDS);
    from_devices(&mut table);
    between_devices(&mut table);
    from_taps(&mut table);
    neighbours(&mut table);
    declare(&mut table);
    for guest in guests {
        add(&mut table, guest);
    }
    table
}

fn declare(table: &mut Table) {
    table.map("taps", &["ifname"], "mark");
    table.map("neighbours", &["ifname"], "verdict");
    table.set("macs", &["ifname", "ether_addr"]);
    table.set("homes", &["ifname", "ether_addr", "ipv4_addr"]);
    table.set("taken", &["ifname", "ipv4_addr"]);
    for (family, address) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
        table.map(format!("own{family}"), &["ifname", "ether_addr", address], "mark");
        table.intervals(format!("pairs{family}"), &["ifname", "ether_addr", address]);
    }
}

fn add(table: &mut Table, guest: &Guest<'_>) {
    let tap = || Part::word(&guest.tap);
    let chain = format!("nd_{}", guest.tail());
    table.map("taps", &[], "").put([tap()], Datum::Number(guest.mark));
    table.map("neighbours", &[], "").put([tap()], Datum::Goto(chain.clone()));
    for own in guest.port.addresses.iter().filter(|own| own.address.is_ipv4()) {
        table.set("homes", &[]).add([tap(), Part::word(guest.port.mac), own.address.into()]);
        table.set("taken", &[]).add([Part::word(&guest.services), own.address.into()]);
    }
    let sources = guest.sources();
    for mac in guest.macs() {
        table.set("macs", &[]).add([tap(), Part::word(mac)]);
        let nets = || sources.iter().filter(|(of, _)| *of == mac).map(|(_, net)| *net);
        let (whole, exact): (Vec<_>, Vec<_>) =
            nets().partition(|net| net.prefix_len() < net.max_prefix_len());
        for net in widest(whole) {
            table.set(format!("pairs{}", digit(net)), &[]).add([tap(), Part::word(mac), net.into()]);
        }
        // These are never a port's own, whatever pairs it has.
        let foreign = |net: &IpNet| net.addr() == METADATA_ADDRESS || net.addr() == Ipv6Addr::UNSPECIFIED;
        for net in exact.into_iter().filter(|net| !foreign(net)) {
            let key = [tap(), Part::word(mac), net.into()];
            table.map(format!("own{}", digit(net)), &[], "").put(key, Datum::Number(guest.mark));
        }
    }
    let nets = widest(sources.iter().map(|(_, net)| *net));
    table.chain(chain, neighbour_of(&guest.macs().into_iter().collect::<Vec<_>>(), nets));
}

fn digit(net: IpNet) -> char {
    if net.addr().is_ipv4() { '4' } else { '6' }
}

fn ip() -> Value {
    any_of(["ip", "ip6"])
}

fn from_devices(table: &mut Table) {
    let from = |name: Value| eq(meta("iifname"), name);
    table.hook(
        "prerouting",
        "filter",
        "prerouting",
        -300,
        vec![
            rule([from("ct*".into())], goto("tap")),
            rule([from("cvx*".into())], goto("tunnel")),
            rule([from(any_of(["cri*", "csv*"])), set_mark(0)], vec![]),
        ],
    );
    // Services answer on each host alone, so none of their words comes from another one.
    table.chain(
        "tunnel",
        vec![
            rule([set_mark(0)], vec![]),
            rule([source_port(67), eq(meta("l4proto"), UDP)], deny(DhcpServer)),
            rule([source_port(547), eq(meta("l4proto"), UDP)], deny(DhcpServer)),
            rule([eq(field("icmpv6", "type"), 134)], deny(RouterAdvertisement)),
        ],
    );
    // Bridges have no address, but the host answers to all of its addresses on any device.
    let to_host = || {
        vec![
            rule([ne(field("ip", "daddr"), prefix("224.0.0.0", 3))], deny(Host)),
            rule([ne(field("ip6", "daddr"), prefix("ff00::", 8))], deny(Host)),
            discard(),
        ]
    };
    table.chain("to_host", to_host());
    let ours = || any_of(["ct*", "cri*", "csv*", "cvx*"]);
    table.hook("input", "filter", "input", -300, vec![rule([from(ours())], goto("to_host"))]);
    table.hook("output", "filter", "output", -300, vec![rule([eq(meta("oifname"), ours())], discard())]);
}

fn between_devices(table: &mut Table) {
    let to = |name: Value| eq(meta("oifname"), name);
    let from_tap = || eq(meta("iifname"), "ct*");
    let is_ip = || eq(field("ether", "type"), ip());
    // Answers of the metadata service go to the port itself, whoever else may use its address.
    let speaker = || field("arp", "saddr ip");
    let claims_taken = eq(concat([meta("oifname"), speaker()]), "@taken");
    let not_home = ne(of_tap([field("arp", "saddr ether"), speaker()]), "@homes");
    table.hook(
        "forward",
        "filter",
        "forward",
        -300,
        vec![
            rule([ne(meta("mark"), ALLOWED)], jump("not_allowed")),
            rule([to("ct*".into())], goto("to_tap")),
            rule([to("cvx*".into()), set_mark(0)], accept()),
            rule([to(any_of(["cri*", "csv*"])), set_mark(0)], vec![]),
        ],
    );
    table.chain(
        "not_allowed",
        vec![
            rule([from_tap(), is_ip()], deny(Unfiltered)),
            rule([from_tap(), claims_taken, not_home], deny(Arp)),
        ],
    );
    table.chain(
        "to_tap",
        vec![rule([set_mark(looked_up(&meta("oifname"), "taps"))], accept()), deny(UnknownTap)],
    );
    table.hook(
        "forwarded",
        "filter",
        "forward",
        300,
        vec![
            rule([eq(meta("mark"), ALLOWED), to("ct*".into()), set_mark(0)], accept()),
            rule([to("ct*".into()), is_ip()], deny(Unfiltered)),
            rule([to("cvx*".into()), set_mark(0)], accept()),
            rule([to(any_of(["ct*", "cri*", "csv*"])), set_mark(0)], vec![]),
        ],
    );
}

/// What a tap and the addresses of its frame are looked up by.
fn of_tap([hardware, address]: [Value; 2]) -> Value {
    concat([meta("iifname"), hardware, address])
}

fn in_pairs(addresses: [Value; 2], set: &str) -> Value {
    eq(of_tap(addresses), set)
}

/// Holds for whatever has this number where UDP and TCP have the port of the sender.
fn source_port(number: u32) -> Value {
    eq(transport(0, 16), number)
}

/// To stations that bridges keep to themselves.
fn to_bridges() -> Value {
    eq(masked(&field("ether", "daddr"), "ff:ff:ff:ff:ff:f0"), "01:80:c2:00:00:00")
}

fn from_taps(table: &mut Table) {
    let ether = |name: &str| field("ether", name);
    let own = |version: &str, map: &str, then: &str| {
        let key = of_tap([ether("saddr"), field(version, "saddr")]);
        rule([eq(ether("type"), version), set_mark(looked_up(&key, map))], goto(then))
    };
    table.chain(
        "tap",
        vec![
            own("ip", "own4", "tap_own4"),
            own("ip6", "own6", "tap_own6"),
            rule([set_mark(looked_up(&meta("iifname"), "taps"))], goto("tap_any")),
            deny(UnknownTap),
        ],
    );
    table.chain(
        "tap_any",
        vec![
            rule([to_bridges()], deny(LinkControl)),
            rule([eq(ether("type"), 0x88cc)], deny(LinkControl)),
            rule([eq(ether("type"), any_of([0x8100, 0x88a8, 0x9100]))], deny(Vlan)),
            rule([ne(concat([meta("iifname"), ether("saddr")]), "@macs")], deny(Mac)),
            rule([eq(ether("type"), "arp")], goto("tap_arp")),
            rule([eq(ether("type"), "ip")], goto("tap_ip4")),
            rule([eq(ether("type"), "ip6")], goto("tap_ip6")),
            deny(Ethertype),
        ],
    );
    arp(table);
    ip4(table);
    ip6(table);
}

fn arp(table: &mut Table) {
    let arp = |name: &str| field("arp", name);
    let speaker = || [arp("saddr ether"), arp("saddr ip")];
    table.chain(
        "tap_arp",
        vec![
            rule([ne(arp("htype"), 1)], deny(Arp)),
            rule([ne(arp("ptype"), 0x0800)], deny(Arp)),
            rule([ne(arp("hlen"), 6)], deny(Arp)),
            rule([ne(arp("plen"), 4)], deny(Arp)),
            rule([ne(arp("operation"), any_of([1, 2]))], deny(Arp)),
            // Nobody is the metadata service, whatever a port may send.
            rule([eq(arp("saddr ip"), METADATA_ADDRESS.to_string())], deny(Arp)),
            rule([set_mark(looked_up(&of_tap(speaker()), "own4"))], accept()),
            rule([in_pairs(speaker(), "@pairs4"), limits::speaks_too_much("spoken4")], deny(TooMuch)),
            rule([in_pairs(speaker(), "@pairs4")], accept()),
            // A probe whether an address is free (RFC 5227).
            rule(
                [
                    eq(arp("operation"), 1),
                    eq(arp("saddr ip"), "0.0.0.0"),
                    eq(concat([meta("iifname"), arp("saddr ether")]), "@macs"),
                ],
                accept(),
            ),
            deny(Arp),
        ],
    );
}

fn ip4(table: &mut Table) {
    let source = || [field("ether", "saddr"), field("ip", "saddr")];
    let not_home = || ne(of_tap(source()), "@homes");
    let checks = || {
        [
            rule([ne(masked(&field("ip", "frag-off"), 0x3fff), 0)], jump("fragment")),
            rule([source_port(67), eq(meta("l4proto"), UDP)], deny(DhcpServer)),
            // The metadata service knows ports by their own addresses, which others may be allowed to use.
            rule([eq(field("ip", "daddr"), METADATA_ADDRESS.to_string()), not_home()], deny(Ipv4Source)),
        ]
    };
    let is_multicast = eq(meta("pkttype"), "multicast");
    let mut own = vec![rule([is_multicast, to_bridges()], deny(LinkControl))];
    own.extend(checks());
    table.chain("tap_own4", own);
    // A whole TCP or UDP header is in the first fragment of whoever means well (RFC 1858).
    table.chain(
        "fragment",
        vec![
            rule(
                [eq(masked(&field("ip", "frag-off"), 0x3fff), 0x2000), less(field("ip", "length"), 68)],
                deny(Fragment),
            ),
            rule([eq(masked(&field("ip", "frag-off"), 0x1fff), 1)], deny(Fragment)),
        ],
    );
    let mut any = Vec::from(checks());
    any.extend([
        rule([eq(field("ip", "saddr"), METADATA_ADDRESS.to_string())], deny(Ipv4Source)),
        rule([in_pairs(source(), "@pairs4")], accept()),
        rule(
            [
                eq(field("ip", "saddr"), "0.0.0.0"),
                eq(field("ip", "daddr"), "255.255.255.255"),
                eq(field("udp", "sport"), 68),
                eq(field("udp", "dport"), 67),
            ],
            accept(),
        ),
        deny(Ipv4Source),
    ]);
    table.chain("tap_ip4", any);
}

fn ip6(table: &mut Table) {
    let source = || [field("ether", "saddr"), field("ip6", "saddr")];
    let icmp = || field("icmpv6", "type");
    let checks = || {
        [
            rule([eq(extension("rt"), true)], deny(ExtensionHeader)),
            // Headers behind the fragment header may put the message into a later fragment (RFC 7112).
            rule(
                [eq(extension_field("frag", "nexthdr"), any_of([0, 43, 44, 51, 60, 135, 139, 140]))],
                deny(ExtensionHeader),
            ),
            rule(
                [eq(icmp(), any_of([json(130), json(134), json(137), json(138), range(151, 153)]))],
                deny(RouterAdvertisement),
            ),
            rule([source_port(547), eq(meta("l4proto"), UDP)], deny(DhcpServer)),
        ]
    };
    let next = |protocol: u32| eq(field("ip6", "nexthdr"), protocol);
    let is_multicast = eq(meta("pkttype"), "multicast");
    let mut own = vec![
        rule([is_multicast, to_bridges()], deny(LinkControl)),
        // No header in between, so what the checks are about is not there.
        rule([next(TCP)], accept()),
        rule([next(UDP), ne(transport(0, 16), 547)], accept()),
    ];
    own.extend(checks());
    own.push(goto("tap_ip6_own"));
    table.chain("tap_own6", own);
    let mut any = Vec::from(checks());
    any.extend([
        rule([eq(field("ip6", "saddr"), "::")], goto("tap_unspecified")),
        rule(
            [eq(icmp(), NS), in_pairs(source(), "@pairs6"), limits::speaks_too_much("spoken6")],
            deny(TooMuch),
        ),
        rule([in_pairs(source(), "@pairs6")], goto("tap_ip6_own")),
        deny(Ipv6Source),
    ]);
    table.chain("tap_ip6", any);
    table.chain(
        "tap_ip6_own",
        vec![
            rule([eq(icmp(), any_of([RS, NS, NA]))], goto("tap_neighbour")),
            // Holds for whatever protocol, if the headers lead to one.
            rule([ne(meta("l4proto"), 0)], accept()),
            deny(ExtensionHeader),
        ],
    );
    table.chain(
        "tap_unspecified",
        vec![
            rule([eq(icmp(), any_of([RS, NS]))], goto("tap_neighbour")),
            rule([eq(icmp(), any_of([131, 143]))], accept()),
            deny(Ipv6Source),
        ],
    );
}

fn json(number: u32) -> Value {
    number.into()
}

/// Messages of neighbour discovery by their shape: options where they are looked for, and no others.
fn neighbours(table: &mut Table) {
    let message = |kind: u32| eq(field("icmpv6", "type"), kind);
    let length = |bytes: u32| eq(field("ip6", "length"), bytes);
    let option = |offset: u32, kind: u32| eq(transport(offset, 16), kind);
    let by_port = || verdict_of(&meta("iifname"), "neighbours");
    table.chain(
        "tap_neighbour",
        vec![
            rule([ne(field("ip6", "nexthdr"), ICMPV6)], deny(Neighbour)),
            rule([ne(field("ip6", "hoplimit"), 255)], deny(Neighbour)),
            rule([message(RS), length(8)], accept()),
            rule([message(RS), length(16), option(64, SOURCE_LINK)], by_port()),
            rule([message(NS), length(24)], accept()),
            // Asked whether an address is free.
            rule([message(NS), length(32), eq(field("ip6", "saddr"), "::"), option(192, NONCE)], accept()),
            rule([message(NS), length(32), option(192, SOURCE_LINK)], by_port()),
            rule([message(NS), length(40), option(192, SOURCE_LINK), option(256, NONCE)], by_port()),
            rule([message(NA), length(24)], by_port()),
            rule([message(NA), length(32), option(192, TARGET_LINK)], by_port()),
            deny(Neighbour),
        ],
    );
}

/// What a port may say of itself, given the shapes above.
fn neighbour_of(macs: &[MacAddress], nets: impl IntoIterator<Item = IpNet>) -> Vec<Rule> {
    let message = |kind: u32| eq(field("icmpv6", "type"), kind);
    let macs = || {
        any_of(macs.iter().map(|mac| {
            let [a, b, c, d, e, f] = mac.bytes();
            u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        }))
    };
    let hex = |address: IpAddr| match address {
        IpAddr::V6(address) => format!("0x{:032x}", u128::from(address)),
        IpAddr::V4(_) => String::new(),
    };
    let targets = nets.into_iter().filter(|net| net.addr().is_ipv6()).map(|net| {
        if net.prefix_len() == 128 {
            hex(net.addr()).into()
        } else {
            range(hex(net.network()), hex(net.broadcast()))
        }
    });
    vec![
        rule([message(RS), eq(transport(80, 48), macs())], accept()),
        rule([message(NA), ne(transport(64, 128), any_of(targets))], deny(Neighbour)),
        rule([message(NA), eq(field("ip6", "length"), 24)], accept()),
        rule([eq(field("icmpv6", "type"), any_of([NS, NA])), eq(transport(208, 48), macs())], accept()),
        deny(Neighbour),
    ]
}
