//! What is there of virtual networks on a machine, seen without the agent.

use std::fs;

use anyhow::Result;

use crate::machine::Machine;
use crate::process::ProcessId;

/// What the devices of networks are called at their beginning: see `networking/src/names.rs`.
const DEVICES: [&str; 6] = ["ct", "cbr", "cvx", "csv", "cri", "cre"];
/// Chains of a port, a group and a network. The tables themselves stay: they keep strangers out of the underlay.
const CHAINS: [&str; 4] = ["chain nd_", "chain p_", "chain g_", "chain zone_"];

/// Devices, namespaces, packet rules, answers for addresses and services.
pub(crate) fn parts(machine: &Machine) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let links = machine.output("ip", &["-oneline", "link", "show"])?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let ours = names.filter(|name| DEVICES.iter().any(|prefix| name.starts_with(prefix)));
    found.extend(ours.map(|name| format!("device {name}")));

    let namespaces = machine.output("ip", &["netns", "list"])?;
    let namespaces = namespaces.lines().filter(|line| line.starts_with("cumulo-"));
    found.extend(namespaces.map(|line| format!("namespace {line}")));

    let rules = machine.output("nft", &["list", "ruleset"])?;
    let chains = rules.lines().map(str::trim).filter(|line| CHAINS.iter().any(|kind| line.starts_with(kind)));
    found.extend(chains.map(|line| format!("packet rules {line}")));

    let proxies = machine.output("ip", &["neighbour", "show", "proxy"])?;
    found.extend(proxies.lines().map(|line| format!("an answer for {line}")));
    found.extend(dnsmasqs(machine).into_iter().map(|id| format!("process {}", id.command_line())));
    Ok(found)
}

pub(crate) fn dnsmasqs(machine: &Machine) -> Vec<ProcessId> {
    let name = |id: &ProcessId| fs::read_to_string(format!("/proc/{}/comm", id.pid)).unwrap_or_default();
    machine.members().into_iter().filter(|id| name(id).trim() == "dnsmasq").collect()
}
