//! The services of a network are there for every port, and only on their own host.

use std::net::UdpSocket;
use std::time::Duration;

use networking::packets::{DropKind, Surroundings};
use protocol::agent::*;

use crate::document::{V4, V6, group, mac, network, out, port};
use crate::frames::{self, BROADCAST, Card, ether, icmp6, ip4, ip6, udp6};
use crate::world::{SHORT, World, inside, ip, pings, sysctl, tcp, udp};

const SERVICE: &str = "10.0.0.2";
const SERVICE6: &str = "fd00::2";
const METADATA: &str = "169.254.169.254";
const GUEST: &str = "10.0.0.11";
const GUEST_LINK: &str = "fe80::f816:3eff:fe00:1";

/// Guest `a` in no group, the services `s`, and `far`: the end of what stands for a VXLAN device.
fn world() -> World {
    let guest = port(1, &[GUEST, "fd00::11"], &[]);
    let want = HostNetwork { networks: vec![network(7, &[V4, V6], vec![guest])], ..HostNetwork::default() };
    world_of(&want)
}

fn world_of(want: &HostNetwork) -> World {
    let world = World::new(Surroundings::default());
    world.guard(want);
    world.bridge(7);
    let guests = ["a", "b"].into_iter().zip(&want.networks[0].ports);
    for (name, port) in guests.clone() {
        world.guest(name, 7, port, &[]);
    }
    for (name, link) in [("s", "csv7"), ("far", "cvx7")] {
        ip(&format!("netns add {name}"));
        inside(name, || sysctl("net/ipv6/conf/default/accept_dad", "0"));
        ip(&format!("link add {link} type veth peer name eth0 netns {name}"));
        ip(&format!("link set {link} master cbr7 up addrgenmode none"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
    }
    for address in ["10.0.0.2/24", "fd00::2/64", "169.254.169.254/32"] {
        ip(&format!("-n s address add {address} dev eth0"));
    }
    ip("-n far address add 10.0.0.77/24 dev eth0");
    for (name, _) in guests {
        ip(&format!("-n {name} route add {METADATA}/32 dev eth0"));
    }
    world.converge(want);
    world
}

#[test]
fn the_metadata_service_is_told_the_truth_whatever_a_port_may_send() {
    let everything = || AddressPair { cidr: "0.0.0.0/0".parse().unwrap(), mac: None };
    let (victim, mut liar) = (port(1, &[GUEST], &[1]), port(2, &["10.0.0.12"], &[1]));
    liar.allowed_address_pairs = vec![everything()];
    let want = HostNetwork {
        networks: vec![network(7, &[V4], vec![victim, liar])],
        security_groups: vec![group(1, out())],
        ..HostNetwork::default()
    };
    let world = world_of(&want);
    let [me, services] = [mac(2).bytes(), [2, 0x63, 0, 0, 0, 7]];
    let (b, s) = (Card::of("b"), Card::of("s"));
    let hears = |from: &str, to: &str, mark: &[u8; 8]| {
        b.send(&ether(services, me, 0x0800, &ip4(from, to, 17, 0, &frames::udp(1000, 80, mark))));
        s.hears(mark, Duration::from_millis(300))
    };
    assert!(hears(GUEST, "10.0.0.2", b"forwards"), "what it forwards is not for us: {:?}", world.drops());
    assert!(!hears(GUEST, METADATA, b"as other"));
    assert!(!hears("10.0.0.99", METADATA, b"as nobod"));
    assert!(!hears(METADATA, "10.0.0.2", b"as it is"));
    assert_eq!(world.dropped(DropKind::Ipv4Source), 3, "{:?}", world.drops());
    assert!(tcp("a", "s", METADATA, 80) && tcp("b", "s", METADATA, 80), "{:?}", world.drops());
    // Nor does it hear the answers to another's questions.
    let claims = |address: &str| {
        let claim = frames::arp(2, (me, address), (services, "10.0.0.2"));
        b.send(&ether(BROADCAST, me, 0x0806, &claim));
        s.hears(&claim, Duration::from_millis(300))
    };
    assert!(claims("10.0.0.12"), "{:?}", world.drops());
    assert!(claims("10.0.0.99"), "nobody's home");
    assert!(!claims(GUEST));
    assert!(!claims(METADATA), "nor does it answer in its place");
    assert_eq!(world.dropped(DropKind::Arp), 2);
}

#[test]
fn a_port_without_groups_reaches_the_services_and_nothing_else() {
    let world = world();
    for service in [SERVICE, SERVICE6] {
        assert!(udp("a", "s", service, 53), "{:?}", world.drops());
        assert!(tcp("a", "s", service, 53));
        assert!(pings("a", service), "{:?}", world.drops());
        assert!(!tcp("a", "s", service, 22));
        assert!(!udp("a", "s", service, 123));
    }
    assert!(tcp("a", "s", METADATA, 80), "{:?}", world.drops());
    assert!(!tcp("a", "s", METADATA, 443));
    assert!(!tcp("a", "far", "10.0.0.77", 53));
    assert!(world.dropped(DropKind::Egress) > 0);
    assert!(!udp("s", "a", GUEST, 5000), "services may not begin what they please");
}

#[test]
fn dhcp_comes_from_the_services_and_from_nowhere_else() {
    let world = world();
    let (guest, service, far) = (Card::of("a"), Card::of("s"), Card::of("far"));
    let me = mac(1).bytes();
    let discover = ip4("0.0.0.0", "255.255.255.255", 17, 0, &frames::udp(68, 67, b"discover"));
    guest.send(&ether(BROADCAST, me, 0x0800, &discover));
    assert!(service.hears(b"discover", Duration::from_secs(1)), "{:?}", world.drops());

    // The server knows the address that it offers, and answers without asking for it.
    let heard = inside("a", || UdpSocket::bind((GUEST, 68)).unwrap());
    heard.set_read_timeout(Some(SHORT)).unwrap();
    let send = |from: &'static str, address: &'static str| {
        inside(from, || UdpSocket::bind((address, 67)).unwrap().send_to(b"offer", (GUEST, 68)).unwrap());
    };
    send("s", SERVICE);
    assert!(heard.recv(&mut [0; 8]).is_ok(), "{:?}", world.drops());
    send("far", "10.0.0.77");
    assert!(heard.recv(&mut [0; 8]).is_err());
    assert_eq!(world.dropped(DropKind::DhcpServer), 1);

    let six = |from: &str, mark: &[u8; 8]| {
        ether(
            me,
            [2, 0x63, 0, 0, 0, 7],
            0x86dd,
            &ip6(from, GUEST_LINK, 17, 64, &udp6(from, GUEST_LINK, 547, 546, mark)),
        )
    };
    service.send(&six("fe80::63", b"offer v6"));
    assert!(guest.hears(b"offer v6", Duration::from_secs(1)), "{:?}", world.drops());
    far.send(&six("fe80::63", b"from far"));
    assert!(!guest.hears(b"from far", Duration::from_millis(200)));

    let advertise = |mark: &[u8; 8]| {
        let body = [&[64, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &mark[..6]].concat();
        ether(
            [0x33, 0x33, 0, 0, 0, 1],
            [2, 0x63, 0, 0, 0, 7],
            0x86dd,
            &icmp6("fe80::63", "ff02::1", 134, &body),
        )
    };
    service.send(&advertise(b"router.."));
    assert!(guest.hears(b"router", Duration::from_secs(1)), "{:?}", world.drops());
    far.send(&advertise(b"farout.."));
    assert!(!guest.hears(b"farout", Duration::from_millis(200)));
    assert_eq!(world.dropped(DropKind::RouterAdvertisement), 1);
}
