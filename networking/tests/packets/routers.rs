//! Routers: addresses translated on the way out and in, and where guests may not go.

use std::net::SocketAddr;

use networking::names;
use networking::packets::{DropKind, Surroundings};
use protocol::agent::*;

use crate::document::{V4, group, id, ingress, mac, network, out, port};
use crate::frames::{self, Card};
use crate::world::{World, connect, inside, ip, nft, pings, sysctl, tcp, udp};

const A: &str = "10.0.0.11";
const B: &str = "10.0.1.12";
const OTHER: (&str, &str) = ("10.0.1.0/24", "10.0.1.2");
const FLOATING_A: &str = "203.0.113.11";
const FLOATING_B: &str = "203.0.113.12";
const HOST: &str = "198.51.100.1";
const OUTSIDE: &str = "198.51.100.9";
const UNDERLAY_PEER: &str = "198.51.100.200";

/// How the host is connected, by `up0` to the outside.
fn surroundings() -> Surroundings {
    Surroundings {
        underlay: Some(HOST.parse().unwrap()),
        protected: vec![
            "198.51.100.128/25".parse().unwrap(),
            "192.0.2.0/25".parse().unwrap(),
            "203.0.113.0/24".parse().unwrap(),
        ],
        external: Some("up0".to_owned()),
    }
}

/// Guests `a` and `b` in two networks behind one router; `b` has a floating IP. `outside` is beyond the host.
fn world(rules: Vec<SecurityGroupRule>) -> (World, HostNetwork) {
    world_in(surroundings(), rules)
}

fn world_in(surroundings: Surroundings, rules: Vec<SecurityGroupRule>) -> (World, HostNetwork) {
    let world = World::new(surroundings);
    let interface = |number: u8, address: &str| RouterInterface {
        id: id(u128::from(number)),
        network_id: id(number.into()),
        subnet_id: id(1),
        address: address.parse().unwrap(),
        mac: mac(0xf0 + number),
    };
    let floating = |number: u128, address: &str, fixed: &str| FloatingIp {
        id: id(number),
        address: address.parse().unwrap(),
        port_id: id(number),
        fixed_address: fixed.parse().unwrap(),
    };
    let router = Router {
        id: id(1),
        number: 5,
        interfaces: vec![interface(7, "10.0.0.1/24"), interface(8, "10.0.1.1/24")],
        external: true,
        routes: vec![],
        floating_ips: vec![floating(2, FLOATING_B, B)],
    };
    let want = HostNetwork {
        networks: vec![
            network(7, &[V4], vec![port(1, &[A], &[1])]),
            network(8, &[OTHER], vec![port(2, &[B], &[1])]),
        ],
        routers: vec![router],
        security_groups: vec![group(1, [out(), rules].concat())],
        ..HostNetwork::default()
    };
    world.guard(&want);
    for (name, network, gateway) in
        [("a", &want.networks[0], "10.0.0.1"), ("b", &want.networks[1], "10.0.1.1")]
    {
        world.bridge(network.vni.get());
        world.guest(name, network.vni.get(), &network.ports[0], &[gateway.parse().unwrap()]);
    }
    make_router(&want.routers[0]);
    ip("netns add outside");
    ip("link add up0 type veth peer name eth0 netns outside");
    ip(&format!("address add {HOST}/24 dev up0"));
    ip("link set up0 up");
    ip("-n outside link set lo up");
    for address in [OUTSIDE, UNDERLAY_PEER] {
        ip(&format!("-n outside address add {address}/24 dev eth0"));
    }
    ip("-n outside link set eth0 up");
    ip(&format!("-n outside route add 203.0.113.0/24 via {HOST}"));
    world.converge(&want);
    (world, want)
}

fn make_router(router: &Router) {
    let namespace = names::router_namespace(router.id);
    let uplink = names::router_uplink(router.id);
    ip(&format!("netns add {namespace}"));
    inside(&namespace, || sysctl("net/ipv4/ip_forward", "1"));
    for (interface, vni) in router.interfaces.iter().zip([7, 8]) {
        add_interface(&namespace, vni, interface);
    }
    let (host, router_end) = router.transit();
    ip(&format!("link add {uplink} type veth peer name external netns {namespace}"));
    ip(&format!("address add {host}/31 dev {uplink}"));
    ip(&format!("link set {uplink} up"));
    ip(&format!("-n {namespace} address add {router_end}/31 dev external"));
    ip(&format!("-n {namespace} link set external up"));
    ip(&format!("-n {namespace} route add default via {host}"));
    for floating in [FLOATING_A, FLOATING_B] {
        ip(&format!("route add {floating}/32 via {router_end} dev {uplink}"));
    }
}

fn add_interface(namespace: &str, vni: u32, interface: &RouterInterface) {
    let (link, inner) = (names::router_link(interface.id), names::router_interface(interface.id));
    ip(&format!("link add {link} type veth peer name {inner} netns {namespace}"));
    ip(&format!("link set {link} master cbr{vni} up addrgenmode none"));
    ip(&format!("-n {namespace} link set {inner} address {} up", interface.mac));
    ip(&format!("-n {namespace} address add {} dev {inner}", interface.address));
}

/// Whom the server of the connection saw, by its address.
fn seen_by(from: &str, to: &str, listen: &str, target: &str) -> Option<String> {
    let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 80);
    connect(from, to, at(listen), at(target)).map(|(_, peer)| peer.ip().to_string())
}

fn web() -> Vec<SecurityGroupRule> {
    vec![ingress(crate::document::tcp(80, 80), "0.0.0.0/0")]
}

#[test]
fn guests_go_out_with_the_hosts_address_or_their_own() {
    let (world, _) = world(web());
    assert_eq!(seen_by("a", "outside", OUTSIDE, OUTSIDE).as_deref(), Some(HOST), "{:?}", world.drops());
    assert_eq!(seen_by("b", "outside", OUTSIDE, OUTSIDE).as_deref(), Some(FLOATING_B), "{:?}", world.drops());
    assert!(pings("a", OUTSIDE));
    assert!(udp("a", "outside", OUTSIDE, 53));
    // Between the networks nothing is translated.
    assert_eq!(seen_by("a", "b", B, B).as_deref(), Some(A), "{:?}", world.drops());
}

/// Such a connection crosses one bridge, and so one conntrack zone, twice.
#[test]
fn two_subnets_of_a_network_meet_at_their_router() {
    let (world, mut want) = world(web());
    let third = RouterInterface {
        id: id(9),
        network_id: id(7),
        subnet_id: id(2),
        address: "10.0.2.1/24".parse().unwrap(),
        mac: mac(0xf9),
    };
    want.networks[0].ports.push(port(3, &["10.0.2.13"], &[1]));
    add_interface(&names::router_namespace(want.routers[0].id), 7, &third);
    want.routers[0].interfaces.push(third);
    world.guest("c", 7, &want.networks[0].ports[1], &["10.0.2.1".parse().unwrap()]);
    world.converge(&want);
    assert_eq!(seen_by("a", "c", "10.0.2.13", "10.0.2.13").as_deref(), Some(A), "{:?}", world.drops());
    assert!(!udp("a", "c", "10.0.2.13", 5000));
    assert!(tcp("c", "b", B, 80), "{:?}", world.drops());
}

#[test]
fn a_floating_ip_leads_in_from_everywhere() {
    let (world, mut want) = world(web());
    assert_eq!(seen_by("outside", "b", B, FLOATING_B).as_deref(), Some(OUTSIDE), "{:?}", world.drops());
    // From another guest behind the same router, which has none, and then has one; and from itself.
    let transit = want.routers[0].transit().1.to_string();
    assert_eq!(seen_by("a", "b", B, FLOATING_B), Some(transit), "{:?}", world.drops());
    assert_eq!(seen_by("b", "b", B, FLOATING_B).as_deref(), Some(FLOATING_B), "{:?}", world.drops());
    want.routers[0].floating_ips.push(FloatingIp {
        id: id(1),
        address: FLOATING_A.parse().unwrap(),
        port_id: id(1),
        fixed_address: A.parse().unwrap(),
    });
    world.converge(&want);
    assert_eq!(seen_by("a", "b", B, FLOATING_B).as_deref(), Some(FLOATING_A), "{:?}", world.drops());
    // From the host itself.
    let at = SocketAddr::new(FLOATING_B.parse().unwrap(), 80);
    let listener = inside("b", || std::net::TcpListener::bind((B, 80)).unwrap());
    assert!(std::net::TcpStream::connect_timeout(&at, crate::world::SHORT).is_ok(), "{:?}", world.drops());
    drop(listener);
    // Only what the port's groups allow.
    assert!(!pings("outside", FLOATING_B));
    want.routers[0].floating_ips.clear();
    world.converge(&want);
    assert_eq!(seen_by("outside", "b", B, FLOATING_B), None);
}

#[test]
fn guests_reach_neither_the_host_nor_what_is_protected() {
    let (world, want) = world(web());
    let listen = |address: &str| std::net::TcpListener::bind((address, 80)).unwrap();
    let (_host, _transit) = (listen(HOST), listen(&want.routers[0].transit().0.to_string()));
    let reaches = |address: &str| {
        let at = SocketAddr::new(address.parse().unwrap(), 80);
        inside("a", || std::net::TcpStream::connect_timeout(&at, crate::world::SHORT).is_ok())
    };
    // The host's underlay address is protected; its others answer no guest.
    assert!(!reaches(HOST));
    assert!(!reaches("100.64.0.10"));
    assert!(!tcp("a", "outside", UNDERLAY_PEER, 80));
    assert!(!reaches("169.254.1.1"));
    assert!(world.dropped(DropKind::Protected) >= 4, "{:?}", world.drops());
    ip("address add 192.0.2.177/32 dev lo");
    let _other = listen("192.0.2.177");
    let before = world.dropped(DropKind::Host);
    assert!(!reaches("192.0.2.177"));
    assert!(world.dropped(DropKind::Host) > before, "{:?}", world.drops());
    // VXLAN out of a router would carry the address of a peer.
    assert!(!udp("a", "outside", OUTSIDE, 4789));
    assert!(world.dropped(DropKind::Underlay) > 0, "{:?}", world.drops());
}

#[test]
fn the_host_lets_nothing_out_of_a_router_without_its_rules() {
    let (world, want) = world(web());
    let namespace = names::router_namespace(want.routers[0].id);
    let run = |words: &str| ip(&format!("netns exec {namespace} nft {words}"));
    run("delete table inet cumulo");
    assert_eq!(seen_by("a", "outside", OUTSIDE, OUTSIDE), None);
    assert!(world.dropped(DropKind::RouterSource) > 0, "{:?}", world.drops());
    assert!(world.try_converge(&want).changed);
    world.converge(&want);
    assert_eq!(seen_by("a", "outside", OUTSIDE, OUTSIDE).as_deref(), Some(HOST), "{:?}", world.drops());
    // From outside, as a router would: neither networks nor transit.
    ip(&format!("-n outside route add 10.0.0.0/16 via {HOST}"));
    ip(&format!("-n outside route add 100.64.0.0/10 via {HOST}"));
    assert_eq!(seen_by("outside", "b", B, B), None);
    assert!(!pings("outside", "100.64.0.11"));
    assert!(world.dropped(DropKind::Unsolicited) > 0, "{:?}", world.drops());
}

#[test]
fn a_guest_that_scans_through_its_router_is_slowed_down_alone() {
    let (world, _) = world(web());
    let card = Card::of("a");
    let gateway = [0xfa, 0x16, 0x3e, 0, 0, 0xf7];
    let start = std::time::Instant::now();
    for number in 0..3000_u16 {
        let to = format!("10.0.1.{}", 20 + number % 200);
        let packet = frames::ip4(A, &to, 17, 0, &frames::udp(1000 + number, 9, b"x"));
        card.send(&frames::ether(gateway, mac(1).bytes(), 0x0800, &packet));
    }
    std::thread::sleep(crate::world::SHORT);
    let allowed = 1000 + 500 * (1 + start.elapsed().as_millis() as u64) / 1000;
    let least = 3000_u64.saturating_sub(allowed);
    assert!((least..=2000).contains(&world.dropped(DropKind::TooMuch)), "{:?}", world.drops());
    assert!(tcp("b", "a", A, 80), "{:?}", world.drops());
    assert!(tcp("a", "outside", OUTSIDE, 80), "to the outside is not from subnet to subnet");
}

#[test]
fn a_guest_that_pings_its_gateway_in_many_names_is_slowed_down_alone() {
    let (world, mut want) = world(web());
    let pair = AddressPair { cidr: "10.0.0.128/25".parse().unwrap(), mac: None };
    want.networks[0].ports[0].allowed_address_pairs = vec![pair];
    world.converge(&want);
    assert!(pings("a", "10.0.0.1") && pings("b", "10.0.1.1"), "{:?}", world.drops());
    let card = Card::of("a");
    let gateway = [0xfa, 0x16, 0x3e, 0, 0, 0xf7];
    let start = std::time::Instant::now();
    for number in 0..1000_u16 {
        let from = format!("10.0.0.{}", 128 + number % 100);
        let packet = frames::ip4(&from, "10.0.0.1", 1, 0, &frames::ping(number));
        card.send(&frames::ether(gateway, mac(1).bytes(), 0x0800, &packet));
    }
    std::thread::sleep(crate::world::SHORT);
    let allowed = 50 + 10 * (1 + start.elapsed().as_millis() as u64 / 1000);
    // The ping before has taken one of the 50.
    let most = 1000 - 49;
    let dropped = world.dropped(DropKind::TooMuch);
    assert!(
        (1000_u64.saturating_sub(allowed)..=most).contains(&dropped),
        "{dropped} of 1000: {:?}",
        world.drops()
    );
    assert!(pings("b", "10.0.1.1"), "others are not slowed down: {:?}", world.drops());
}

#[test]
fn a_guest_answers_nobody_who_claims_a_protected_address() {
    let (world, mut want) = world(web());
    let from = |source: &str, port: u16| {
        ip(&format!("-n outside route replace 203.0.113.0/24 via {HOST} src {source}"));
        inside("outside", || sysctl("net/ipv4/ip_local_port_range", &format!("{port} {}", port + 9)));
        seen_by("outside", "b", B, FLOATING_B)
    };
    assert_eq!(from(OUTSIDE, 40_000).as_deref(), Some(OUTSIDE), "{:?}", world.drops());
    assert_eq!(from(UNDERLAY_PEER, 40_000), None);
    assert!(world.dropped(DropKind::Protected) > 0);
    ip("-n outside address add 100.64.0.20/32 dev eth0");
    ip(&format!("route add 100.64.0.20/32 via {OUTSIDE}"));
    assert_eq!(from("100.64.0.20", 40_000), None, "a router of this host");
    // Guests of another host come with its address, and so do clients on it, but none of its servers.
    want.peers = vec![UNDERLAY_PEER.parse().unwrap()];
    world.converge(&want);
    assert_eq!(from(UNDERLAY_PEER, 40_000).as_deref(), Some(UNDERLAY_PEER), "{:?}", world.drops());
    assert_eq!(from(UNDERLAY_PEER, 60_000).as_deref(), Some(UNDERLAY_PEER));
    assert_eq!(from(UNDERLAY_PEER, 2_000), None);
    assert_eq!(from(UNDERLAY_PEER, 49_152), None);
}

#[test]
fn guests_leave_with_the_hosts_address_from_a_port_of_clients() {
    let (world, _) = world(web());
    inside("a", || sysctl("net/ipv4/ip_local_port_range", "2000 2009"));
    let at = SocketAddr::new(OUTSIDE.parse().unwrap(), 80);
    let (_, peer) = connect("a", "outside", at, at).unwrap();
    assert_eq!(peer.ip().to_string(), HOST);
    assert!((32_768..49_152).contains(&peer.port()), "{peer} {:?}", world.drops());
}

/// A network behind the host, its addresses `192.0.2.0/24`, of which the lower half is protected.
fn behind() {
    ip("netns add behind");
    ip("link add in0 type veth peer name eth0 netns behind");
    ip("address add 192.0.2.1/24 dev in0");
    ip("link set in0 up");
    ip("-n behind link set eth0 up");
    ip("-n behind address add 192.0.2.9/24 dev eth0");
    ip("-n behind address add 192.0.2.200/24 dev eth0");
    ip("-n behind route add default via 192.0.2.1");
    ip(&format!("-n outside route add 192.0.2.0/24 via {HOST}"));
}

#[test]
fn the_host_leads_nobody_outside_to_what_is_protected() {
    for external in [Some("up0".to_owned()), None] {
        std::thread::scope(|scope| {
            scope.spawn(|| leads_nobody_outside_to_what_is_protected(external));
        });
    }
}

fn leads_nobody_outside_to_what_is_protected(external: Option<String>) {
    let by_default_route = external.is_none();
    let (world, want) = world_in(Surroundings { external, ..surroundings() }, web());
    behind();
    if by_default_route {
        assert_eq!(seen_by("outside", "behind", "192.0.2.9", "192.0.2.9").as_deref(), Some(OUTSIDE));
        ip(&format!("route add default via {OUTSIDE} dev up0"));
        world.converge(&want);
    }
    assert_eq!(seen_by("outside", "behind", "192.0.2.9", "192.0.2.9"), None);
    assert!(world.dropped(DropKind::Protected) > 0);
    // What the host does besides is its own: other networks, answers, and addresses that it stands for.
    let led = |listen, target| seen_by("outside", "behind", listen, target);
    assert_eq!(led("192.0.2.200", "192.0.2.200").as_deref(), Some(OUTSIDE), "{:?}", world.drops());
    assert_eq!(seen_by("behind", "outside", OUTSIDE, OUTSIDE).as_deref(), Some("192.0.2.9"));
    nft(&[
        "add table ip own { chain c { type nat hook prerouting priority -100; tcp dport 80 dnat to 192.0.2.9; }; }",
    ]);
    assert_eq!(led("192.0.2.9", HOST).as_deref(), Some(OUTSIDE), "{:?}", world.drops());
}

#[test]
fn a_router_that_is_not_there_is_a_fault() {
    let (world, mut want) = world(web());
    let mut absent = want.routers[0].clone();
    absent.id = id(99);
    want.routers.push(absent);
    let faults = world.try_converge(&want).faults;
    assert_eq!(
        faults.iter().map(|fault| fault.subject).collect::<Vec<_>>(),
        [NetworkSubject::Router(id(99))]
    );
    assert_eq!(seen_by("a", "b", B, B).as_deref(), Some(A));
}

#[test]
fn vxlan_comes_from_peers_alone() {
    let (world, mut want) = world(web());
    let heard = || {
        let socket = std::net::UdpSocket::bind((HOST, 4789)).unwrap();
        socket.set_read_timeout(Some(crate::world::SHORT)).unwrap();
        inside("outside", || {
            std::net::UdpSocket::bind((OUTSIDE, 0)).unwrap().send_to(b"x", (HOST, 4789)).unwrap()
        });
        socket.recv(&mut [0; 8]).is_ok()
    };
    assert!(!heard());
    assert_eq!(world.dropped(DropKind::Underlay), 1);
    want.peers = vec![OUTSIDE.parse().unwrap()];
    world.converge(&want);
    assert!(heard());
}
