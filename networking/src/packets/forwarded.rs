//! What the host forwards: between routers and the world outside, and from there through itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use protocol::agent::HostNetwork;
use serde_json::Value;

use super::drops::DropKind::*;
use super::expr::*;
use super::host::{TO_TAP, VXLAN_PORT};
use super::ruleset::{Part, Table};
use crate::names;

/// Between routers and their hosts: [`protocol::agent::Router::transit`].
const TRANSIT: (&str, u8) = ("100.64.0.0", 10);
/// From where clients connect (`net.ipv4.ip_local_port_range`), without the ports of libvirt's migrations. Packets of
/// guests that leave with the host's address come from the first range.
const CLIENT_PORTS: [(u32, u32); 2] = [(32_768, 49_151), (49_216, 60_999)];

pub(super) fn add(
    table: &mut Table,
    want: &HostNetwork,
    protected: &BTreeSet<IpNet>,
    outside: &BTreeSet<String>,
) {
    routers(table, want, protected);
    through_host(table, outside);
}

/// What routers send out by the host. They keep to the same limits themselves: see [`super::router`].
fn routers(table: &mut Table, want: &HostNetwork, protected: &BTreeSet<IpNet>) {
    table.set("router_sources", &["ifname", "ipv4_addr"]);
    table.set("floating", &["ipv4_addr"]);
    declare_protected(table, protected);
    for router in want.routers.iter().filter(|router| router.external) {
        let uplink = Part::word(names::router_uplink(router.id));
        table.set("router_sources", &[]).add([uplink.clone(), router.transit().1.into()]);
        for floating in &router.floating_ips {
            if let IpAddr::V4(address) = floating.address {
                table.set("router_sources", &[]).add([uplink.clone(), address.into()]);
                table.set("floating", &[]).add([address.into()]);
            }
        }
    }
    let original = || eq(ct("direction"), "original");
    table.hook(
        "forward",
        "filter",
        "forward",
        -10,
        vec![
            // Frames within a network, which are most.
            rule([eq(meta("iifname"), "cbr*"), eq(meta("oifname"), "cbr*")], goto(TO_TAP)),
            rule([eq(meta("iifname"), "cre*")], jump("from_router")),
            rule([eq(meta("oifname"), "cre*")], goto("to_router")),
            rule([eq(meta("iifname"), "@outside")], jump("through")),
            rule([eq(meta("iifname"), "cbr*")], goto(TO_TAP)),
        ],
    );
    table.chain(
        "from_router",
        vec![
            rule([eq(meta("nfproto"), "ipv6")], deny(RouterSource)),
            rule(
                [ne(concat([meta("iifname"), field("ip", "saddr")]), "@router_sources")],
                deny(RouterSource),
            ),
            rule([has(ct("state"), "invalid")], deny(Invalid)),
            rule([eq(field("udp", "dport"), VXLAN_PORT)], deny(Underlay)),
            rule([eq(ct_original("ip daddr"), "@floating")], ret()),
            rule([original(), eq(ct_original("ip daddr"), "@protected4")], deny(Protected)),
            // The host may lead what it was sent elsewhere.
            rule([original(), eq(field("ip", "daddr"), "@protected4")], deny(Protected)),
        ],
    );
    table.chain(
        "to_router",
        vec![
            rule([has(ct("state"), "invalid")], deny(Invalid)),
            // Whoever forges such a source would lead the guest's answers there.
            rule(
                [original(), ne(meta("iifname"), "cre*"), eq(field("ip", "saddr"), "@protected4")],
                jump("from_protected"),
            ),
            rule([original(), ne(field("ip", "daddr"), "@floating")], deny(Unsolicited)),
        ],
    );
    // Guests of other hosts come with the address of theirs, from where no server of it listens.
    let peer = || eq(field("ip", "saddr"), "@peers4");
    let client = eq(field("th", "sport"), any_of(CLIENT_PORTS.map(|(first, last)| range(first, last))));
    table.chain(
        "from_protected",
        vec![
            rule([peer(), tcp_or_udp(), client], ret()),
            rule([peer(), eq(field("icmp", "type"), 8)], ret()),
            deny(Protected),
        ],
    );
    masquerade(table);
}

fn tcp_or_udp() -> Value {
    eq(meta("l4proto"), any_of([6, 17]))
}

fn masquerade(table: &mut Table) {
    let outward = || {
        [
            eq(meta("iifname"), "cre*"),
            ne(meta("oifname"), "cre*"),
            eq(field("ip", "saddr"), prefix(TRANSIT.0, TRANSIT.1)),
        ]
    };
    let [first, last] = [CLIENT_PORTS[0].0, CLIENT_PORTS[0].1];
    let as_client = serde_json::json!({"masquerade": {"port": range(first, last)}});
    let [from, to, source] = outward();
    table.hook(
        "masquerade",
        "nat",
        "postrouting",
        100,
        vec![
            rule([from, to, source, tcp_or_udp()], vec![as_client]),
            rule(outward(), vec![serde_json::json!({"masquerade": null})]),
        ],
    );
}

/// Forwarding is on where packets of routers come in, which is no way to what is protected. Whatever the host leads
/// on by itself, for an address that it stands for or for a group, stays as it is.
fn through_host(table: &mut Table, outside: &BTreeSet<String>) {
    let set = table.set("outside", &["ifname"]);
    for device in outside {
        set.add([Part::word(device)]);
    }
    table.chain(
        "through",
        vec![rule(
            [
                eq(ct("direction"), "original"),
                eq(masked(&ct("status"), "dnat"), 0),
                ne(field("ip", "daddr"), prefix("224.0.0.0", 3)),
                eq(field("ip", "daddr"), "@protected4"),
            ],
            deny(Protected),
        )],
    );
}

/// Where routers forward nothing to.
pub(super) fn declare_protected(table: &mut Table, protected: &BTreeSet<IpNet>) {
    let set = table.intervals("protected4", &["ipv4_addr"]);
    for net in protected.iter().filter(|net| net.addr().is_ipv4()) {
        set.add([(*net).into()]);
    }
}
