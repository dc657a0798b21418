//! What holds for any cloud and any instance.

use std::collections::BTreeSet;

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use super::super::filters::fits;
use super::super::remedies::changed;
use super::super::weights::Strategy as Preference;
use super::{
    Candidate, Fleet, Group, GroupPolicy, HostId, Needs, Occupied, Placement, Planned, Request, Rule, Scope,
    Size, Strength, TypeOption, Uuid, Weights, candidate, option, place, plan, reject, rejections, request,
    standing,
};

fn hosts() -> impl Strategy<Value = Vec<Candidate>> {
    let size = (0..64i32, 0..65_536i32, 0..1000i32);
    let faults = (prop::bool::weighted(0.8), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    let place = (0..3u8, 0..4u8);
    let one = (size, faults, place, 0..3u8, any::<bool>()).prop_map(
        |(free, (ready, cordoned, pool_low), (zone, rack), taint, cached)| {
            let host = Candidate { cordoned, pool_low, ..candidate(0, ready, free) };
            let host = if rack == 0 { host } else { standing(&zone.to_string(), &rack.to_string(), host) };
            let taints = if taint == 0 { vec!["kept".to_owned()] } else { Vec::new() };
            Candidate { taints, starting: i32::from(cached), ..host }
        },
    );
    prop::collection::vec(one, 0..20).prop_map(|hosts| {
        let numbered = hosts.into_iter().zip(1..);
        numbered.map(|(host, id)| Candidate { id: Uuid::from_u128(id).into(), ..host }).collect()
    })
}

fn types() -> impl Strategy<Value = Vec<TypeOption>> {
    let one = (1..70i32, 1..70_000i32, 1..100i32);
    prop::collection::vec(one, 0..5).prop_map(|types| {
        let numbered = types.into_iter().enumerate();
        numbered.map(|(number, (v, m, d))| option(&format!("type-{number}"), v, m, d)).collect()
    })
}

fn rules() -> impl Strategy<Value = Option<Rule>> {
    let scope = prop::sample::select(vec![Scope::Host, Scope::Rack, Scope::Zone]);
    let policy = prop::sample::select(vec![GroupPolicy::Affinity, GroupPolicy::AntiAffinity]);
    let strength = prop::sample::select(vec![Strength::Hard, Strength::Soft]);
    let rule = (policy, strength, scope);
    prop::option::of(rule.prop_map(|(policy, strength, scope)| Rule { policy, strength, scope }))
}

/// Small ones and such that fit nowhere, some with the toleration.
fn requests() -> impl Strategy<Value = Vec<Request>> {
    let one = (1..80i32, 1..70_000i32, 0..1100i32, any::<bool>());
    let requests = prop::collection::vec(one, 1..12);
    (requests, rules()).prop_map(|(requests, rule)| {
        let of = |(vcpus, memory, disk, tolerant)| {
            let tolerations = if tolerant { vec!["kept".to_owned()] } else { Vec::new() };
            let group = rule.map(|rule| Group {
                id: Uuid::from_u128(99),
                name: "web".to_owned(),
                rule,
                members: Vec::new(),
            });
            Request {
                needs: Needs { tolerations, ..Needs::default() },
                group,
                ..request(vcpus, memory, disk)
            }
        };
        requests.into_iter().map(of).collect()
    })
}

/// The host, rack or zone of each.
fn domains(fleet: &Fleet, hosts: &[HostId], scope: Scope) -> Vec<String> {
    let domain = |id: &HostId| {
        let host = fleet.host(*id).unwrap();
        match scope {
            Scope::Host => id.to_string(),
            Scope::Rack => host.rack.clone().unwrap(),
            Scope::Zone => host.zone.clone().unwrap(),
        }
    };
    hosts.iter().map(domain).collect()
}

proptest! {
    #[test]
    fn nothing_is_oversold_no_hard_rule_broken_and_every_answer_adds_up(
        hosts in hosts(), types in types(), requests in requests(), pack in any::<bool>(),
    ) {
        let strategy = if pack { Preference::Pack } else { Preference::Spread };
        let weights = Weights { strategy, image: 0.05, load: 0.01 };
        let before = Fleet::new(hosts, weights, types);
        let mut fleet = before.clone();
        let kinds: Vec<_> = requests.iter().map(|request| (request.clone(), 2)).collect();
        let planned = plan(&mut fleet, kinds.clone());
        prop_assert_eq!(&planned, &plan(&mut before.clone(), kinds));
        let placed: Vec<_> = planned.iter().flat_map(|kind| kind.hosts.iter().copied()).collect();
        for kind in &planned {
            prop_assert_eq!(kind.hosts.len() < 2, kind.why_not.is_some());
            if let Some(explanation) = &kind.why_not {
                let counted: usize = explanation.rejections.iter().map(|count| count.hosts).sum();
                prop_assert_eq!(counted, before.hosts().len());
                prop_assert!(explanation.rejections.iter().all(|count| count.hosts > 0));
                // No host is named.
                let text = serde_json::to_string(explanation).unwrap();
                prop_assert!(before.hosts().iter().all(|host| !text.contains(&host.id.to_string())));
            }
        }
        for host in fleet.hosts() {
            let had = before.host(host.id).unwrap().free;
            let here = |kind: &Planned| i32::try_from(kind.hosts.iter().filter(|one| **one == host.id).count()).unwrap();
            let took = planned.iter().zip(&requests).map(|(kind, request)| (here(kind), request.size));
            let sum = |of: fn(Size) -> i32| took.clone().map(|(count, size)| count * of(size)).sum::<i32>();
            prop_assert!(sum(|size| size.vcpus) <= had.vcpus);
            prop_assert!(sum(|size| size.memory_mib) <= had.memory_mib);
            prop_assert!(sum(|size| size.disk_gib) <= had.disk_gib);
        }
        if let Some(rule) = requests[0].group.as_ref().map(|group| group.rule) && rule.strength == Strength::Hard {
            let all = domains(&fleet, &placed, rule.scope);
            let distinct: BTreeSet<_> = all.iter().collect();
            match rule.policy {
                GroupPolicy::Affinity => prop_assert!(distinct.len() <= 1),
                GroupPolicy::AntiAffinity => prop_assert_eq!(distinct.len(), all.len()),
            }
        }
    }

    #[test]
    fn every_remedy_fits_when_it_is_tried(
        hosts in hosts(), types in types(), requests in requests(), taken in prop::collection::vec(0..20usize, 0..4),
    ) {
        let fleet = Fleet::new(hosts, Weights::default(), types);
        for mut request in requests {
            if let Some(group) = &mut request.group {
                group.members = taken.iter().filter_map(|n| fleet.hosts().get(*n)).map(|host| host.id).collect();
            }
            let occupied = Occupied::of(&fleet, &request);
            for host in fleet.hosts() {
                prop_assert_eq!(
                    fits(host, &request, &occupied),
                    rejections(host, &request, &occupied).next().is_none()
                );
            }
            match place(&fleet, &request) {
                Placement::Host(id) => {
                    prop_assert_eq!(reject(fleet.host(id).unwrap(), &request, &occupied), None);
                }
                Placement::Nowhere(explanation) => {
                    for remedy in &explanation.remedies {
                        let cured = changed(&fleet, &request, &remedy.kind);
                        prop_assert!(matches!(place(&fleet, &cured), Placement::Host(_)), "{remedy:?}");
                        prop_assert!(explanation.summary.contains(&remedy.text));
                    }
                    // A host that lacks nothing but size always has a remedy, unless nothing at all is free there.
                    if let Some(miss) = &explanation.nearest_miss
                        && miss.would_fit.vcpus > 0 && miss.would_fit.memory_mib > 0
                    {
                        let smaller = Request { size: miss.would_fit, ..request.clone() };
                        prop_assert!(matches!(place(&fleet, &smaller), Placement::Host(_)));
                        prop_assert!(!explanation.remedies.is_empty());
                    }
                }
            }
        }
    }
}
