//! Networks over two hosts.

use protocol::agent::Network;

use super::world::{add_ipv6, document, network, port, remote, router, two_hosts};

/// The same network as two hosts see it, each with one of two ports.
fn on_both(network: &Network, numbers: [u8; 2]) -> [Network; 2] {
    let ports = numbers.map(|number| port(network, number));
    let [mut left, mut right] = [network.clone(), network.clone()];
    left.ports.push(ports[0].clone());
    left.remote_ports.push(remote(&ports[1], "192.0.2.2"));
    right.ports.push(ports[1].clone());
    right.remote_ports.push(remote(&ports[0], "192.0.2.1"));
    [left, right]
}

#[test]
fn guests_reach_each_other_across_hosts() {
    let [(left, at_left), (right, at_right)] = two_hosts();
    let mut network = network(7, false);
    add_ipv6(&mut network);
    let [on_left, on_right] = on_both(&network, [11, 12]);
    left.settle(&at_left, &document(&[&on_left], &[]));
    right.settle(&at_right, &document(&[&on_right], &[]));
    let guest = left.plug(&on_left, &on_left.ports[0]);
    right.plug(&on_right, &on_right.ports[0]);
    assert!(left.settle(&at_left, &document(&[&on_left], &[])) > 0, "a tap has come");
    right.settle(&at_right, &document(&[&on_right], &[]));

    assert!(left.pings(&guest, "10.0.7.12"));
    assert!(left.pings(&guest, "fd00:0:0:7::12"));
    assert!(left.pings(&guest, "fe80::5054:ff:fe00:c%eth0"), "the link-local address of the other");
    assert!(left.pings(&guest, "10.0.7.2"), "the services");
    assert!(left.pings(&guest, "fd00:0:0:7::2"), "the services");
    assert!(
        left.within(&guest, "busybox arping -c 1 -w 2 -I eth0 169.254.169.254")
            .contains("[02:63:00:00:00:07]")
    );

    // ARP and ND are answered here: with the cable pulled, too.
    left.ip("link set uplink down");
    assert!(
        left.within(&guest, "busybox arping -c 1 -w 2 -I eth0 10.0.7.12").contains("[52:54:00:00:00:0c]")
    );
    left.ip(&format!("-n {guest} -6 neigh flush dev eth0"));
    left.ip(&format!("-n {guest} -6 neigh add fd00:0:0:7::12 dev eth0 nud none"));
    left.calls_in_vain(&guest, "fd00:0:0:7::12");
    let known = left.ip(&format!("-n {guest} -6 neigh show fd00:0:0:7::12"));
    assert!(known.contains("52:54:00:00:00:0c"), "{known}");
}

#[test]
fn a_port_that_moves_is_found_on_its_new_host() {
    let [(left, at_left), (right, at_right)] = two_hosts();
    let network = network(7, false);
    let [stays, moves] = [11, 13].map(|number| port(&network, number));
    let [mut on_left, mut on_right] = [network.clone(), network];
    on_left.ports = vec![stays.clone(), moves.clone()];
    left.settle(&at_left, &document(&[&on_left], &[]));
    let guest = left.plug(&on_left, &stays);
    let old = left.plug(&on_left, &moves);
    left.settle(&at_left, &document(&[&on_left], &[]));
    assert!(left.pings(&guest, "10.0.7.13"));

    on_left.ports.pop();
    on_left.remote_ports = vec![remote(&moves, "192.0.2.2")];
    on_right.ports = vec![moves.clone()];
    on_right.remote_ports = vec![remote(&stays, "192.0.2.1")];
    left.settle(&at_left, &document(&[&on_left], &[]));
    left.ip(&format!("netns del {old}"));
    right.settle(&at_right, &document(&[&on_right], &[]));
    right.plug(&on_right, &moves);
    right.settle(&at_right, &document(&[&on_right], &[]));
    assert!(left.pings(&guest, "10.0.7.13"), "away");

    on_left.ports.push(moves.clone());
    on_left.remote_ports.clear();
    left.settle(&at_left, &document(&[&on_left], &[]));
    left.plug(&on_left, &moves);
    left.settle(&at_left, &document(&[&on_left], &[]));
    assert!(left.pings(&guest, "10.0.7.13"), "back");
}

#[test]
fn nothing_unknown_goes_to_other_hosts() {
    let [(left, at_left), (_right, _)] = two_hosts();
    let [on_left, _] = on_both(&network(7, false), [11, 12]);
    left.settle(&at_left, &document(&[&on_left], &[]));
    let guest = left.plug(&on_left, &on_left.ports[0]);
    left.settle(&at_left, &document(&[&on_left], &[]));
    let sent = || {
        let said = left.ip("-j -s link show cvx7");
        let links: serde_json::Value = serde_json::from_str(&said).unwrap();
        links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    };
    left.calls_in_vain(&guest, "10.0.7.99");
    left.ip(&format!("-n {guest} neigh replace 10.0.7.99 lladdr 52:54:00:00:00:99 dev eth0"));
    left.calls_in_vain(&guest, "10.0.7.99");
    left.calls_in_vain(&guest, "255.255.255.255");
    left.calls_in_vain(&guest, "224.0.0.1%eth0");
    assert_eq!(sent(), 0);
    left.calls_in_vain(&guest, "10.0.7.12");
    assert!(sent() > 0);
}

#[test]
fn a_router_is_on_both_hosts_alike() {
    let [(left, at_left), (right, at_right)] = two_hosts();
    let (first, second) = (network(7, true), network(8, true));
    let (here, there) = (port(&first, 11), port(&second, 12));
    let router = router(3, &[&first, &second]);
    let [mut first_left, mut first_right] = [first.clone(), first];
    let [mut second_left, mut second_right] = [second.clone(), second];
    first_left.ports.push(here.clone());
    first_right.remote_ports.push(remote(&here, "192.0.2.1"));
    second_right.ports.push(there.clone());
    second_left.remote_ports.push(remote(&there, "192.0.2.2"));
    let on_left = document(&[&first_left, &second_left], &[&router]);
    let on_right = document(&[&first_right, &second_right], &[&router]);
    left.settle(&at_left, &on_left);
    right.settle(&at_right, &on_right);
    let guest = left.plug(&first_left, &here);
    let other = right.plug(&second_right, &there);
    left.settle(&at_left, &on_left);
    right.settle(&at_right, &on_right);

    assert!(left.pings(&guest, "10.0.8.12"));
    assert!(right.pings(&other, "10.0.7.11"));
    assert!(left.within(&guest, "ip neigh show 10.0.7.1").contains("52:54:00:00:00:cf"));
    assert!(right.within(&other, "ip neigh show 10.0.8.1").contains("52:54:00:00:00:d0"));
    assert!(!left.has("/run/netns/cumulo-net-8"), "no services where there is no port");

    // The last port goes, the document names nothing any more, and everything goes that was there for it.
    left.ip(&format!("netns del {guest}"));
    left.settle(&at_left, &document(&[], &[]));
    let left_over = left.inventory();
    assert!(!left_over.contains("cumulo") && !left_over.contains("cbr"), "{left_over}");
}
