//! What a hostile guest puts on the wire: each frame is dropped, and counted by its kind.

use std::time::{Duration, Instant};

use networking::packets::DropKind::{self, *};
use networking::packets::Surroundings;
use protocol::agent::*;

use crate::document::{V4, V6, group, ingress, mac, network, out, port};
use crate::frames::*;
use crate::world::{World, ip, pings, tcp, udp as talks};

const ME: &str = "10.0.0.11";
const ME6: &str = "fd00::11";
const MY_LINK: &str = "fe80::f816:3eff:fe00:1";
const VICTIM: &str = "10.0.0.12";
const VICTIM6: &str = "fd00::12";
const GATEWAY: &str = "10.0.0.1";
const GATEWAY_LINK: &str = "fe80::1";
const HOST: &str = "192.0.2.1";
const ALL_NODES: Hardware = [0x33, 0x33, 0, 0, 0, 1];
const FOREIGN: Hardware = [2, 0, 0, 0, 0, 0x66];
const MARK: &[u8] = b"hostile frame";

/// Guests `a` and `b` that may do whatever a group can allow; the bridge's address is the host's.
fn world() -> (World, HostNetwork) {
    let any = RuleProtocol::Any;
    let rules = [out(), vec![ingress(any, "0.0.0.0/0"), ingress(any, "::/0")]].concat();
    let ports = vec![port(1, &[ME, ME6], &[1]), port(2, &[VICTIM, VICTIM6], &[1])];
    let want = HostNetwork {
        networks: vec![network(7, &[V4, V6], ports)],
        security_groups: vec![group(1, rules)],
        ..HostNetwork::default()
    };
    let world = World::new(Surroundings { underlay: Some(HOST.parse().unwrap()), ..Surroundings::default() });
    world.guard(&want);
    ip(&format!("address add {HOST}/32 dev lo"));
    world.bridge(7);
    for (name, port) in ["a", "b"].into_iter().zip(&want.networks[0].ports) {
        world.guest(name, 7, port, &[]);
    }
    world.converge(&want);
    (world, want)
}

fn bridge_mac() -> Hardware {
    let text = std::process::Command::new("ip").args(["-o", "link", "show", "cbr7"]).output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    let word = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    word.parse::<protocol::MacAddress>().unwrap().bytes()
}

fn corpus() -> Vec<(&'static str, DropKind, Vec<u8>)> {
    let me = mac(1).bytes();
    let victim = mac(2).bytes();
    let host = bridge_mac();
    let data = |from, to| udp(from, to, MARK);
    let four = |body: Vec<u8>| ether(victim, me, 0x0800, &body);
    let six = |body: Vec<u8>| ether(victim, me, 0x86dd, &body);
    let arps = |body: Vec<u8>| ether(BROADCAST, me, 0x0806, &[body, MARK.into()].concat());
    let nd =
        |kind, from: &str, body: Vec<u8>| ether(ALL_NODES, me, 0x86dd, &icmp6(from, "ff02::1", kind, &body));
    let ra = |next: u8, before: &[u8]| {
        let message = icmp6_body(MY_LINK, "ff02::1", 134, &[&[0; 12], MARK].concat());
        ether(ALL_NODES, me, 0x86dd, &ip6(MY_LINK, "ff02::1", next, 255, &[before, &message].concat()))
    };
    let tagged = |kind: u16, body: &[u8]| ether(victim, me, kind, &[&[0, 5][..], body].concat());
    let inner = [&[8, 0][..], &ip4(ME, VICTIM, 17, 0, &data(1000, 1001))].concat();
    let qinq = [&[0x81, 0, 0, 6][..], &inner].concat();
    let ns = |link| neighbour(0, VICTIM6, &link_option(1, link));
    let advert = |target, link| neighbour(0x60, target, &link_option(2, link));
    let padded = |body: Vec<u8>| [body, MARK.into(), vec![0; 32]].concat();
    vec![
        (
            "foreign hardware address",
            Mac,
            ether(victim, FOREIGN, 0x0800, &ip4(ME, VICTIM, 17, 0, &data(1000, 1001))),
        ),
        (
            "the gateway's hardware address",
            Mac,
            ether(victim, [0xfa, 0x16, 0x3e, 0, 0, 0xfe], 0x0806, &arp(2, (me, ME), (victim, VICTIM))),
        ),
        (
            "the victim's hardware address",
            Mac,
            ether(BROADCAST, victim, 0x86dd, &ip6(ME6, "ff02::1", 17, 64, &data(1, 2))),
        ),
        ("foreign IPv4 source", Ipv4Source, four(ip4("10.0.0.99", VICTIM, 17, 0, &data(1000, 1001)))),
        ("the gateway's IPv4 source", Ipv4Source, four(ip4(GATEWAY, VICTIM, 17, 0, &data(1000, 1001)))),
        (
            "unspecified IPv4 source, no DHCP",
            Ipv4Source,
            four(ip4("0.0.0.0", VICTIM, 17, 0, &data(1000, 1001))),
        ),
        ("source of IPv4 multicast", Ipv4Source, four(ip4("224.0.0.1", VICTIM, 17, 0, &data(1000, 1001)))),
        ("foreign source in a later fragment", Ipv4Source, four(ip4("10.0.0.99", VICTIM, 17, 185, MARK))),
        ("foreign IPv6 source", Ipv6Source, six(ip6("fd00::99", VICTIM6, 17, 64, &data(1000, 1001)))),
        ("foreign link-local source", Ipv6Source, six(ip6("fe80::99", VICTIM6, 17, 64, &data(1000, 1001)))),
        ("unspecified IPv6 source", Ipv6Source, six(ip6("::", VICTIM6, 17, 64, &data(1000, 1001)))),
        ("ARP reply for the victim", Arp, arps(arp(2, (me, VICTIM), (victim, ME)))),
        ("ARP request as the gateway", Arp, arps(arp(1, (me, GATEWAY), ([0; 6], VICTIM)))),
        ("gratuitous ARP for the gateway", Arp, arps(arp(2, (me, GATEWAY), (BROADCAST, GATEWAY)))),
        ("ARP with a foreign sender address", Arp, arps(arp(2, (FOREIGN, ME), (victim, VICTIM)))),
        (
            "ARP of a foreign hardware type",
            Arp,
            arps([&[0, 6][..], &arp(2, (me, ME), (victim, VICTIM))[2..]].concat()),
        ),
        ("inverse ARP", Arp, arps(arp(8, (me, ME), (victim, VICTIM)))),
        ("an ARP probe answered for nobody", Arp, arps(arp(2, (me, "0.0.0.0"), (victim, VICTIM)))),
        ("reverse ARP", Ethertype, ether(BROADCAST, me, 0x8035, &arp(4, (me, ME), (victim, VICTIM)))),
        ("DHCP offer", DhcpServer, four(ip4(ME, "255.255.255.255", 17, 0, &data(67, 68)))),
        (
            "DHCP offer from a fragment",
            DhcpServer,
            four(ip4(ME, "255.255.255.255", 17, 0x2000, &udp(67, 68, &[7; 96]))),
        ),
        ("DHCP offer as the service", DhcpServer, four(ip4("10.0.0.2", VICTIM, 17, 0, &data(67, 68)))),
        ("DHCPv6 advertisement", DhcpServer, six(ip6(MY_LINK, VICTIM6, 17, 64, &data(547, 546)))),
        ("router advertisement", RouterAdvertisement, ra(58, &[])),
        (
            "router advertisement behind hop-by-hop options",
            RouterAdvertisement,
            ra(0, &[58, 0, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "router advertisement behind two headers",
            RouterAdvertisement,
            ra(60, &[60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "router advertisement in an atomic fragment",
            RouterAdvertisement,
            ra(44, &[58, 0, 0, 0, 0, 0, 0, 9]),
        ),
        (
            "router advertisement behind options in a fragment",
            ExtensionHeader,
            ra(44, &[60, 0, 0, 1, 0, 0, 0, 9, 58, 0, 1, 4, 0, 0, 0, 0]),
        ),
        ("its second fragment", ExtensionHeader, ra(44, &[60, 0, 0, 8, 0, 0, 0, 9])),
        (
            "routing header",
            ExtensionHeader,
            six(ip6(ME6, VICTIM6, 43, 64, &[&[17, 0, 0, 0, 0, 0, 0, 0][..], &data(1, 2)].concat())),
        ),
        ("headers that are not there", ExtensionHeader, six(ip6(ME6, VICTIM6, 60, 64, &[]))),
        ("headers that lead nowhere", Invalid, six(ip6(ME6, VICTIM6, 60, 64, &[17, 200, 1, 4, 0, 0, 0, 0]))),
        ("redirect", RouterAdvertisement, nd(137, MY_LINK, padded(neighbour(0, GATEWAY_LINK, &[])))),
        ("query for multicast listeners", RouterAdvertisement, nd(130, MY_LINK, vec![0; 20])),
        ("advertisement of the victim's address", Neighbour, nd(136, ME6, advert(VICTIM6, me))),
        ("advertisement of the gateway", Neighbour, nd(136, MY_LINK, advert(GATEWAY_LINK, me))),
        (
            "advertisement without option, of the victim's address",
            Neighbour,
            nd(136, ME6, neighbour(0x60, VICTIM6, &[])),
        ),
        ("advertisement with a foreign link-layer option", Neighbour, nd(136, ME6, advert(ME6, FOREIGN))),
        (
            "advertisement with two options",
            Neighbour,
            nd(136, ME6, [advert(ME6, me), link_option(2, FOREIGN)].concat()),
        ),
        ("solicitation with a foreign link-layer option", Neighbour, nd(135, ME6, ns(FOREIGN))),
        (
            "solicitation with a second option",
            Neighbour,
            nd(135, ME6, [ns(me), link_option(1, FOREIGN)].concat()),
        ),
        (
            "router solicitation with a foreign option",
            Neighbour,
            nd(133, MY_LINK, [vec![0; 4], link_option(1, FOREIGN), MARK.into()].concat()),
        ),
        ("neighbour advertisement behind options", Neighbour, {
            let message = icmp6_body(ME6, "ff02::1", 136, &advert(ME6, FOREIGN));
            ether(
                ALL_NODES,
                me,
                0x86dd,
                &ip6(ME6, "ff02::1", 60, 255, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &message].concat()),
            )
        }),
        ("neighbour advertisement in a fragment", Neighbour, {
            let message = icmp6_body(ME6, "ff02::1", 136, &advert(ME6, FOREIGN));
            ether(
                ALL_NODES,
                me,
                0x86dd,
                &ip6(ME6, "ff02::1", 44, 255, &[&[58, 0, 0, 1, 0, 0, 0, 9][..], &message].concat()),
            )
        }),
        ("solicitation as the victim", Ipv6Source, nd(135, VICTIM6, ns(me))),
        ("VLAN tag", Vlan, tagged(0x8100, &inner)),
        (
            "VLAN tag with ARP",
            Vlan,
            tagged(0x8100, &[&[8, 6][..], &arp(2, (me, GATEWAY), (victim, VICTIM))].concat()),
        ),
        ("QinQ", Vlan, tagged(0x88a8, &qinq)),
        ("two VLAN tags", Vlan, tagged(0x8100, &qinq)),
        ("priority tag", Vlan, ether(victim, me, 0x8100, &[&[0, 0][..], &inner].concat())),
        (
            "spanning tree",
            LinkControl,
            ether([1, 0x80, 0xc2, 0, 0, 0], me, 38, &[&[0x42, 0x42, 3][..], &[0; 35]].concat()),
        ),
        (
            "IPv4 to where spanning tree goes",
            LinkControl,
            ether([1, 0x80, 0xc2, 0, 0, 0], me, 0x0800, &ip4(ME, VICTIM, 17, 0, &data(1000, 1001))),
        ),
        (
            "IPv6 to where spanning tree goes",
            LinkControl,
            ether([1, 0x80, 0xc2, 0, 0, 0], me, 0x86dd, &ip6(ME6, VICTIM6, 17, 64, &data(1000, 1001))),
        ),
        (
            "LLDP to the nearest customer bridge",
            LinkControl,
            ether([1, 0x80, 0xc2, 0, 0, 0], me, 0x88cc, &[2, 7, 4, 1, 2, 3, 4, 5, 6]),
        ),
        ("LLDP to the victim", LinkControl, ether(victim, me, 0x88cc, MARK)),
        ("tiny fragment", Fragment, four(ip4(ME, VICTIM, 6, 0x2000, &[0, 80, 0, 80, 0, 0, 0, 0]))),
        ("overlapping fragment", Fragment, four(ip4(ME, VICTIM, 6, 1, &[MARK, &[7; 20]].concat()))),
        ("overlapping fragment with more to come", Fragment, four(ip4(ME, VICTIM, 17, 0x2001, &[7; 64]))),
        ("unknown ethertype", Ethertype, ether(victim, me, 0x88b5, MARK)),
        ("PPPoE discovery", Ethertype, ether(BROADCAST, me, 0x8863, MARK)),
        ("MPLS", Ethertype, ether(victim, me, 0x8847, MARK)),
        ("an 802.3 frame", Ethertype, ether(victim, me, 60, MARK)),
        ("to the host by its bridge", Host, ether(host, me, 0x0800, &ip4(ME, HOST, 17, 0, &data(1000, 22)))),
        (
            "to the host by broadcast",
            Host,
            ether(BROADCAST, me, 0x0800, &ip4(ME, HOST, 17, 0, &data(1000, 22))),
        ),
        ("VXLAN to the host", Host, ether(host, me, 0x0800, &ip4(ME, HOST, 17, 0, &data(4789, 4789)))),
        (
            "IPv6 to the host by its bridge",
            Host,
            ether(host, me, 0x86dd, &ip6(ME6, "fd99::1", 17, 64, &data(1000, 22))),
        ),
    ]
}

/// The kernel's bridge takes these away before any rule sees them.
fn dropped_by_the_kernel() -> Vec<(&'static str, Vec<u8>)> {
    let (me, victim) = (mac(1).bytes(), mac(2).bytes());
    vec![
        (
            "source of Ethernet multicast",
            ether(victim, ALL_NODES, 0x0800, &ip4(ME, VICTIM, 17, 0, &udp(1, 2, MARK))),
        ),
        ("broadcast as source", ether(victim, BROADCAST, 0x0800, &ip4(ME, VICTIM, 17, 0, &udp(1, 2, MARK)))),
        ("LLDP to the nearest bridge", ether([1, 0x80, 0xc2, 0, 0, 0x0e], me, 0x88cc, MARK)),
        ("pause", ether([1, 0x80, 0xc2, 0, 0, 1], me, 0x8808, MARK)),
    ]
}

#[test]
fn hostile_frames_are_dropped_and_counted_by_kind() {
    let (world, _) = world();
    let (attacker, victim) = (Card::of("a"), Card::of("b"));
    let mut wrong = Vec::new();
    for (name, kind, frame) in corpus() {
        let before = world.drops();
        attacker.send(&frame);
        let until = Instant::now() + Duration::from_millis(500);
        let counted =
            |drops: &[(DropKind, u64)]| drops.iter().find(|(of, _)| *of == kind).map_or(0, |(_, n)| *n);
        let mut after = world.drops();
        while counted(&after) == counted(&before) && Instant::now() < until {
            after = world.drops();
        }
        if counted(&after) != counted(&before) + 1 {
            wrong.push(format!("{name}: expected {kind:?}; before {before:?}, after {after:?}"));
        }
        // A broadcast is every guest's; that it is not the host's is what counts there.
        let arrived = victim.hears(&frame[..frame.len().min(40)], Duration::from_millis(1));
        if arrived && kind != Host {
            wrong.push(format!("{name}: arrived"));
        }
    }
    for (name, frame) in dropped_by_the_kernel() {
        attacker.send(&frame);
        if victim.hears(MARK, Duration::from_millis(100)) {
            wrong.push(format!("{name}: arrived"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.dropped(Unfiltered), 0);
}

#[test]
fn honest_traffic_passes() {
    let (world, _) = world();
    for to in [VICTIM, VICTIM6] {
        assert!(tcp("a", "b", to, 80), "{:?}", world.drops());
        assert!(talks("a", "b", to, 4789), "a guest may use VXLAN among guests");
        assert!(pings("a", to));
    }
    let (me, victim) = (mac(1).bytes(), mac(2).bytes());
    let (a, b) = (Card::of("a"), Card::of("b"));
    let dad = icmp6("::", "ff02::1", 135, &neighbour(0, MY_LINK, &[14, 1, 1, 2, 3, 4, 5, 6]));
    let report = {
        let message = icmp6_body(
            MY_LINK,
            "ff02::16",
            143,
            &[0, 0, 0, 1, 4, 0, 0, 0, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1],
        );
        ip6(MY_LINK, "ff02::16", 0, 1, &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &message].concat())
    };
    for (name, frame) in [
        ("gratuitous ARP", ether(BROADCAST, me, 0x0806, &arp(1, (me, ME), ([0; 6], ME)))),
        ("ARP probe", ether(BROADCAST, me, 0x0806, &arp(1, (me, "0.0.0.0"), ([0; 6], ME)))),
        (
            "unsolicited advertisement",
            ether(
                ALL_NODES,
                me,
                0x86dd,
                &icmp6(ME6, "ff02::1", 136, &neighbour(0x20, ME6, &link_option(2, me))),
            ),
        ),
        (
            "solicitation",
            ether(victim, me, 0x86dd, &icmp6(ME6, VICTIM6, 135, &neighbour(0, VICTIM6, &link_option(1, me)))),
        ),
        (
            "router solicitation",
            ether(
                ALL_NODES,
                me,
                0x86dd,
                &icmp6(MY_LINK, "ff02::2", 133, &[vec![0; 4], link_option(1, me)].concat()),
            ),
        ),
        ("detection of duplicates", ether(ALL_NODES, me, 0x86dd, &dad)),
        ("report of a multicast listener", ether([0x33, 0x33, 0, 0, 0, 0x16], me, 0x86dd, &report)),
    ] {
        let before = world.drops();
        a.send(&frame);
        assert!(
            b.hears(&frame[14..], Duration::from_secs(1)),
            "{name}: before {before:?}, after {:?}",
            world.drops()
        );
    }
}

#[test]
fn further_sources_are_allowed_by_name() {
    let (world, mut want) = world();
    let virtual_mac = [0, 0, 0x5e, 0, 1, 9];
    want.networks[0].ports[0].allowed_address_pairs = vec![
        AddressPair { cidr: "10.0.0.128/25".parse().unwrap(), mac: None },
        AddressPair { cidr: "10.0.0.160/27".parse().unwrap(), mac: None },
        AddressPair { cidr: "fd00::8:0/112".parse().unwrap(), mac: None },
        AddressPair {
            cidr: "10.0.0.50/32".parse().unwrap(),
            mac: protocol::MacAddress::from_bytes(virtual_mac).ok(),
        },
    ];
    world.converge(&want);
    let (me, victim) = (mac(1).bytes(), mac(2).bytes());
    let (a, b) = (Card::of("a"), Card::of("b"));
    let reaches = |from: Hardware, kind: u16, body: Vec<u8>| {
        a.send(&ether(victim, from, kind, &body));
        b.hears(&body[body.len() - 8..], Duration::from_millis(200))
    };
    let four = |source: &str, mark: &[u8; 8]| ip4(source, VICTIM, 17, 0, &udp(1000, 1001, mark));
    assert!(reaches(me, 0x0800, four("10.0.0.130", b"pair one")), "{:?}", world.drops());
    assert!(reaches(me, 0x0800, four("10.0.0.170", b"pair two")));
    assert!(reaches(virtual_mac, 0x0800, four("10.0.0.50", b"its mac.")));
    assert!(!reaches(me, 0x0800, four("10.0.0.50", b"not mine")));
    assert!(!reaches(virtual_mac, 0x0800, four("10.0.0.130", b"not its.")));
    assert!(!reaches(me, 0x0800, four("10.0.0.127", b"no pair.")));
    let advert = |target: &str| icmp6(target, "ff02::1", 136, &neighbour(0x20, target, &link_option(2, me)));
    a.send(&ether(ALL_NODES, me, 0x86dd, &advert("fd00::8:9")));
    assert!(b.hears(&advert("fd00::8:9"), Duration::from_millis(300)), "{:?}", world.drops());
    a.send(&ether(ALL_NODES, me, 0x86dd, &advert("fd00::9:9")));
    assert!(!b.hears(&advert("fd00::9:9"), Duration::from_millis(200)));
    let everything = ["0.0.0.0/0", "::/0"].map(|cidr| AddressPair { cidr: cidr.parse().unwrap(), mac: None });
    want.networks[0].ports[0].allowed_address_pairs.extend(everything);
    world.converge(&want);
    assert!(reaches(me, 0x0800, four("203.0.113.7", b"whatever")), "{:?}", world.drops());
    a.send(&ether(ALL_NODES, me, 0x86dd, &advert("fd00::9:9")));
    assert!(b.hears(&advert("fd00::9:9"), Duration::from_millis(300)), "{:?}", world.drops());
}

#[test]
fn a_tap_without_a_port_passes_nothing() {
    let (world, want) = world();
    let stranger = port(3, &["10.0.0.13"], &[1]);
    world.guest("c", 7, &stranger, &[]);
    assert!(!tcp("c", "b", VICTIM, 80));
    assert!(!tcp("b", "c", "10.0.0.13", 80));
    let (c, b) = (Card::of("c"), Card::of("b"));
    let frame = ether(
        BROADCAST,
        mac(3).bytes(),
        0x0806,
        &arp(1, (mac(3).bytes(), "10.0.0.13"), ([0; 6], "10.0.0.13")),
    );
    c.send(&frame);
    assert!(!b.hears(&frame, Duration::from_millis(200)));
    assert!(world.dropped(UnknownTap) > 0);
    let mut with = want.clone();
    with.networks[0].ports.push(stranger);
    world.converge(&with);
    // Whoever asked in vain asks again after a second.
    ip("-n c neigh flush dev eth0");
    ip("-n b neigh flush dev eth0");
    assert!(tcp("c", "b", VICTIM, 80), "{:?}", world.drops());
    world.converge(&want);
    assert!(!tcp("c", "b", VICTIM, 80));
}

#[test]
fn nothing_passes_while_br_netfilter_is_not_asked() {
    let (world, _) = world();
    assert!(tcp("a", "b", VICTIM, 80));
    ip("link set cbr7 type bridge nf_call_iptables 0 nf_call_ip6tables 0");
    if std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|on| on.trim() == "1")
    {
        crate::world::sysctl("net/bridge/bridge-nf-call-iptables", "0");
        crate::world::sysctl("net/bridge/bridge-nf-call-ip6tables", "0");
    }
    assert!(!tcp("a", "b", VICTIM, 80));
    assert!(world.dropped(Unfiltered) > 0);
}
