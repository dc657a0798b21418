//! The table in a router's namespace: addresses translated on the way out and in, and where nothing may go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use protocol::agent::{NetworkFault, NetworkSubject, Router};
use serde_json::{Value, json};

use super::drops::DropKind::{self, *};
use super::expr::*;
use super::forwarded::declare_protected;
use super::host::VXLAN_PORT;
use super::limits;
use super::ruleset::{Datum, Family, Table};
use crate::names::ROUTER_EXTERNAL;

const KINDS: [DropKind; 6] = [Host, Invalid, Underlay, Protected, Unsolicited, TooMuch];

/// The table, and floating IPs that cannot be in it.
pub(super) fn table(router: &Router, protected: &BTreeSet<IpNet>) -> (Table, Vec<NetworkFault>) {
    let mut table = Table::new(Family::Inet, &KINDS);
    declare_protected(&mut table, protected);
    forward(&mut table);
    to_router(&mut table);
    let faults = translate(&mut table, router);
    (table, faults)
}

fn inward(key: &str) -> Value {
    eq(meta(key), ROUTER_EXTERNAL)
}

fn forward(table: &mut Table) {
    table.hook(
        "forward",
        "filter",
        "forward",
        0,
        vec![
            rule([inward("oifname")], goto("outward")),
            rule([inward("iifname")], goto("inward")),
            limits::routed(),
        ],
    );
    let original = || eq(ct("direction"), "original");
    table.chain(
        "outward",
        vec![
            rule([eq(meta("nfproto"), "ipv6")], deny(Protected)),
            // It would leave with the guest's own address. Inside, one router may see only half of a connection.
            rule([has(ct("state"), "invalid")], deny(Invalid)),
            rule([eq(field("udp", "dport"), VXLAN_PORT)], deny(Underlay)),
            rule([original(), eq(field("ip", "daddr"), "@protected4")], deny(Protected)),
        ],
    );
    table.chain(
        "inward",
        vec![
            rule([eq(ct("direction"), "reply")], accept()),
            rule([has(ct("status"), "dnat")], accept()),
            deny(Unsolicited),
        ],
    );
}

/// A router answers pings, and nothing else.
fn to_router(table: &mut Table) {
    table.hook(
        "input",
        "filter",
        "input",
        0,
        vec![
            rule([eq(meta("iifname"), "lo")], accept()),
            rule([ne(meta("l4proto"), any_of([1, 58]))], deny(Host)),
            limits::pinged(),
            accept(),
        ],
    );
}

fn translate(table: &mut Table, router: &Router) -> Vec<NetworkFault> {
    table.map("floating", &["ipv4_addr"], "ipv4_addr");
    table.map("fixed", &["ipv4_addr"], "ipv4_addr");
    let mut faults = Vec::new();
    for floating in router.floating_ips.iter().filter(|_| router.external) {
        let (IpAddr::V4(address), IpAddr::V4(fixed)) = (floating.address, floating.fixed_address) else {
            let detail =
                format!("floating IP {} cannot stand for {}", floating.address, floating.fixed_address);
            faults.push(NetworkFault { subject: NetworkSubject::Port(floating.port_id), detail });
            continue;
        };
        table.map("floating", &[], "").put([address.into()], Datum::Address(fixed));
        table.map("fixed", &[], "").put([fixed.into()], Datum::Address(address));
    }
    let to = |verb: &str, address: Value| vec![json!({verb: {"family": "ip", "addr": address}})];
    let by_map = |end: &str, map: &str| looked_up(&field("ip", end), map);
    let transit = || json!(router.transit().1);
    // From inside too: a guest may use the floating IP of another one, or its own.
    table.hook("to_fixed", "nat", "prerouting", -100, vec![to("dnat", by_map("daddr", "floating"))]);
    let inside_again = || {
        [
            ne(meta("iifname"), ROUTER_EXTERNAL),
            ne(meta("oifname"), ROUTER_EXTERNAL),
            has(ct("status"), "dnat"),
        ]
    };
    let from_router = if router.external {
        vec![
            rule([inward("oifname")], to("snat", by_map("saddr", "fixed"))),
            rule([inward("oifname"), eq(meta("nfproto"), "ipv4")], to("snat", transit())),
            // The answer has to come back by this router.
            rule(inside_again(), to("snat", by_map("saddr", "fixed"))),
            rule(inside_again(), to("snat", transit())),
        ]
    } else {
        vec![]
    };
    table.hook("from_router", "nat", "postrouting", 100, from_router);
    faults
}
