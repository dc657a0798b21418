//! Every sentence that an operator may read of one host.

use super::*;

#[test]
fn each_filter_says_its_figures() {
    let host = Candidate {
        features: vec!["uefi".to_owned()],
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        taints: vec!["gpu".to_owned(), "db".to_owned()],
        ..standing("north", "1", candidate(1, true, (2, 512, 3)))
    };
    let labels = [("disk", "nvme"), ("gpu", "a100")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let asked = Request {
        needs: Needs {
            features: vec!["uefi".to_owned(), "nested".to_owned()],
            host_labels: labels.into(),
            tolerations: vec!["db".to_owned()],
        },
        group: group(GroupPolicy::AntiAffinity, Strength::Hard, Scope::Rack, &[&host, &host]),
        architecture: Architecture::Riscv64,
        ..request(4, 1024, 10)
    };
    let fleet = fleet(std::slice::from_ref(&host));
    let occupied = Occupied::of(&fleet, &asked);
    let says = |rejection| detail(rejection, &host, &asked, &occupied);
    for (rejection, words) in [
        (Rejection::VolumesElsewhere, "the data of its volumes is on another host"),
        (Rejection::PoolMissing, "a shared pool that volumes of it are in is not there"),
        (Rejection::Leaving, "it has left this host, which has not confirmed that nothing is left"),
        (Rejection::NotReady, "its agent is new, silent or degraded"),
        (Rejection::NoGuard, "no guard there keeps a lease in each of the shared pools of its volumes"),
        (Rejection::Cordoned, "it is cordoned"),
        (Rejection::Architecture, "it runs x86_64, not riscv64"),
        (Rejection::Features, "it lacks nested"),
        (Rejection::HostLabels, "it lacks the labels disk=nvme, gpu=a100"),
        (Rejection::Tainted, "type asked does not tolerate gpu"),
        (Rejection::Unlocated, "its rack is not set"),
        (Rejection::PlacementGroup, "2 of group web in the same rack"),
        (Rejection::PoolLow, "its pool is almost full"),
        (Rejection::Vcpus, "asks for 4 vCPUs, 2 of 64 are free"),
        (Rejection::Memory, "asks for 1024 MiB of memory, 512 of 65536 are free"),
        (Rejection::Disk, "asks for 10 GiB of disk, 3 of 1000 are free"),
    ] {
        assert_eq!(says(rejection), words);
    }
    let together =
        Request { group: group(GroupPolicy::Affinity, Strength::Hard, Scope::Zone, &[]), ..asked.clone() };
    let words = detail(Rejection::PlacementGroup, &host, &together, &Occupied::of(&fleet, &together));
    assert_eq!(words, "group web is in another zone");
    let nothing = Candidate { architectures: Vec::new(), ..host.clone() };
    assert_eq!(detail(Rejection::Architecture, &nothing, &asked, &occupied), "it runs nothing, not riscv64");
}
