//! Whoever is asked by ARP or neighbour discovery remembers who asked, and all namespaces of a machine remember together.

use std::process::Command;
use std::time::Instant;

use networking::packets::{DropKind, Surroundings};
use protocol::agent::*;

use crate::document::{V4, V6, group, mac, network, out, port};
use crate::frames::{BROADCAST, Card, arp, ether, icmp6, link_option, neighbour};
use crate::world::{World, ip, pings};

const FLOOD: u32 = 5000;
/// As in the module: what a port says per second of addresses of its pairs, and after a pause.
const RATE: usize = 40;
const BURST: usize = 200;

fn remembered(family: &str) -> usize {
    let listed = Command::new("ip").args(["-n", "services", family, "neigh"]).output().unwrap().stdout;
    String::from_utf8(listed).unwrap().lines().count()
}

#[test]
fn a_guest_with_many_addresses_is_remembered_with_few() {
    let world = World::new(Surroundings::default());
    let mut many = port(1, &["10.0.0.11", "fd00::11"], &[1]);
    let pair = |cidr: &str| AddressPair { cidr: cidr.parse().unwrap(), mac: None };
    many.allowed_address_pairs = ["10.0.0.0/8", "fd00::/64"].map(pair).into();
    let want = HostNetwork {
        networks: vec![network(7, &[V4, V6], vec![many, port(2, &["10.0.0.12", "fd00::12"], &[1])])],
        security_groups: vec![group(1, out())],
        ..HostNetwork::default()
    };
    world.guard(&want);
    world.bridge(7);
    for (name, port) in ["a", "b"].into_iter().zip(&want.networks[0].ports) {
        world.guest(name, 7, port, &[]);
    }
    ip("netns add services");
    ip("link add csv7 type veth peer name eth0 netns services");
    ip("link set csv7 master cbr7 up addrgenmode none");
    ip("-n services link set eth0 up");
    ip("-n services address add 10.0.0.2/8 dev eth0");
    ip("-n services address add fd00::2/64 dev eth0 nodad");
    world.converge(&want);

    let (card, me) = (Card::of("a"), mac(1).bytes());
    let ask4 = |number: u32| {
        let [.., c, d] = number.to_be_bytes();
        let asker = format!("10.9.{c}.{d}");
        card.send(&ether(BROADCAST, me, 0x0806, &arp(1, (me, &asker), ([0; 6], "10.0.0.2"))));
    };
    let ask6 = |number: u32| {
        let question = neighbour(0, "fd00::2", &link_option(1, me));
        let body = icmp6(&format!("fd00::9:{number:x}"), "ff02::1:ff00:2", 135, &question);
        card.send(&ether([0x33, 0x33, 0xff, 0, 0, 2], me, 0x86dd, &body));
    };
    for (family, ask) in [("-4", &ask4 as &dyn Fn(u32)), ("-6", &ask6)] {
        let start = Instant::now();
        (0..FLOOD).for_each(ask);
        let few = BURST + RATE * (1 + usize::try_from(start.elapsed().as_secs()).unwrap()) + 10;
        assert!((BURST..few).contains(&remembered(family)), "{} of {few}", remembered(family));
    }
    assert!(world.dropped(DropKind::TooMuch) > 2 * u64::from(FLOOD) / 2, "{:?}", world.drops());
    for guest in ["a", "b"] {
        for service in ["10.0.0.2", "fd00::2"] {
            assert!(pings(guest, service), "{guest} asks with its own address: {:?}", world.drops());
        }
    }
}
