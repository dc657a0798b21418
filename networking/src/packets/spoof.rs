//! The table of the bridge family: what a guest may put on the wire, by its tap, frame by frame.
//!
//! The rules are the same whatever the document says; ports are elements of its sets and maps. A tap that is no
//! element passes nothing, so the table is right before any tap is there. Bridges call the hooks in this order:
//! `prerouting` (ours, then conntrack and [`super::groups`] by br_netfilter), `forward` (ours, then by
//! br_netfilter, then ours again). A frame is handed from one to the next by its mark: the port's until a group
//! allowed it, then [`ALLOWED`]. So nothing passes when the other table, or br_netfilter, is not there.

use std::net::IpAddr;

use ipnet::IpNet;
use protocol::MacAddress;
use serde_json::Value;

use super::drops::DropKind::{self, *};
use super::expr::*;
use super::guests::{ALLOWED, Guest};
use super::ranges::widest;
use super::ruleset::{Datum, Family, Part, Table};
use crate::services::METADATA_ADDRESS;

const KINDS: [DropKind; 15] = [
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
];

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
        table.set(format!("own{family}"), &["ifname", "ether_addr", address]);
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
        let exact = exact.into_iter().map(|net| ("own", net));
        for (set, net) in widest(whole).into_iter().map(|net| ("pairs", net)).chain(exact) {
            let family = if net.addr().is_ipv4() { "4" } else { "6" };
            table.set(format!("{set}{family}"), &[]).add([tap(), Part::word(mac), net.into()]);
        }
    }
    let nets = widest(sources.iter().map(|(_, net)| *net));
    table.chain(chain, neighbour_of(&guest.macs().into_iter().collect::<Vec<_>>(), nets));
}

fn our_links() -> Value {
    any_of(["cri*", "csv*", "cvx*"])
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
            rule([from("ct*".into())], jump("tap")),
            rule([from(our_links()), set_mark(0)], vec![]),
            // Services answer on each host alone, so none of their words comes from another one.
            rule([from("cvx*".into()), eq(field("udp", "sport"), any_of([67, 547]))], deny(DhcpServer)),
            rule([from("cvx*".into()), eq(field("icmpv6", "type"), 134)], deny(RouterAdvertisement)),
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
    let unseen = || [eq(field("ether", "type"), ip()), ne(meta("mark"), ALLOWED)];
    let [is_ip, not_allowed] = unseen();
    let [is_ip_too, not_allowed_either] = unseen();
    // Answers of the metadata service go to the port itself, whoever else may use its address.
    let speaker = || field("arp", "saddr ip");
    let claims_taken = eq(concat([meta("oifname"), speaker()]), "@taken");
    let not_home = ne(concat([meta("iifname"), field("arp", "saddr ether"), speaker()]), "@homes");
    table.hook(
        "forward",
        "filter",
        "forward",
        -300,
        vec![
            rule([eq(meta("iifname"), "ct*"), is_ip, not_allowed], deny(Unfiltered)),
            rule([eq(meta("iifname"), "ct*"), claims_taken, not_home], deny(Arp)),
            rule([to(any_of(["ct*", "cri*", "csv*", "cvx*"])), set_mark(0)], vec![]),
            rule([to("ct*".into()), set_mark(looked_up(&meta("oifname"), "taps"))], vec![]),
            rule([to("ct*".into()), eq(meta("mark"), 0)], deny(UnknownTap)),
        ],
    );
    table.hook(
        "forwarded",
        "filter",
        "forward",
        300,
        vec![
            rule([to("ct*".into()), is_ip_too, not_allowed_either], deny(Unfiltered)),
            rule([to(any_of(["ct*", "cri*", "csv*", "cvx*"])), set_mark(0)], vec![]),
        ],
    );
}

fn of_port<const N: usize>(rest: [Value; N], set: &str) -> Value {
    let mut parts = vec![meta("iifname")];
    parts.extend(rest);
    eq(serde_json::json!({"concat": parts}), format!("@{set}"))
}

fn from_taps(table: &mut Table) {
    let ether = |name: &str| field("ether", name);
    table.chain(
        "tap",
        vec![
            rule([set_mark(0)], vec![]),
            rule([set_mark(looked_up(&meta("iifname"), "taps"))], vec![]),
            rule([eq(meta("mark"), 0)], deny(UnknownTap)),
            rule([eq(masked(&ether("daddr"), "ff:ff:ff:ff:ff:f0"), "01:80:c2:00:00:00")], deny(LinkControl)),
            rule([eq(ether("type"), 0x88cc)], deny(LinkControl)),
            rule([eq(ether("type"), any_of([0x8100, 0x88a8, 0x9100]))], deny(Vlan)),
            rule([ne(concat([meta("iifname"), ether("saddr")]), "@macs")], deny(Mac)),
            rule([eq(ether("type"), "arp")], goto("tap_arp")),
            rule([eq(ether("type"), "ip")], goto("tap_ip4")),
            rule([eq(ether("type"), "ip6")], goto("tap_ip6")),
            deny(Ethertype),
        ],
    );
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
            rule([of_port(speaker(), "own4")], accept()),
            rule([of_port(speaker(), "pairs4")], accept()),
            // A probe whether an address is free (RFC 5227).
            rule(
                [
                    eq(arp("operation"), 1),
                    eq(arp("saddr ip"), "0.0.0.0"),
                    of_port([arp("saddr ether")], "macs"),
                ],
                accept(),
            ),
            deny(Arp),
        ],
    );
    let source4 = || [ether("saddr"), field("ip", "saddr")];
    let not_home = || ne(concat([meta("iifname"), ether("saddr"), field("ip", "saddr")]), "@homes");
    table.chain(
        "tap_ip4",
        vec![
            // A whole TCP or UDP header is in the first fragment of whoever means well (RFC 1858).
            rule(
                [eq(masked(&field("ip", "frag-off"), 0x3fff), 0x2000), less(field("ip", "length"), 68)],
                deny(Fragment),
            ),
            rule([eq(masked(&field("ip", "frag-off"), 0x1fff), 1)], deny(Fragment)),
            rule([eq(field("udp", "sport"), 67)], deny(DhcpServer)),
            rule([eq(field("ip", "saddr"), METADATA_ADDRESS.to_string())], deny(Ipv4Source)),
            // The metadata service knows ports by their own addresses, which others may be allowed to use.
            rule([eq(field("ip", "daddr"), METADATA_ADDRESS.to_string()), not_home()], deny(Ipv4Source)),
            rule([of_port(source4(), "own4")], accept()),
            rule([of_port(source4(), "pairs4")], accept()),
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
        ],
    );
    let source6 = || [ether("saddr"), field("ip6", "saddr")];
    let icmp = || field("icmpv6", "type");
    table.chain(
        "tap_ip6",
        vec![
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
            rule([eq(field("udp", "sport"), 547)], deny(DhcpServer)),
            rule([eq(field("ip6", "saddr"), "::")], goto("tap_unspecified")),
            rule([of_port(source6(), "own6")], jump("tap_ip6_own")),
            rule([of_port(source6(), "pairs6")], jump("tap_ip6_own")),
            deny(Ipv6Source),
        ],
    );
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
