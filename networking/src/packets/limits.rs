//! What one guest may take of what all guests of a host share: the table of connections, and that of neighbours.
//!
//! Counts are kept in meters, sets that the kernel fills by itself: no document is in them, and [`super::plan`] leaves
//! them alone. A meter that is full limits nothing more, so it has room for far more ports than a host ever sees.

use serde_json::Value;

use super::drops::DropKind::TooMuch;
use super::expr::*;
use super::guests::ALLOWED;
use super::ruleset::Table;

/// Connections that a port may have at once in one direction, those about to be forgotten (TCP's TIME-WAIT) aside.
const CONNECTIONS: u32 = 8192;
/// New connections of a port in one direction, per second, and how many at once after a pause. The kernel forgets
/// that many connections by itself while it counts those of a port.
const BEGUN: (u32, u32) = (2000, 4000);
/// New connections of a guest from subnet to subnet. Each may ask for a neighbour, which is remembered for seconds.
const ROUTED: (u32, u32) = (500, 1000);
/// New pings of a card to a router, which asks for a neighbour before it answers. Until then it keeps the answer, in a room
/// for some 150 of them that all routers of the host share.
const PINGED: (u32, u32) = (10, 50);
/// What a port says of addresses that it has by its allowed pairs, in ARP and neighbour discovery, which connection tracking
/// knows nothing of. Whoever is asked remembers each asker for a minute.
const SPOKEN_FOR: (u32, u32) = (40, 200);
/// Keys that a meter has room for: ports that come to a host while it runs, and cards that a router sees. The kernel sets
/// memory aside for them, 16 bytes each.
const PORTS: u32 = 1 << 16;
const CARDS: u32 = 1 << 12;

/// The chain that a connection to ([`super::groups::INGRESS`]) or from ([`super::groups::EGRESS`]) a port goes to when it is
/// allowed.
pub(super) fn allow(direction: &str) -> String {
    format!("allow_{direction}")
}

/// Lets a packet pass, if it begins no connection too many. Until then its mark names the port.
pub(super) fn add_allow(table: &mut Table, direction: &str) {
    let begin = format!("begin_{direction}");
    let mark = || meta("mark");
    let begun = meter(&format!("begun_{direction}"), &mark(), &over(BEGUN), PORTS);
    let open = meter(&format!("open_{direction}"), &mark(), &connections_over(CONNECTIONS), PORTS);
    table
        .chain(allow(direction), vec![rule([is_first()], jump(&begin)), rule([set_mark(ALLOWED)], accept())]);
    table.chain(begin, vec![rule([is_new(), begun], deny(TooMuch)), rule([is_new(), open], deny(TooMuch))]);
}

/// Holds for what a port, named by the mark, says of addresses of its pairs beyond what it may. The name tells meters apart.
pub(super) fn speaks_too_much(name: &str) -> Value {
    meter(name, &meta("mark"), &over(SPOKEN_FOR), PORTS)
}

/// Of a router: drops what begins too many connections, by the card that it comes from.
pub(super) fn routed() -> Rule {
    rule([is_new(), is_first(), meter("routed", &card(), &over(ROUTED), CARDS)], deny(TooMuch))
}

/// Of a router: drops pings to itself beyond what a card may begin, from whatever addresses. Neighbour discovery is of no
/// connection and is not counted.
pub(super) fn pinged() -> Rule {
    rule([is_new(), is_first(), meter("pinged", &card(), &over(PINGED), CARDS)], deny(TooMuch))
}

/// Who sent it, to a router.
fn card() -> Value {
    concat([meta("iifname"), field("ether", "saddr")])
}

fn is_new() -> Value {
    has(ct("state"), "new")
}

/// Holds for the first packet of a connection alone. Those after it are as new as long as nobody answers.
fn is_first() -> Value {
    eq(masked(&ct("status"), "confirmed"), 0)
}

fn meter(name: &str, key: &Value, statement: &Value, room: u32) -> Value {
    serde_json::json!({"meter": {"name": name, "key": key, "stmt": statement, "size": room}})
}

fn over((rate, burst): (u32, u32)) -> Value {
    serde_json::json!({"limit": {"rate": rate, "per": "second", "burst": burst, "inv": true}})
}

fn connections_over(count: u32) -> Value {
    serde_json::json!({"ct count": {"val": count, "inv": true}})
}
