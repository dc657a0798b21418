//! What [`Services::converge`] would change, in words.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use protocol::Vni;
use protocol::agent::{HostNetwork, Network, NetworkSubject};

use super::process::{Dnsmasq, PROGRAM};
use super::render::Files;
use super::{Services, are_here, leases};
use crate::{Difference, names};

impl Services {
    /// What [`Self::converge`] would change, and each dnsmasq of ours that it does not know. Changes nothing. What
    /// the agent itself serves, metadata and names outside the cloud, comes and goes with it and is not looked at.
    pub async fn look(&self, want: &HostNetwork) -> io::Result<Vec<Difference>> {
        let networks: Vec<_> = want.networks.iter().filter(|network| are_here(network)).cloned().collect();
        let dir = self.shared.dir.clone();
        tokio::task::spawn_blocking(move || look(&dir, &networks)).await?
    }
}

fn look(dir: &Path, networks: &[Network]) -> io::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let mut note = |subject, detail| differences.push(Difference { subject, detail });
    let mut known = HashSet::new();
    for network in networks {
        let folder = dir.join(network.vni.to_string());
        let subject = NetworkSubject::Network(network.id);
        let (pid, found) = of_network(network, &folder)?;
        known.extend(pid);
        found.into_iter().for_each(|detail| note(subject, detail));
    }
    for (pid, vni) in dnsmasqs_below(dir)? {
        if !known.contains(&pid) {
            note(
                NetworkSubject::Host,
                format!("end process {pid}: a dnsmasq of VNI {vni} that was not started last"),
            );
        }
    }
    for vni in folders(dir)? {
        if !networks.iter().any(|network| network.vni.to_string() == vni) {
            note(NetworkSubject::Host, format!("remove the files of DHCP and DNS of VNI {vni}"));
        }
    }
    Ok(differences)
}

/// The process that serves a network, and what is to be done about it.
fn of_network(network: &Network, folder: &Path) -> io::Result<(Option<i32>, Vec<String>)> {
    let files = match Files::of(network, folder) {
        Ok(files) => files,
        Err(error) => return Ok((None, vec![error.to_string()])),
    };
    let mut found: Vec<_> =
        files.differing(folder)?.into_iter().map(|file| format!("write {file} of DHCP and DNS")).collect();
    let namespace = names::services_namespace(network.vni);
    let dnsmasq = Dnsmasq { folder, namespace: &namespace };
    let running = dnsmasq.alive();
    match &running {
        Some(running) if dnsmasq.is_in_place(running) => {
            if running.config != files.config() {
                found.push("start dnsmasq again: it has read another configuration".to_owned());
            } else if running.hosts != files.hosts() {
                found.push("let dnsmasq read its hosts again".to_owned());
            }
        }
        Some(_) => found.push(format!("start dnsmasq again: it is not in namespace {namespace}")),
        None => found.push("start dnsmasq: it does not run".to_owned()),
    }
    found.extend(
        leases::stale(folder, &files)?.iter().map(|address| format!("forget the lease of {address}")),
    );
    Ok((running.map(|running| running.pid()), found))
}

/// Folders that are a network's by their names.
fn folders(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(
            entry?
                .file_name()
                .into_string()
                .ok()
                .filter(|name| name.parse::<u32>().is_ok_and(|number| Vni::try_from(number).is_ok())),
        );
    }
    names.sort();
    Ok(names)
}

/// Processes that have a configuration below the folder, each with the number of its network. A folder of that name
/// in another mount namespace is another one.
fn dnsmasqs_below(dir: &Path) -> io::Result<Vec<(i32, String)>> {
    let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
    let ours = identity(dir);
    let prefix = format!("--conf-file={}/", dir.display());
    let below_root = dir.strip_prefix("/").unwrap_or(dir);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // It may end while we look.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let is_dnsmasq = arguments.next().is_some_and(|program| program.rsplit('/').next() == Some(PROGRAM));
        let number = arguments
            .find_map(|argument| Some(argument.strip_prefix(&prefix)?.split('/').next()?.to_owned()))
            .filter(|_| is_dnsmasq);
        let theirs = || identity(&Path::new("/proc").join(pid.to_string()).join("root").join(below_root));
        found.extend(number.filter(|_| ours.is_some() && theirs() == ours).map(|number| (pid, number)));
    }
    found.sort_unstable();
    Ok(found)
}
