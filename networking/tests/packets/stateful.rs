//! Security groups: what a connection may do, and when it ends.

use networking::packets::{DropKind, Surroundings};
use protocol::agent::*;

use crate::document::{self, V4, V6, group, icmp, ingress, members, network, out, port};
use crate::world::{World, connect, nft, pings, tcp, udp, udp_of};

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

#[test]
fn a_net_allows_those_in_it_alone() {
    let (world, mut want) = pair(out(), vec![ingress(document::tcp(80, 80), "10.0.0.12/31")]);
    assert!(!tcp("a", "b", B[0], 80));
    let rules = &mut want.security_groups[1].rules;
    // Overlapping nets and ports: the wider one, the narrower one, and everything from one address.
    rules.push(ingress(document::tcp(80, 443), "10.0.0.0/28"));
    rules.push(ingress(document::tcp(400, 500), "10.0.0.8/29"));
    rules.push(ingress(RuleProtocol::Number { number: 6 }, "10.0.0.11/32"));
    world.converge(&want);
    for port in [80, 443, 500, 9000] {
        assert!(tcp("a", "b", B[0], port), "{port}: {:?}", world.drops());
    }
    want.security_groups[1].rules.pop();
    world.converge(&want);
    assert!(tcp("a", "b", B[0], 500));
    assert!(!tcp("a", "b", B[0], 9000));
    assert!(!tcp("a", "b", B[1], 80));
}

#[test]
fn members_of_a_group_come_and_go() {
    let by_group = |addresses: &[&str]| {
        let protocols = [document::tcp(80, 80), RuleProtocol::Icmp { icmp_type: None, icmp_code: None }];
        protocols.map(|protocol| document::rule(Direction::Ingress, protocol, members(9, addresses))).to_vec()
    };
    let (world, mut want) = pair(out(), by_group(&["10.0.0.99"]));
    assert!(!tcp("a", "b", B[0], 80));
    want.security_groups[1].rules = by_group(&["10.0.0.99", A[0], A[1]]);
    world.converge(&want);
    for to in B {
        let address = std::net::SocketAddr::new(to.parse().unwrap(), 80);
        let (mut wire, _) = connect("a", "b", address, address).expect("a member may connect");
        assert!(pings("a", to), "{:?}", world.drops());
        assert!(!tcp("a", "b", to, 81));
        assert!(wire.carries());
        let mut without = want.clone();
        without.security_groups[1].rules = by_group(&["10.0.0.99"]);
        world.converge(&without);
        assert!(!wire.carries(), "the member left, and its connection goes on");
        world.converge(&want);
    }
    // Any protocol, and one by its number, from members.
    for protocol in [RuleProtocol::Any, RuleProtocol::Number { number: 6 }] {
        let any = document::rule(Direction::Ingress, protocol, members(9, &A));
        want.security_groups[1].rules = vec![any];
        world.converge(&want);
        assert!(tcp("a", "b", B[0], 4000), "{:?}", world.drops());
    }
    assert!(!pings("a", B[0]));
}

#[test]
fn a_removed_rule_ends_its_connections_either_way() {
    let (world, want) = pair(out(), vec![ingress(document::tcp(80, 80), "0.0.0.0/0")]);
    let address = std::net::SocketAddr::new(B[0].parse().unwrap(), 80);
    for removed_from in [0, 1] {
        let (mut wire, _) = connect("a", "b", address, address).unwrap();
        let mut without = want.clone();
        without.security_groups[removed_from].rules.clear();
        world.converge(&without);
        assert!(!wire.carries(), "rules of group {removed_from} are gone");
        world.converge(&want);
        assert!(connect("a", "b", address, address).is_some());
    }
    // A port that leaves its group loses them as well.
    let (mut wire, _) = connect("a", "b", address, address).unwrap();
    let mut without = want;
    without.networks[0].ports[1].security_groups.clear();
    world.converge(&without);
    assert!(!wire.carries());
}

#[test]
fn networks_with_the_same_addresses_stay_apart() {
    let (world, mut want) = pair(out(), vec![ingress(document::udp(5000, 5000), "0.0.0.0/0")]);
    let ports = vec![port(3, &A, &[1]), port(4, &B, &[1])];
    want.networks.push(network(8, &[V4, V6], ports));
    world.guard(&want);
    world.bridge(8);
    for (name, port) in ["c", "d"].into_iter().zip(&want.networks[1].ports) {
        world.guest(name, 8, port, &[]);
    }
    world.converge(&want);
    // The same five numbers, open in one network and closed in the other; large ones come in fragments with the
    // same identification.
    for _ in 0..3 {
        assert!(udp_of("a", "b", B[0], 5000, &[1; 3000]), "{:?}", world.drops());
        assert!(!udp_of("c", "d", B[0], 5000, &[2; 3000]));
    }
    assert!(!udp("a", "d", B[0], 5000));
    want.security_groups[0].rules.push(ingress(RuleProtocol::Any, "10.0.0.0/24"));
    world.converge(&want);
    assert!(udp_of("c", "d", B[0], 5000, &[2; 3000]));
    assert!(udp_of("a", "b", B[0], 5000, &[1; 3000]));
}

#[test]
fn what_somebody_takes_away_is_made_again() {
    let (world, want) = pair(out(), vec![ingress(document::tcp(80, 80), "0.0.0.0/0")]);
    assert!(tcp("a", "b", B[0], 80));
    for damage in [
        &["flush", "chain", "bridge", "cumulo", "tap"][..],
        &["flush", "chain", "inet", "cumulo", "ingress"],
        &["flush", "map", "bridge", "cumulo", "taps"],
        &["flush", "chain", "inet", "cumulo", "from_tap"],
        &["delete", "table", "inet", "cumulo"],
        &["delete", "table", "bridge", "cumulo"],
        &["flush", "ruleset"],
    ] {
        nft(damage);
        // Without the table of the bridge there is nothing left that could fail closed.
        if !damage.contains(&"ruleset") && damage != ["delete", "table", "bridge", "cumulo"] {
            assert!(!tcp("a", "b", B[0], 80), "{damage:?} opened the way");
        }
        assert!(world.try_converge(&want).changed, "{damage:?} was not seen");
        world.converge(&want);
        assert!(tcp("a", "b", B[0], 80), "after {damage:?}: {:?}", world.drops());
        assert!(!tcp("a", "b", B[0], 81), "after {damage:?}");
    }
    for addition in [
        &["insert", "rule", "inet", "cumulo", "ingress", "accept"][..],
        &["add", "element", "inet", "cumulo", "peers4", "{ 192.0.2.9 comment \"mine\" }"],
        &["add", "element", "inet", "cumulo", "protected4", "{ 192.0.2.16-192.0.2.18 }"],
        &["add", "chain", "inet", "cumulo", "theirs", "{ type filter hook input priority 0; }"],
        &["add", "set", "bridge", "cumulo", "theirs", "{ type ipv4_addr; }"],
    ] {
        nft(addition);
        assert!(world.try_converge(&want).changed, "{addition:?} was not seen");
        world.converge(&want);
    }
    assert!(!tcp("a", "b", B[0], 81));
}

#[test]
fn removal_takes_our_tables_and_no_others() {
    let (world, _) = pair(out(), vec![ingress(document::tcp(80, 80), "0.0.0.0/0")]);
    nft(&["add", "table", "inet", "theirs"]);
    for _ in 0..2 {
        world.remove();
        assert_eq!(nft(&["list", "tables"]), "table inet theirs\n");
    }
}

#[test]
fn a_group_that_cannot_be_made_closes_its_ports_alone() {
    let (world, mut want) = pair(out(), vec![ingress(document::tcp(80, 80), "0.0.0.0/0")]);
    want.networks[0].ports.push(port(3, &["10.0.0.13"], &[3]));
    want.security_groups.push(group(3, vec![ingress(document::tcp(80, 80), "0.0.0.0/0")]));
    world.guest("c", 7, &want.networks[0].ports[2], &[]);
    world.converge(&want);
    assert!(tcp("a", "c", "10.0.0.13", 80));
    want.security_groups[2].rules.push(ingress(document::tcp(90, 80), "0.0.0.0/0"));
    let subjects: Vec<_> = world.try_converge(&want).faults.iter().map(|fault| fault.subject).collect();
    let (port, group) = (want.networks[0].ports[2].id, want.security_groups[2].id);
    assert_eq!(subjects, [NetworkSubject::Port(port), NetworkSubject::SecurityGroup(group)]);
    assert!(!tcp("a", "c", "10.0.0.13", 80));
    assert!(tcp("a", "b", B[0], 80));
}
