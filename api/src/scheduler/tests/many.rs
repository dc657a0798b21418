//! Several instances at once, and what the loss of hosts would do.

use super::capacity::{Placed, Survival, room_for, survival};
use super::*;

#[test]
fn a_plan_counts_what_it_has_placed_before() {
    let hosts = [candidate(1, true, (2, 4096, 100)), candidate(2, true, (2, 4096, 100))];
    let apart = || Request {
        group: group(GroupPolicy::AntiAffinity, Strength::Hard, Scope::Host, &[]),
        ..request(1, 1024, 10)
    };
    let planned = plan(&mut fleet(&hosts), vec![(apart(), 1), (apart(), 4), (request(1, 1024, 10), 1)]);
    assert_eq!(planned[0], Planned { hosts: vec![hosts[0].id], why_not: None });
    assert_eq!(planned[1].hosts, [hosts[1].id]);
    assert_eq!(
        planned[1].why_not.as_ref().expect("five on two hosts").summary,
        "none of 2 hosts takes it: 2 in a host that group web has an instance in; it would fit without group web"
    );
    assert_eq!(planned[2].hosts, [hosts[0].id]);
    let planned = plan(&mut fleet(&hosts), vec![(request(1, 1024, 10), 5)]);
    assert_eq!(planned[0].hosts.len(), 4);
    assert!(planned[0].why_not.is_some());
}

#[test]
fn room_is_counted_per_host() {
    let hosts = [
        candidate(1, true, (10, 4096, 100)),
        candidate(2, true, (3, 65_536, 100)),
        candidate(3, false, (64, 65_536, 1000)),
    ];
    assert_eq!(room_for(&fleet(&hosts), &request(1, 1024, 10)), 4 + 3);
    assert_eq!(room_for(&fleet(&hosts), &request(1, 1024, 60)), 1 + 1);
    assert_eq!(room_for(&fleet(&hosts), &request(11, 1024, 60)), 0);
}

#[test]
fn hosts_may_be_lost_as_long_as_the_others_have_room() {
    let total = Size { vcpus: 8, memory_mib: 8192, disk_gib: 100 };
    let host = |id, used: i32| {
        let free = Size { memory_mib: 8192 - used, ..total };
        Candidate { free, total, ..candidate(id, true, (0, 0, 0)) }
    };
    let hosts = [host(1, 4096), host(2, 2048), host(3, 0)];
    let on = |host: &Candidate, memory| Placed { host: host.id, request: request(1, memory, 0) };
    let placed = [on(&hosts[0], 4096), on(&hosts[1], 2048)];
    let survives = survival(&fleet(&hosts), &placed);
    assert_eq!(survives, Some(Survival { failures: 2, critical: Vec::new() }));
    // Without the third there is no room for the first one.
    let full = [host(1, 4096), host(2, 6144)];
    let placed = [on(&full[0], 4096), on(&full[1], 3072), on(&full[1], 3072)];
    let survives = survival(&fleet(&full), &placed);
    let critical = vec![(full[1].id, 1), (full[0].id, 1)];
    assert_eq!(survives, Some(Survival { failures: 0, critical }));
    // The others of a group that was lost are no obstacle.
    let apart = |host: &Candidate| Placed {
        host: host.id,
        request: Request {
            group: group(GroupPolicy::AntiAffinity, Strength::Hard, Scope::Host, &[&hosts[0]]),
            ..request(1, 1024, 0)
        },
    };
    let survives = survival(&fleet(&hosts), &[apart(&hosts[1])]).unwrap();
    assert_eq!((survives.failures, survives.critical), (2, Vec::new()));
}
