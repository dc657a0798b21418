//! From any document to any other: one transaction that nftables takes, and nothing left to do after it.

use std::time::Instant;

use networking::packets::Surroundings;
use protocol::agent::*;

use crate::document::{self, V4, V6, group, ingress, members, network, port, rule};
use crate::world::{World, nft};

/// A small generator of numbers (SplitMix64), so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn some_protocol(dice: &mut Dice) -> RuleProtocol {
    let first = u16::try_from(dice.below(30)).unwrap();
    let last = first + u16::try_from(dice.below(20)).unwrap();
    match dice.below(6) {
        0 => RuleProtocol::Any,
        1 => RuleProtocol::Number { number: u8::try_from(dice.below(256)).unwrap() },
        2 => document::udp(first, last),
        3 => RuleProtocol::Icmp { icmp_type: None, icmp_code: None },
        4 => document::icmp(u8::try_from(dice.below(4)).unwrap()),
        _ => document::tcp(first, last),
    }
}

fn some_rule(dice: &mut Dice) -> SecurityGroupRule {
    let direction = if dice.below(3) == 0 { Direction::Egress } else { Direction::Ingress };
    let protocol = some_protocol(dice);
    let remote = match dice.below(4) {
        0 => members(
            u128::from(20 + dice.below(2)),
            &["10.0.0.11", "10.0.0.12", "fd00::11"][..usize::try_from(dice.below(4)).unwrap()],
        ),
        1 => document::net(
            ["::/0", "fd00::/16", "fd00::/64", "fd00::11/128"][usize::try_from(dice.below(4)).unwrap()],
        ),
        _ => {
            let len = [0, 8, 24, 30, 32][usize::try_from(dice.below(5)).unwrap()];
            document::net(&format!("10.0.0.{}/{len}", dice.below(16)))
        }
    };
    rule(direction, protocol, remote)
}

/// Everything, nets in one another, and exact addresses, among them those of other ports.
fn some_pair(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => "0.0.0.0/0".to_owned(),
        1 => "::/0".to_owned(),
        2 => ["fd00::/16", "fd00::/64", "fd00::7/128", "fe80::/10"][usize::try_from(dice.below(4)).unwrap()]
            .to_owned(),
        3 => format!("10.0.0.{}/32", 1 + dice.below(200)),
        4 => ["0.0.0.0/1", "128.0.0.0/1", "255.255.255.255/32"][usize::try_from(dice.below(3)).unwrap()]
            .to_owned(),
        _ => format!("10.0.0.0/{}", 20 + dice.below(13)),
    }
}

fn some_document(dice: &mut Dice) -> HostNetwork {
    let groups = (1..=4).filter(|_| dice.below(4) > 0).collect::<Vec<u128>>();
    let security_groups: Vec<_> = groups
        .iter()
        .map(|&number| {
            let count = dice.below(8);
            group(number, (0..count).map(|_| some_rule(dice)).collect())
        })
        .collect();
    let networks = (7..10).filter(|_| dice.below(4) > 0).collect::<Vec<u32>>();
    let networks = networks.into_iter().map(|vni| {
        let ports = (1..=3).filter(|_| dice.below(3) > 0).collect::<Vec<u8>>();
        let ports = ports.into_iter().map(|number| {
            let mine: Vec<_> = groups.iter().copied().filter(|_| dice.below(2) == 0).collect();
            let number = number + 10 * u8::try_from(vni).unwrap();
            let mut port = port(number, &[&format!("10.0.0.{}", 1 + dice.below(200)), "fd00::7"], &mine);
            for _ in 0..dice.below(5) {
                let cidr = some_pair(dice).parse().unwrap();
                let mac = (dice.below(2) == 0).then(|| document::mac(200));
                port.allowed_address_pairs.push(AddressPair { cidr, mac });
            }
            port
        });
        network(vni, &[V4, V6], ports.collect())
    });
    let networks = networks.collect();
    let peers = (1..=4_u8).filter(|_| dice.below(2) == 0).map(|last| [192, 0, 2, last].into()).collect();
    HostNetwork { peers, networks, routers: vec![], security_groups }
}

#[test]
fn every_document_follows_every_other() {
    let world = World::new(Surroundings::default());
    let mut dice = Dice(7);
    for round in 0..80 {
        let want = some_document(&mut dice);
        eprintln!("round {round}");
        world.converge(&want);
    }
    world.converge(&HostNetwork::default());
}

#[test]
fn a_look_names_what_was_changed_by_hand_and_changes_nothing() {
    let world = World::new(Surroundings::default());
    let web = group(1, vec![ingress(document::tcp(80, 80), "0.0.0.0/0")]);
    let guest = port(11, &["10.0.0.11"], &[1]);
    let want = HostNetwork {
        security_groups: vec![web],
        networks: vec![network(7, &[V4], vec![guest])],
        ..HostNetwork::default()
    };
    let new = ["make table bridge cumulo", "make table inet cumulo"];
    assert_eq!(world.look(&want), new);
    assert_eq!(world.look(&want), new, "a look changes nothing");
    world.converge(&want);
    for (damage, expected) in [
        (["flush", "map", "inet", "cumulo", "zones"], "add 1 element of set zones in table inet cumulo"),
        (["add", "chain", "bridge", "cumulo", "mine"], "delete chain mine in table bridge cumulo"),
    ] {
        nft(&damage);
        assert_eq!(world.look(&want), [expected]);
        world.converge(&want);
    }
    nft(&["delete", "table", "inet", "cumulo"]);
    assert_eq!(world.look(&want), ["make table inet cumulo"]);
}

#[test]
#[ignore = "a measurement, printed: 500 ports, each in a group of its own with 10 rules"]
fn five_hundred_ports_with_ten_rules_each() {
    let world = World::new(Surroundings::default());
    let addresses: Vec<_> = (0..500_u32).map(|n| format!("10.0.{}.{}", n / 200, 10 + n % 200)).collect();
    let everybody: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut want = HostNetwork::default();
    for vni in 0..50_usize {
        let ports = (0..10).map(|n| {
            let number = vni * 10 + n;
            let mut port = port(1, &[&addresses[number]], &[u128::try_from(number + 1).unwrap()]);
            port.id = document::id(u128::try_from(number + 1).unwrap());
            port.mac = format!("fa:16:3e:01:{:02x}:{:02x}", number / 256, number % 256).parse().unwrap();
            port
        });
        want.networks.push(network(u32::try_from(vni + 1).unwrap(), &[V4], ports.collect()));
    }
    for number in 1..=500_u128 {
        let mut rules: Vec<_> =
            (0..8).map(|n| ingress(document::tcp(1000 + n, 1100 + n), &format!("10.{n}.0.0/16"))).collect();
        rules.push(rule(Direction::Ingress, document::tcp(22, 22), members(1, &everybody)));
        rules.push(rule(Direction::Egress, RuleProtocol::Any, document::net("0.0.0.0/0")));
        want.security_groups.push(group(number, rules));
    }
    let measure = |what: &str, want: &HostNetwork| {
        let start = Instant::now();
        let changed = world.try_converge(want).changed;
        println!("{what}: {} ms, changed: {changed}", start.elapsed().as_millis());
    };
    measure("from nothing", &want);
    let start = Instant::now();
    let listing =
        std::process::Command::new("nft").args(["-n", "-j", "list", "table", "inet", "cumulo"]).output();
    println!("a listing alone: {} ms, {} bytes", start.elapsed().as_millis(), listing.unwrap().stdout.len());
    measure("again", &want);
    want.security_groups[3].rules.remove(0);
    measure("one rule less", &want);
    for group in &mut want.security_groups {
        group.rules[7..].iter_mut().for_each(|rule| {
            if let Remote::Group { addresses, .. } = &mut rule.remote {
                addresses.push("10.9.9.9".parse().unwrap());
            }
        });
    }
    measure("one member more", &want);
    want.networks[0].ports.pop();
    measure("one port less", &want);
}
