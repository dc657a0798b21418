mod details;
mod many;
mod properties;
mod sentences;

use protocol::agent::Architecture;
use uuid::Uuid;

use super::*;

fn candidate(id: u128, ready: bool, free: (i32, i32, i32)) -> Candidate {
    Candidate {
        id: Uuid::from_u128(id).into(),
        ready,
        cordoned: false,
        pool_low: false,
        architectures: vec![Architecture::X86_64],
        features: Vec::new(),
        pools: Vec::new(),
        guarded: Vec::new(),
        labels: Default::default(),
        taints: Vec::new(),
        rack: None,
        zone: None,
        starting: 0,
        free: Size { vcpus: free.0, memory_mib: free.1, disk_gib: free.2 },
        total: Size { vcpus: 64, memory_mib: 65_536, disk_gib: 1000 },
    }
}

/// In this rack of the zone.
fn standing(zone: &str, rack: &str, candidate: Candidate) -> Candidate {
    Candidate { rack: Some(format!("{zone}/{rack}")), zone: Some(zone.to_owned()), ..candidate }
}

fn fleet(hosts: &[Candidate]) -> Fleet {
    Fleet::new(hosts.to_vec(), Weights::default(), Vec::new())
}

fn request(vcpus: i32, memory_mib: i32, disk_gib: i32) -> Request {
    Request {
        architecture: Architecture::X86_64,
        size: Size { vcpus, memory_mib, disk_gib },
        least: Size { vcpus: 1, memory_mib: 0, disk_gib: 0 },
        root_disk_gib: disk_gib,
        type_name: "asked".to_owned(),
        needs: Needs::default(),
        group: None,
        volumes_on: None,
        pools: Vec::new(),
        needs_guard: false,
        leaving: Vec::new(),
        left: None,
        image_on: Vec::new(),
    }
}

fn group(policy: GroupPolicy, strength: Strength, scope: Scope, members: &[&Candidate]) -> Option<Group> {
    let members = members.iter().map(|host| host.id).collect();
    let rule = Rule { policy, strength, scope };
    Some(Group { id: Uuid::from_u128(99), name: "web".to_owned(), rule, members })
}

fn option(name: &str, vcpus: i32, memory_mib: i32, root_disk_gib: i32) -> TypeOption {
    let architecture = Architecture::X86_64;
    TypeOption {
        name: name.to_owned(),
        architecture,
        vcpus,
        memory_mib,
        root_disk_gib,
        needs: Needs::default(),
    }
}

#[track_caller]
fn refused(fleet: &Fleet, request: &Request) -> Explanation {
    match place(fleet, request) {
        Placement::Nowhere(explanation) => explanation,
        Placement::Host(host) => panic!("placed on {host}"),
    }
}

#[track_caller]
fn summary(hosts: &[Candidate], request: &Request) -> String {
    refused(&fleet(hosts), request).summary
}

#[track_caller]
fn goes_to(hosts: &[Candidate], request: &Request, host: &Candidate) {
    assert_eq!(place(&fleet(hosts), request), Placement::Host(host.id));
}

#[test]
fn the_emptiest_ready_host_wins_or_the_fullest_when_packed() {
    let hosts = [
        candidate(1, true, (8, 9_000, 900)),
        candidate(2, true, (60, 60_000, 900)),
        candidate(3, false, (64, 65_536, 1000)),
    ];
    goes_to(&hosts, &request(1, 256, 1), &hosts[1]);
    let packing = Weights { strategy: Strategy::Pack, ..Weights::default() };
    let packed = Fleet::new(hosts.to_vec(), packing, Vec::new());
    assert_eq!(place(&packed, &request(1, 256, 1)), Placement::Host(hosts[0].id));
}

#[test]
fn a_cached_image_and_idle_disks_tip_the_scales_of_equals() {
    let hosts = [candidate(1, true, (8, 9_000, 90)), candidate(2, true, (8, 9_000, 90))];
    goes_to(&hosts, &request(1, 256, 1), &hosts[0]);
    let weights = Weights { image: 0.05, load: 0.01, ..Weights::default() };
    let mut weighted = Fleet::new(hosts.to_vec(), weights, Vec::new());
    let cached = Request { image_on: vec![hosts[1].id], ..request(1, 256, 1) };
    assert_eq!(place(&weighted, &cached), Placement::Host(hosts[1].id));
    // One instance that is being made weighs, besides what it takes.
    weighted.take(hosts[0].id, Size::default());
    assert_eq!(place(&weighted, &request(1, 256, 1)), Placement::Host(hosts[1].id));
}

#[test]
fn only_hosts_with_the_pool_take_it_and_the_one_that_it_left_comes_last() {
    let pool = Uuid::from_u128(7).into();
    let with = |id, free| Candidate { pools: vec![pool], ..candidate(id, true, free) };
    let hosts = [candidate(1, true, (60, 60_000, 900)), with(2, (50, 50_000, 900)), with(3, (8, 9_000, 900))];
    let wanted = Request { pools: vec![pool], ..request(1, 256, 0) };
    goes_to(&hosts, &wanted, &hosts[1]);
    let left = Request { left: Some(hosts[1].id), ..wanted };
    goes_to(&hosts, &left, &hosts[2]);
    goes_to(&hosts[..2], &left, &hosts[1]);
}

#[test]
fn what_starts_elsewhere_goes_only_where_a_guard_watches_all_of_its_pools() {
    let [one, other] = [7, 8].map(|id| Uuid::from_u128(id).into());
    let with = |id, guarded: &[protocol::PoolId]| Candidate {
        pools: vec![one, other],
        guarded: guarded.to_vec(),
        ..candidate(id, true, (8, 9_000, 90))
    };
    let hosts = [with(1, &[]), with(2, &[one]), with(3, &[other, one])];
    let wanted = Request { pools: vec![one, other], needs_guard: true, ..request(1, 256, 0) };
    goes_to(&hosts, &wanted, &hosts[2]);
    goes_to(&hosts, &Request { pools: vec![one], ..wanted.clone() }, &hosts[1]);
    let refused = refused(&fleet(&hosts[..2]), &wanted);
    assert_eq!(refused.rejections, [RejectionCount { reason: Rejection::NoGuard, hosts: 2 }]);
    assert_eq!(refused.remedies[0].kind, RemedyKind::WaitForHost);
    assert_eq!(
        refused.summary,
        "none of 2 hosts takes it: 2 from which it could not start elsewhere when they die; it would fit with \
         on_host_failure set to wait"
    );
}

#[test]
fn a_pool_that_is_almost_full_takes_no_new_volumes_but_instances_with_theirs() {
    let almost_full = Candidate { pool_low: true, ..candidate(1, true, (60, 60_000, 900)) };
    let other = candidate(2, true, (8, 9_000, 90));
    goes_to(&[almost_full.clone(), other.clone()], &request(1, 256, 10), &other);
    goes_to(std::slice::from_ref(&almost_full), &request(1, 256, 0), &almost_full);
}

#[test]
fn soft_groups_prefer_and_hard_ones_insist() {
    let free = (60, 60_000, 900);
    let hosts = [
        standing("north", "1", candidate(1, true, free)),
        standing("north", "2", candidate(2, true, (8, 9_000, 90))),
        standing("south", "1", candidate(3, true, (4, 5_000, 50))),
    ];
    let with = |policy, strength, scope, members: &[&Candidate]| Request {
        group: group(policy, strength, scope, members),
        ..request(1, 256, 1)
    };
    use GroupPolicy::{Affinity, AntiAffinity};
    use Scope::{Host, Rack, Zone};
    use Strength::{Hard, Soft};
    goes_to(&hosts, &with(AntiAffinity, Hard, Host, &[&hosts[0]]), &hosts[1]);
    goes_to(&hosts, &with(AntiAffinity, Hard, Zone, &[&hosts[0]]), &hosts[2]);
    // Racks of two zones are two racks, whatever they are called.
    goes_to(&hosts[1..], &with(AntiAffinity, Hard, Rack, &[&hosts[1]]), &hosts[2]);
    goes_to(&hosts, &with(Affinity, Hard, Rack, &[&hosts[2]]), &hosts[2]);
    goes_to(&hosts, &with(Affinity, Hard, Host, &[]), &hosts[0]);
    goes_to(&hosts, &with(Affinity, Soft, Zone, &[&hosts[2]]), &hosts[2]);
    goes_to(&hosts, &with(AntiAffinity, Soft, Zone, &[&hosts[0]]), &hosts[2]);
    // All are taken: where the fewest are.
    let everywhere = [&hosts[0], &hosts[0], &hosts[1], &hosts[2], &hosts[2]];
    goes_to(&hosts, &with(AntiAffinity, Soft, Host, &everywhere), &hosts[1]);
    // Nobody has said where this one stands.
    goes_to(&[candidate(4, true, free)], &with(AntiAffinity, Soft, Rack, &[]), &candidate(4, true, free));
}
