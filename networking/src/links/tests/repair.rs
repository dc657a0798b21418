//! What was deleted or bent is put right, what is not wanted goes, and what is not ours stays.

use protocol::agent::{HostNetwork, NetworkSubject};

use super::world::{Host, add_ipv6, document, network, port, remote, router};
use crate::links::Surroundings;

fn host() -> (Host, Surroundings) {
    let host = Host::new();
    host.ip("link add uplink type veth peer name other");
    host.ip("addr add 192.0.2.1/24 dev uplink");
    host.ip("link set uplink up");
    host.ip("link set other up");
    (host, Surroundings { underlay: Some("192.0.2.1".parse().unwrap()), external_interface: None })
}

/// Network 7 with a port here and one elsewhere, network 8 behind a router that leads out.
fn wanted() -> HostNetwork {
    let (mut near, far) = (network(7, true), network(8, true));
    add_ipv6(&mut near);
    near.ports.push(port(&near, 11));
    near.remote_ports.push(remote(&port(&near, 12), "192.0.2.2"));
    let mut router = router(3, &[&near, &far]);
    router.external = true;
    document(&[&near, &far], &[&router])
}

#[test]
fn whatever_was_broken_is_repaired() {
    let (host, surroundings) = host();
    let want = wanted();
    host.settle(&surroundings, &want);
    host.plug(&want.networks[0], &want.networks[0].ports[0]);
    host.settle(&surroundings, &want);
    let whole = host.inventory();
    let (services, router) = ("cumulo-net-7", "cumulo-router-000000000003");
    for damage in [
        "ip link del cbr7",
        "ip link del cvx7",
        "ip link del csv7",
        "ip link del cri000000000307",
        "ip link del cre000000000003",
        &format!("ip netns del {services}"),
        &format!("ip netns del {router}"),
        &format!("ip -n {services} link del eth0"),
        &format!("ip -n {services} link set eth0 down"),
        &format!("ip -n {services} link set lo down"),
        &format!("ip -n {services} addr del 10.0.7.2/24 dev eth0"),
        &format!("ip -n {services} addr add 10.0.7.99/24 dev eth0"),
        &format!("ip -n {services} -6 addr del fd00:0:0:7::2/64 dev eth0"),
        &format!("ip -n {router} route del default"),
        &format!("ip -n {router} link set if000000000307 address 52:54:00:00:00:99"),
        &format!("nsenter --net=/run/netns/{router} busybox sysctl -w net.ipv4.ip_forward=0"),
        &format!("nsenter --net=/run/netns/{router} busybox sysctl -w net.ipv6.conf.external.accept_ra=1"),
        "bridge fdb del 52:54:00:00:00:0c dev cvx7 self",
        "bridge fdb replace 52:54:00:00:00:0c dev cvx7 dst 192.0.2.9 self",
        "bridge fdb add 52:54:00:00:00:0d dev cvx7 dst 192.0.2.9 self",
        "bridge fdb del 52:54:00:00:00:0c dev cvx7 master",
        "bridge fdb replace 52:54:00:00:00:0c dev csv7 master static",
        "bridge fdb add 52:54:00:00:00:0d dev cvx7 master static",
        "bridge fdb del 52:54:00:00:00:0b dev ct00000000000b master",
        "ip neigh del 10.0.7.12 dev cbr7",
        "ip neigh replace 10.0.7.12 lladdr 52:54:00:00:00:99 dev cbr7",
        "ip neigh add 10.0.7.13 lladdr 52:54:00:00:00:0d dev cbr7",
        "ip link set cbr7 mtu 1300",
        "ip link set cvx7 mtu 1300",
        "ip link set cbr7 down",
        "ip link set cbr7 address 02:00:00:00:00:01",
        "ip link set cbr7 type bridge nf_call_iptables 0 stp_state 1",
        "ip link set csv7 nomaster",
        "ip link set csv7 master cbr8",
        "ip link set ct00000000000b nomaster",
        "ip addr add 10.9.9.9/24 dev cbr7",
        &format!("ip -n {services} addr replace 10.0.7.99/24 dev eth0"),
        &format!("ip -n {services} addr flush dev eth0"),
        "ip addr del 100.64.0.6/31 dev cre000000000003",
        "bridge link set dev cvx7 flood on mcast_flood on bcast_flood on neigh_suppress off learning on",
        "bridge link set dev ct00000000000b learning on hairpin on isolated on",
        "busybox sysctl -w net.ipv4.conf.cbr7.forwarding=1",
    ] {
        eprintln!("{damage}");
        host.command(damage);
        let damaged = host.inventory();
        let found = host.look(&surroundings, &want);
        eprintln!("  {found:?}");
        assert!(!found.is_empty(), "{damage}: not seen by a look");
        // What was in a namespace goes some time after it.
        if !damage.contains("netns del") {
            assert_eq!(host.inventory(), damaged, "{damage}: a look changed something");
        }
        assert!(host.settle(&surroundings, &want) > 0, "{damage}: not seen");
        let now = host.inventory();
        let differs = |line: &&str| {
            !whole.lines().any(|known| known == *line) || !now.lines().any(|known| known == *line)
        };
        let differences: Vec<_> = whole.lines().chain(now.lines()).filter(differs).collect();
        assert!(differences.is_empty(), "{damage}: {differences:#?}");
    }
    // A VXLAN device is only as good as its numbers.
    host.ip("link del cvx7");
    host.ip("link add cvx7 type vxlan id 9 dstport 4789 local 192.0.2.1");
    host.settle(&surroundings, &want);
    assert!(host.ip("-d link show cvx7").contains("vxlan id 7 "));
}

#[test]
fn a_look_names_what_is_damaged_and_what_is_left_over() {
    let (host, surroundings) = host();
    let want = wanted();
    host.settle(&surroundings, &want);
    host.plug(&want.networks[0], &want.networks[0].ports[0]);
    host.settle(&surroundings, &want);
    for (damage, expected) in [
        ("bridge link set dev ct00000000000b learning on", "set the properties of ct00000000000b as a port"),
        ("ip link del cvx7", "make device cvx7"),
        ("ip netns del cumulo-net-7", "make namespace cumulo-net-7"),
        ("ip link add cbr77 type bridge", "remove device cbr77"),
        (
            "ip link add ct0123456789ab type veth peer name other-end",
            "remove device ct0123456789ab: no port has this card",
        ),
        ("ip netns add cumulo-net-77", "remove namespace cumulo-net-77"),
        ("ip neigh del 10.0.7.12 dev cbr7", "add neighbour 10.0.7.12 of cbr7"),
    ] {
        host.command(damage);
        let found = host.look(&surroundings, &want);
        assert!(found.iter().any(|detail| detail == expected), "{damage}: {found:#?}");
    }
}

#[test]
fn removal_leaves_nothing_and_touches_nothing_else() {
    let (host, surroundings) = host();
    host.ip("link add cbrick type bridge");
    host.ip("link set cbrick up");
    host.ip("link add cri7 type veth peer name peer");
    host.ip("link set cri7 master cbrick");
    host.ip("neigh add 10.9.9.9 lladdr 52:54:00:00:00:99 dev cbrick");
    host.command("bridge fdb add 52:54:00:00:00:99 dev cri7 master static");
    host.ip("link add vx type vxlan id 99 dstport 4789 local 192.0.2.1");
    host.ip("route add 198.51.100.0/24 via 192.0.2.7");
    host.ip("netns add cumulo-lab");
    // Left behind by an earlier document.
    let before = host.inventory();
    host.ip("link add cbr77 type bridge");
    host.ip("netns add cumulo-net-77");
    host.settle(&surroundings, &wanted());
    // The number alone may be in a card's random address.
    for name in ["cbr77", "cumulo-net-77"] {
        assert!(!host.inventory().contains(name), "{name}");
    }
    assert!(host.settle(&surroundings, &HostNetwork::default()) > 0);
    assert_eq!(host.inventory(), before);
}

#[test]
fn a_fault_in_one_network_stops_no_other() {
    let (host, surroundings) = host();
    // The number of network 7 is taken by someone else's device.
    host.ip("link add theirs type vxlan id 7 dstport 4789 local 192.0.2.1");
    let mut want = wanted();
    let other = &mut want.networks[1];
    let here = port(other, 13);
    let there = remote(&port(other, 14), "192.0.2.2");
    other.ports.push(here);
    other.remote_ports.push(there);
    let faults = host.converge(&surroundings, &want).faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].subject, NetworkSubject::Network(want.networks[0].id));
    assert_eq!(faults[0].detail, "cannot make device cvx7: File exists (os error 17)");
    assert!(host.command("bridge fdb show dev cvx8").contains("52:54:00:00:00:0e dst 192.0.2.2"));
    assert!(host.has("/run/netns/cumulo-router-000000000003"));
    host.ip("link del theirs");
    host.settle(&surroundings, &want);
}

#[test]
fn an_underlay_may_be_ipv6() {
    let (host, _) = host();
    host.ip("addr add 2001:db8::1/64 dev uplink nodad");
    let underlay = Some("2001:db8::1".parse().unwrap());
    let mut want = wanted();
    want.networks[0].remote_ports = vec![remote(&port(&want.networks[0], 12), "2001:db8::2")];
    host.settle(&Surroundings { underlay, external_interface: None }, &want);
    assert!(host.command("bridge fdb show dev cvx7").contains("52:54:00:00:00:0c dst 2001:db8::2"));
}
