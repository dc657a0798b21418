//! Every sentence that a tenant may read.

use super::*;

const FREE: (i32, i32, i32) = (60, 60_000, 900);
const NOTHING_HELPS: &str = "no change of it would help now, an operator can look into it";

#[test]
fn an_empty_cloud_says_so() {
    assert_eq!(summary(&[], &request(1, 1, 1)), "no host has joined this cloud yet");
}

#[test]
fn a_refusal_counts_every_host_and_names_the_remedies() {
    let hosts = [
        candidate(1, true, (8, 512, 900)),
        candidate(2, false, (60, 60_000, 900)),
        candidate(3, true, (2, 9_000, 3)),
    ];
    assert_eq!(
        summary(&hosts, &request(4, 1024, 10)),
        "none of 3 hosts takes it: 1 not ready, 1 too few free vCPUs, 1 too little free memory; \
         it would fit with 512 MiB less memory"
    );
}

/// One host with this fault.
#[track_caller]
fn says(host: Candidate, request: &Request, words: &str) {
    assert_eq!(summary(&[host], request), format!("none of 1 hosts takes it: 1 {words}; {NOTHING_HELPS}"));
}

#[test]
fn what_no_change_of_the_instance_cures() {
    let host = || candidate(1, true, FREE);
    let plain = request(1, 256, 10);
    let other = Uuid::from_u128(7);
    let on = Request { volumes_on: Some(other.into()), ..plain.clone() };
    says(host(), &on, "without the data of its volumes");
    let pools = Request { pools: vec![other.into()], ..plain.clone() };
    says(host(), &pools, "without the pool of its volumes");
    let leaving = Request { leaving: vec![host().id], ..plain.clone() };
    says(host(), &leaving, "which it has left and which has not confirmed that");
    says(candidate(1, false, FREE), &plain, "not ready");
    says(Candidate { cordoned: true, ..host() }, &plain, "cordoned");
    let arm = Request { architecture: Architecture::Aarch64, ..plain.clone() };
    says(host(), &arm, "cannot run this architecture");
    says(Candidate { pool_low: true, ..host() }, &plain, "whose disks are almost full");
    let needs = |needs| Request { needs, ..plain.clone() };
    let features = needs(Needs { features: vec!["nested".to_owned()], ..Needs::default() });
    says(host(), &features, "cannot give its guest what its type asks for");
    let labels = [("gpu".to_owned(), "a100".to_owned())];
    let labelled = needs(Needs { host_labels: labels.clone().into(), ..Needs::default() });
    says(host(), &labelled, "not meant for its type");
    says(Candidate { taints: vec!["gpu".to_owned()], ..host() }, &plain, "kept for other types");
    // And none of it where it is as the type says.
    let tolerant = Needs {
        features: vec!["nested".to_owned()],
        host_labels: labels.clone().into(),
        tolerations: vec!["gpu".to_owned()],
    };
    let fitting = Candidate {
        features: tolerant.features.clone(),
        labels: labels.into(),
        taints: tolerant.tolerations.clone(),
        ..host()
    };
    goes_to(&[host(), fitting.clone()], &needs(tolerant), &fitting);
}

#[test]
fn one_resource_less_is_said_in_its_unit() {
    let host = [candidate(1, true, (3, 6144, 20))];
    for (size, words) in [
        ((4, 6144, 20), "1 too few free vCPUs; it would fit with 1 vCPU less"),
        ((8, 6144, 20), "1 too few free vCPUs; it would fit with 5 vCPUs less"),
        ((3, 8192, 20), "1 too little free memory; it would fit with 2 GiB less memory"),
        ((3, 6400, 20), "1 too little free memory; it would fit with 256 MiB less memory"),
        ((3, 6144, 25), "1 too little free disk; it would fit with 5 GiB less disk"),
        (
            (8, 8192, 25),
            "1 too few free vCPUs; it would fit with 3 vCPUs, 6 GiB of memory and 20 GiB of disk",
        ),
    ] {
        let asked = request(size.0, size.1, size.2);
        assert_eq!(summary(&host, &asked), format!("none of 1 hosts takes it: {words}"));
    }
    let one_left = [candidate(1, true, (1, 600, 20))];
    assert_eq!(
        summary(&one_left, &request(2, 1024, 20)),
        "none of 1 hosts takes it: 1 too few free vCPUs; it would fit with 1 vCPU, 600 MiB of memory and 20 GiB of disk"
    );
}

#[test]
fn what_the_image_needs_is_never_advised_away() {
    let host = [candidate(1, true, (3, 1000, 20))];
    let least = Size { vcpus: 1, memory_mib: 1024, disk_gib: 0 };
    assert_eq!(
        summary(&host, &Request { least, ..request(1, 2048, 20) }),
        format!("none of 1 hosts takes it: 1 too little free memory; {NOTHING_HELPS}")
    );
}

#[test]
fn another_type_is_named_when_one_fits() {
    let hosts = vec![candidate(1, true, (4, 3000, 100))];
    let types = vec![
        option("tiny", 1, 256, 10),
        option("small", 2, 2048, 10),
        option("narrow", 2, 2048, 5),
        option("large", 4, 4096, 10),
        TypeOption { architecture: Architecture::Riscv64, ..option("other", 2, 2500, 10) },
    ];
    let fleet = Fleet::new(hosts, Weights::default(), types);
    let least = Size { vcpus: 1, memory_mib: 0, disk_gib: 10 };
    let asked = Request { least, ..request(4, 4096, 10) };
    let explanation = refused(&fleet, &asked);
    assert_eq!(
        explanation.summary,
        "none of 1 hosts takes it: 1 too little free memory; it would fit with 1096 MiB less memory, or as type small"
    );
    assert_eq!(
        serde_json::to_value(&explanation.remedies).unwrap(),
        serde_json::json!([
            {"change": "less_memory", "memory_mib": 3000, "text": "with 1096 MiB less memory"},
            {"change": "instance_type", "name": "small", "text": "as type small"},
        ])
    );
    let stored = serde_json::to_value(&explanation).unwrap();
    assert_eq!(serde_json::from_value::<Explanation>(stored).unwrap(), explanation);
}

#[test]
fn groups_say_what_is_in_the_way_and_that_it_would_fit_without() {
    let hosts = [standing("north", "1", candidate(1, true, FREE)), candidate(2, false, FREE)];
    let without = "it would fit without group web";
    for (scope, policy, members, words) in [
        (Scope::Host, GroupPolicy::AntiAffinity, &hosts[0], "in a host that group web has an instance in"),
        (Scope::Rack, GroupPolicy::AntiAffinity, &hosts[0], "in a rack that group web has an instance in"),
        (Scope::Zone, GroupPolicy::AntiAffinity, &hosts[0], "in a zone that group web has an instance in"),
        (Scope::Host, GroupPolicy::Affinity, &hosts[1], "not the host that group web is in"),
    ] {
        let group = group(policy, Strength::Hard, scope, &[members]);
        assert_eq!(
            summary(&hosts, &Request { group, ..request(1, 256, 1) }),
            format!("none of 2 hosts takes it: 1 not ready, 1 {words}; {without}")
        );
    }
    let nowhere = [candidate(1, true, FREE)];
    for (scope, words) in [(Scope::Rack, "whose rack is not known"), (Scope::Zone, "whose zone is not known")]
    {
        let group = group(GroupPolicy::Affinity, Strength::Hard, scope, &[]);
        assert_eq!(
            summary(&nowhere, &Request { group, ..request(1, 256, 1) }),
            format!("none of 1 hosts takes it: 1 {words}; {without}")
        );
    }
    let far =
        [standing("north", "1", candidate(1, true, FREE)), standing("south", "1", candidate(2, false, FREE))];
    for (scope, words) in [
        (Scope::Rack, "not the rack that group web is in"),
        (Scope::Zone, "not the zone that group web is in"),
    ] {
        let group = group(GroupPolicy::Affinity, Strength::Hard, scope, &[&far[1]]);
        assert_eq!(
            summary(&far, &Request { group, ..request(1, 256, 1) }),
            format!("none of 2 hosts takes it: 1 not ready, 1 {words}; {without}")
        );
    }
}
