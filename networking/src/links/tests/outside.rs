//! The way out of the cloud.

use protocol::agent::{FloatingIp, HostNetwork};

use super::world::{Host, document, id, network, port, router};
use crate::links::Surroundings;
use crate::names;

const FLOATING: &str = "203.0.113.5";

fn wanted() -> HostNetwork {
    let mut network = network(7, true);
    network.ports.push(port(&network, 11));
    let mut router = router(3, &[&network]);
    router.external = true;
    router.floating_ips.push(FloatingIp {
        id: id(1),
        address: FLOATING.parse().unwrap(),
        port_id: network.ports[0].id,
        fixed_address: network.ports[0].addresses[0].address,
    });
    document(&[&network], &[&router])
}

/// Address translation is not the devices' work: here the router itself has the floating address.
fn own_floating(host: &Host, want: &HostNetwork) {
    let namespace = names::router_namespace(want.routers[0].id);
    host.ip(&format!("-n {namespace} addr add {FLOATING}/32 dev lo"));
}

#[test]
fn a_guest_reaches_its_host_and_the_host_a_floating_ip() {
    let host = Host::new();
    host.ip("link add wan type veth peer name provider");
    host.ip("addr add 198.51.100.2/24 dev wan");
    host.ip("link set wan up");
    host.ip("route add default via 198.51.100.1");
    let (alone, want) = (Surroundings::default(), wanted());
    host.settle(&alone, &want);
    let guest = host.plug(&want.networks[0], &want.networks[0].ports[0]);
    host.settle(&alone, &want);
    own_floating(&host, &want);
    assert!(host.try_command(&format!("busybox ping -c 1 -W 2 {FLOATING}")).0);
    // What the router's translation would do to the source is done by a route back.
    host.ip("route add 10.0.7.0/24 via 100.64.0.7");
    assert!(host.pings(&guest, "100.64.0.6"), "the host's end");
    assert_eq!(host.setting("ipv4/conf/wan/forwarding"), "1", "answers come in here");
    assert_eq!(host.setting("ipv4/conf/provider/forwarding"), "0", "nothing else forwards");
    assert_eq!(host.setting("ipv4/ip_forward"), "0", "nor does the host as a whole");
    assert_eq!(host.setting("ipv4/conf/cre000000000003/forwarding"), "1");
    assert_eq!(host.setting("ipv4/conf/cbr7/forwarding"), "0");
}

#[test]
fn a_floating_ip_is_answered_for_and_announced_outside() {
    let host = Host::new();
    host.ip("netns add world");
    host.ip("link add ext0 address 02:00:00:00:00:01 type veth peer name eth0 netns world");
    host.ip("addr add 203.0.113.1/24 dev ext0");
    host.ip("link set ext0 up");
    host.ip("-n world addr add 203.0.113.2/24 dev eth0");
    host.ip("-n world link set eth0 up");
    // Someone else had the address before.
    host.within("world", "busybox sysctl -w net.ipv4.neigh.eth0.locktime=0");
    host.ip(&format!("-n world neigh add {FLOATING} lladdr 02:00:00:00:00:99 dev eth0 nud stale"));
    host.ip("neigh add proxy 203.0.113.77 dev ext0");

    let surroundings = Surroundings { underlay: None, external_interface: Some("ext0".to_owned()) };
    let want = wanted();
    host.settle(&surroundings, &want);
    let known = host.ip(&format!("-n world neigh show {FLOATING}"));
    assert!(known.contains("02:00:00:00:00:01"), "announced: {known}");
    own_floating(&host, &want);
    assert!(host.pings("world", FLOATING));
    host.ip("-n world neigh flush all");
    assert!(host.pings("world", FLOATING), "answered for");

    let mut without = want;
    without.routers[0].floating_ips.clear();
    host.settle(&surroundings, &without);
    assert_eq!(host.ip("neigh show proxy").trim(), "203.0.113.77 dev ext0 proxy", "the operator's own stays");
    assert!(!host.ip("route").contains(FLOATING));
}

#[test]
fn an_address_that_cannot_be_announced_keeps_no_other_from_being_answered_for() {
    let host = Host::new();
    host.ip("link add ext0 type veth peer name eth0");
    let surroundings = Surroundings { underlay: None, external_interface: Some("ext0".to_owned()) };
    let mut want = wanted();
    let second = FloatingIp {
        id: id(2),
        address: "203.0.113.6".parse().unwrap(),
        fixed_address: "10.0.7.99".parse().unwrap(),
        ..want.routers[0].floating_ips[0].clone()
    };
    want.routers[0].floating_ips.push(second);
    // Nothing is sent on a card that is down.
    let faults = host.converge(&surroundings, &want).faults;
    let about = |address: &str| {
        faults.iter().filter(|fault| fault.detail.contains(&format!("announce {address}"))).count()
    };
    assert_eq!((about(FLOATING), about("203.0.113.6")), (1, 1), "{faults:?}");
    let answered = host.ip("neigh show proxy");
    assert!(answered.contains(FLOATING) && answered.contains("203.0.113.6"), "{answered}");
}

#[test]
fn a_missing_external_interface_is_a_fault_of_the_host() {
    let host = Host::new();
    let surroundings = Surroundings { underlay: None, external_interface: Some("ext0".to_owned()) };
    let faults = host.converge(&surroundings, &wanted()).faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].detail.contains("no external interface ext0"));
}
