use proptest::prelude::*;
use protocol::agent::Architecture;
use uuid::Uuid;

use super::*;

fn candidate(id: u128, ready: bool, free: (i32, i32, i32)) -> Candidate {
    Candidate {
        id: Uuid::from_u128(id).into(),
        ready,
        pool_low: false,
        architectures: vec![Architecture::X86_64],
        pools: Vec::new(),
        free: Size { vcpus: free.0, memory_mib: free.1, disk_gib: free.2 },
        total: Size { vcpus: 64, memory_mib: 65_536, disk_gib: 1000 },
    }
}

fn request(vcpus: i32, memory_mib: i32, disk_gib: i32) -> Request {
    Request {
        architecture: Architecture::X86_64,
        size: Size { vcpus, memory_mib, disk_gib },
        volumes_on: None,
        pools: Vec::new(),
        leaving: Vec::new(),
        left: None,
    }
}

#[test]
fn the_emptiest_ready_host_wins() {
    let hosts = [
        candidate(1, true, (8, 9_000, 900)),
        candidate(2, true, (60, 60_000, 900)),
        candidate(3, false, (64, 65_536, 1000)),
    ];
    assert_eq!(place(&hosts, &request(1, 256, 1)), Placement::Host(hosts[1].id));
}

#[test]
fn a_refusal_counts_every_host_and_names_the_remedy() {
    let hosts = [
        candidate(1, true, (8, 512, 900)),
        candidate(2, false, (60, 60_000, 900)),
        candidate(3, true, (2, 9_000, 3)),
    ];
    let Placement::Nowhere(explanation) = place(&hosts, &request(4, 1024, 10)) else { panic!("placed") };
    assert_eq!(
        explanation.summary,
        "none of 3 hosts takes it: 1 not ready, 1 too few free vCPUs, 1 too little free memory; \
         4 vCPUs, 512 MiB of memory and 10 GiB of disk would fit"
    );
}

#[test]
fn only_hosts_with_the_pool_take_it_and_the_one_that_it_left_comes_last() {
    let pool = Uuid::from_u128(7).into();
    let with = |id, free| Candidate { pools: vec![pool], ..candidate(id, true, free) };
    let hosts = [candidate(1, true, (60, 60_000, 900)), with(2, (50, 50_000, 900)), with(3, (8, 9_000, 900))];
    let wanted = Request { pools: vec![pool], ..request(1, 256, 0) };
    assert_eq!(place(&hosts, &wanted), Placement::Host(hosts[1].id));
    let left = Request { left: Some(hosts[1].id), ..wanted };
    assert_eq!(place(&hosts, &left), Placement::Host(hosts[2].id));
    assert_eq!(place(&hosts[..2], &left), Placement::Host(hosts[1].id));
    let leaving = Request { leaving: vec![hosts[1].id], ..left };
    let Placement::Nowhere(explanation) = place(&hosts[..2], &leaving) else { panic!("placed") };
    assert_eq!(
        explanation.summary,
        "none of 2 hosts takes it: 1 without the pool of its volumes, 1 which it has left and which has not \
         confirmed that"
    );
}

#[test]
fn a_pool_that_is_almost_full_takes_no_new_volumes_but_instances_with_theirs() {
    let almost_full = Candidate { pool_low: true, ..candidate(1, true, (60, 60_000, 900)) };
    let other = candidate(2, true, (8, 9_000, 90));
    let (new, theirs) = (request(1, 256, 10), request(1, 256, 0));
    assert_eq!(place(&[almost_full.clone(), other.clone()], &new), Placement::Host(other.id));
    assert_eq!(place(std::slice::from_ref(&almost_full), &theirs), Placement::Host(almost_full.id));
    let Placement::Nowhere(explanation) = place(&[almost_full], &new) else { panic!("placed") };
    assert_eq!(explanation.summary, "none of 1 hosts takes it: 1 whose disks are almost full");
}

#[test]
fn an_empty_cloud_says_so() {
    let Placement::Nowhere(explanation) = place(&[], &request(1, 1, 1)) else { panic!("placed") };
    assert_eq!(explanation.summary, "no host has joined this cloud yet");
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (any::<bool>(), 0..64i32, 0..65_536i32, 0..1000i32);
    prop::collection::vec(one, 0..20).prop_map(|hosts| {
        let numbered = hosts.into_iter().zip(1..);
        numbered.map(|((ready, v, m, d), id)| candidate(id, ready, (v, m, d))).collect()
    })
}

proptest! {
    #[test]
    fn placement_never_exceeds_and_explanations_add_up(
        hosts in candidates(), vcpus in 1..80i32, memory in 1..70_000i32, disk in 1..1100i32,
    ) {
        let request = request(vcpus, memory, disk);
        match place(&hosts, &request) {
            Placement::Host(id) => {
                let host = hosts.iter().find(|host| host.id == id).unwrap();
                prop_assert_eq!(reject(host, &request), None);
            }
            Placement::Nowhere(explanation) => {
                let counted: usize = explanation.rejections.iter().map(|count| count.hosts).sum();
                prop_assert_eq!(counted, hosts.len());
                if let Some(miss) = explanation.nearest_miss {
                    // The remedy fits when tried.
                    let smaller = Request { size: miss.would_fit, ..request.clone() };
                    prop_assert!(matches!(place(&hosts, &smaller), Placement::Host(_)));
                }
            }
        }
        prop_assert_eq!(place(&hosts, &request), place(&hosts, &request));
    }
}
