//! The whole reason why one host does not take an instance, for operators.

use super::filters::Rejection;
use super::fleet::Candidate;
use super::groups::{GroupPolicy, Occupied};
use super::request::Request;

/// A filter that the host fails, with the figures.
pub fn detail(
    rejection: Rejection,
    candidate: &Candidate,
    request: &Request,
    occupied: &Occupied<'_>,
) -> String {
    let (free, total, asked, needs) = (candidate.free, candidate.total, request.size, &request.needs);
    let group = || request.group.as_ref().map(|group| (group.name.as_str(), group.rule));
    match rejection {
        Rejection::VolumesElsewhere => "the data of its volumes is on another host".to_owned(),
        Rejection::PoolMissing => "a shared pool that volumes of it are in is not there".to_owned(),
        Rejection::Leaving => {
            "it has left this host, which has not confirmed that nothing is left".to_owned()
        }
        Rejection::NotReady => "its agent is new, silent or degraded".to_owned(),
        Rejection::NoGuard => {
            "no guard there keeps a lease in each of the shared pools of its volumes".to_owned()
        }
        Rejection::Cordoned => "it is cordoned".to_owned(),
        Rejection::Architecture => {
            let runs: Vec<_> = candidate.architectures.iter().map(|one| one.as_str()).collect();
            format!("it runs {}, not {}", listed(&runs), request.architecture.as_str())
        }
        Rejection::Features => {
            let lacks = needs.features.iter().filter(|feature| !candidate.features.contains(feature));
            format!("it lacks {}", listed(&lacks.collect::<Vec<_>>()))
        }
        Rejection::HostLabels => {
            let differs =
                needs.host_labels.iter().filter(|(key, value)| candidate.labels.get(*key) != Some(value));
            let lacks: Vec<_> = differs.map(|(key, value)| format!("{key}={value}")).collect();
            format!("it lacks the labels {}", listed(&lacks))
        }
        Rejection::Tainted => {
            let strange = candidate.taints.iter().filter(|taint| !needs.tolerations.contains(taint));
            let strange = listed(&strange.collect::<Vec<_>>());
            format!("type {} does not tolerate {strange}", request.type_name)
        }
        Rejection::Unlocated => {
            let scope = group().map_or("place", |(_, rule)| rule.scope.as_str());
            format!("its {scope} is not set")
        }
        Rejection::PlacementGroup => match group() {
            None => String::new(),
            Some((name, rule)) => {
                let (scope, beside) = (rule.scope.as_str(), occupied.beside(candidate, rule.scope));
                match rule.policy {
                    GroupPolicy::AntiAffinity => format!("{beside} of group {name} in the same {scope}"),
                    GroupPolicy::Affinity => format!("group {name} is in another {scope}"),
                }
            }
        },
        Rejection::PoolLow => "its pool is almost full".to_owned(),
        Rejection::Vcpus => {
            format!("asks for {} vCPUs, {} of {} are free", asked.vcpus, free.vcpus, total.vcpus)
        }
        Rejection::Memory => format!(
            "asks for {} MiB of memory, {} of {} are free",
            asked.memory_mib, free.memory_mib, total.memory_mib
        ),
        Rejection::Disk => {
            format!(
                "asks for {} GiB of disk, {} of {} are free",
                asked.disk_gib, free.disk_gib, total.disk_gib
            )
        }
    }
}

fn listed(items: &[impl AsRef<str>]) -> String {
    if items.is_empty() {
        return "nothing".to_owned();
    }
    items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}
