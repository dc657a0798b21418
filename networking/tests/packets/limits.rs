//! What one guest may take of the tables that all guests share.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use networking::packets::{DropKind, Surroundings};
use protocol::agent::*;

use crate::document::{V4, group, ingress, mac, network, out, port};
use crate::frames::{self, Card, Hardware, ether, ip4};
use crate::world::{World, ip, sysctl, tcp};

const A: &str = "10.0.0.11";
const B: &str = "10.0.0.12";
/// As in the module: connections at once, new ones per second, and after a pause.
const OPEN: u64 = 8192;
const RATE: u64 = 2000;
const BURST: u64 = 4000;

/// Guests `a` and `b`, and `far`: the end of what stands for a VXLAN device.
fn world() -> World {
    let world = World::new(Surroundings::default());
    let any = [ingress(RuleProtocol::Any, "0.0.0.0/0")];
    let want = HostNetwork {
        networks: vec![network(7, &[V4], vec![port(1, &[A], &[1]), port(2, &[B], &[1])])],
        security_groups: vec![group(1, [out(), any.into()].concat())],
        ..HostNetwork::default()
    };
    world.guard(&want);
    world.bridge(7);
    for (name, port) in ["a", "b"].into_iter().zip(&want.networks[0].ports) {
        world.guest(name, 7, port, &[]);
    }
    ip("netns add far");
    ip("link add cvx7 type veth peer name eth0 netns far");
    ip("link set cvx7 master cbr7 up addrgenmode none");
    ip("-n far link set eth0 up");
    world.converge(&want);
    sysctl("net/netfilter/nf_conntrack_udp_timeout", "600");
    assert!(tcp("a", "b", B, 80) && tcp("b", "a", A, 80));
    world.converge(&want);
    world
}

fn connections() -> u64 {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap().trim().parse().unwrap()
}

/// Sends the first datagrams of many connections, each from a port of its own.
fn begin(card: &Card, from: (Hardware, &str), to: (Hardware, &str), numbers: std::ops::Range<u64>) {
    for number in numbers {
        let [_, .., a, b, c] = number.to_be_bytes();
        let ports = [u16::from_be_bytes([b, c]), 9000 + u16::from(a)];
        let packet = ip4(from.1, to.1, 17, 0, &frames::udp(ports[0].max(1), ports[1], b"x"));
        card.send(&ether(to.0, from.0, 0x0800, &packet));
    }
}

/// Floods, at first as fast as can be, then a little faster than is allowed.
fn flood(world: &World, card: &Card, from: (Hardware, &str), to: (Hardware, &str)) {
    let start = Instant::now();
    begin(card, from, to, 0..20_000);
    thread::sleep(Duration::from_millis(100));
    let allowed = BURST + RATE * (1 + start.elapsed().as_millis() as u64) / 1000 + 50;
    assert!((BURST..allowed).contains(&connections()), "{} of {allowed}", connections());
    assert!(world.dropped(DropKind::TooMuch) >= 20_000_u64.saturating_sub(allowed), "{:?}", world.drops());
    for round in 0..200 {
        begin(card, from, to, 20_000 + round * 300..20_300 + round * 300);
        thread::sleep(Duration::from_millis(100));
        if round >= 40 && connections() >= OPEN {
            break;
        }
    }
    assert!((OPEN..OPEN + 50).contains(&connections()), "{}", connections());
}

#[test]
fn a_guest_has_no_more_connections_than_one_may() {
    let world = world();
    let [a, b] = [1, 2].map(|number| mac(number).bytes());
    flood(&world, &Card::of("a"), (a, A), (b, B));
    assert!(!tcp("a", "b", B, 80), "one too many");
    assert!(tcp("b", "a", A, 80), "another guest has its own: {:?}", world.drops());
}

#[test]
fn from_outside_a_guest_is_given_no_more_connections_than_one_may_have() {
    let world = world();
    let b = mac(2).bytes();
    flood(&world, &Card::of("far"), ([2, 0, 0, 0, 0, 9], "10.0.0.99"), (b, B));
    assert!(tcp("b", "a", A, 80), "{:?}", world.drops());
}
