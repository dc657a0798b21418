//! Security groups: what a connection may do, and when it ends.

use networking::packets::{DropKind, Surroundings};
use protocol::agent::*;

use crate::document::{self, V4, V6, group, icmp, ingress, members, network, out, port};
use crate::world::{World, connect, pings, tcp, udp, udp_of};

const A: [&str; 2] = ["10.0.0.11", "fd00::11"];
const B: [&str; 2] = ["10.0.0.12", "fd00::12"];

/// Two guests: `a` in group 1, `b` in group 2.
fn pair(one: Vec<SecurityGroupRule>, two: Vec<SecurityGroupRule>) -> (World, HostNetwork) {
    let world = World::new(Surroundings::default());
    let ports = vec![port(1, &A, &[1]), port(2, &B, &[2])];
    let want = HostNetwork {
        networks: vec![network(7, &[V4, V6], ports)],
        security_groups: vec![group(1, one), group(2, two)],
        ..HostNetwork::default()
    };
    world.guard(&want);
    world.bridge(7);
    for (name, port) in ["a", "b"].into_iter().zip(&want.networks[0].ports) {
        world.guest(name, 7, port, &[]);
    }
    world.converge(&want);
    (world, want)
}

#[test]
fn nothing_comes_in_without_a_rule_and_answers_do() {
    let (world, _) = pair(out(), out());
    for to in B {
        assert!(!tcp("a", "b", to, 80));
        assert!(!udp("a", "b", to, 53));
        assert!(!pings("a", to));
    }
    assert!(world.dropped(DropKind::Ingress) >= 6);
    assert_eq!(world.dropped(DropKind::Unfiltered), 0);
}

#[test]
fn each_protocol_passes_by_its_rule_alone() {
    let rules = [("10.0.0.0/24", 8), ("fd00::/64", 128)].into_iter().flat_map(|(cidr, echo)| {
        [document::tcp(80, 89), document::udp(5000, 5000), icmp(echo)].map(|protocol| ingress(protocol, cidr))
    });
    let (world, _) = pair(out(), rules.collect());
    for to in B {
        assert!(tcp("a", "b", to, 80), "{to}: {:?}", world.drops());
        assert!(tcp("a", "b", to, 89), "{to}");
        assert!(!tcp("a", "b", to, 90), "{to}");
        assert!(udp("a", "b", to, 5000), "{to}: {:?}", world.drops());
        assert!(!udp("a", "b", to, 5001), "{to}");
        assert!(pings("a", to), "{to}: {:?}", world.drops());
    }
    // The rules lead one way only: b may send nothing, and a lets nothing in.
    for to in A {
        assert!(!tcp("b", "a", to, 80));
        assert!(!pings("b", to));
    }
    assert!(world.dropped(DropKind::Egress) >= 2);
    // Fragments are judged whole.
    for to in B {
        assert!(udp_of("a", "b", to, 5000, &[7; 6000]), "{to}: {:?}", world.drops());
        assert!(!udp_of("a", "b", to, 5001, &[7; 6000]), "{to}");
    }
}
