//! What is left of instances of which nothing is wanted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use camino::Utf8Path;
use protocol::agent::{DriftCode, DriftSubject};
use protocol::{InstanceId, LayerId};
use storage::Inventory;

use super::{Difference, Host};
use crate::desired::Wanted;
use crate::hypervisor::{Domain, DomainState};

/// Domains, files, records and open files that nothing accounts for.
pub(super) fn differences(
    host: &Host,
    domains: &HashMap<InstanceId, Domain>,
    pool: &Inventory,
) -> Vec<Difference> {
    let wanted: HashSet<_> = host.desired.ids().into_iter().collect();
    let stray = |id: &&InstanceId| !wanted.contains(*id);
    // While it has a domain, that is what there is to decide about first.
    let left = |id: &&InstanceId| stray(id) && !domains.contains_key(*id);
    let runs = |id: &InstanceId| domains.get(id).is_some_and(|domain| domain.state != DomainState::Off);
    let mut found = Vec::new();
    let mut note = |code, id, detail: &str| {
        found.push(Difference::new(code, DriftSubject::Instance(id), detail.to_owned()));
    };
    for id in domains.keys().filter(stray).collect::<BTreeSet<_>>() {
        let why = match host.desired.last_spec(*id) {
            Some(spec) => format!("the control plane no longer knows it ({})", spec.hostname),
            None => "nothing is wanted of it".to_owned(),
        };
        let (code, what) = match domains.get(id).map(|domain| domain.state) {
            Some(DomainState::Off) => (DriftCode::UnknownDomain, "its domain"),
            _ => (DriftCode::UnknownGuest, "its domain, which runs"),
        };
        note(code, *id, &format!("decide about {what}: {why}, so it is left alone"));
    }
    let (ended, others): (Vec<_>, Vec<_>) =
        host.desired.set_aside().into_iter().partition(|wanted| !domains.contains_key(&wanted.id()));
    // Clones lie on the same layers.
    let others = host.desired.ids().into_iter().filter_map(|id| host.desired.get(id)).chain(others);
    let needed: HashSet<LayerId> = others.flat_map(|wanted| layers_of(&wanted)).collect();
    for id in pool.instances.keys().filter(left) {
        note(DriftCode::UnknownFiles, *id, "decide about its seed and logs: nothing is wanted of it");
    }
    for wanted in ended {
        let id = wanted.id();
        note(
            DriftCode::UnknownFiles,
            id,
            &format!("decide about desired/{id}.json, with its user data: nothing is wanted of it"),
        );
        // One by one: what is told of a difference is not long.
        for layer in layers_of(&wanted).intersection(&pool.layers).filter(|layer| !needed.contains(layer)) {
            let detail =
                format!("decide about pool/layers/{layer}.qcow2, of its disks: no instance here has it");
            note(DriftCode::UnknownFiles, id, &detail);
        }
    }
    for id in host.boots.ids().iter().filter(left) {
        note(DriftCode::UnknownRecord, *id, "decide about the record of its boots: nothing is wanted of it");
    }
    for id in host.guards.ids().iter().filter(stray) {
        note(DriftCode::UnknownRecord, *id, "decide about it: nothing is wanted of it, and it is guarded");
    }
    for (process, id) in open_files(&pool.root).into_iter().filter(|(_, id)| stray(&id) && !runs(id)) {
        note(DriftCode::UnknownProcess, id, &format!("look at {process}: it has a file of it open"));
    }
    for name in &pool.foreign {
        let detail = format!("remove instances/{name} from the pool: it is not ours");
        found.push(Difference::new(DriftCode::ForeignFile, DriftSubject::Host, detail));
    }
    if !pool.unfinished.is_empty() {
        let detail = format!("finish or clear away {} unfinished works in the pool", pool.unfinished.len());
        // The agent is at it, or clears it away when it starts.
        found.push(Difference::passing("leftovers", DriftSubject::Host, detail));
    }
    found
}

/// All layers of its disks in the host's own pool. Those in shared pools are not looked at: another host may have the instance.
fn layers_of(wanted: &Wanted) -> BTreeSet<LayerId> {
    let volumes = wanted.disks().iter().map(|disk| &disk.volume).filter(|volume| volume.pool.is_none());
    volumes.flat_map(|volume| volume.layers.iter().copied()).collect()
}

/// Processes, in words, with the instances of which they have files open.
fn open_files(root: &Utf8Path) -> BTreeSet<(String, InstanceId)> {
    let prefix = format!("{root}/instances/");
    let ours = identity(root.as_std_path());
    let below = root.strip_prefix("/").unwrap_or(root);
    let mut found = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = process.path();
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Processes end while we look, and a path means something else in another mount namespace.
        let files = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
        let open = files.filter_map(|file| fs::read_link(file.path()).ok());
        let ids: BTreeSet<InstanceId> = open
            .filter_map(|path| path.to_str()?.strip_prefix(&prefix)?.split('/').next()?.parse().ok())
            .collect();
        if !ids.is_empty() && identity(&dir.join("root").join(below)) == ours {
            let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
            found.extend(ids.into_iter().map(|id| (format!("process {pid} ({})", name.trim()), id)));
        }
    }
    found
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().map(|found| (found.dev(), found.ino())).ok()
}
