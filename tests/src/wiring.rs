//! The underlay: one bridge in a machine of its own, a cable to every other machine.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::machine::{Machine, said_or_failed};

/// Where the control plane listens to agents.
pub(crate) const CONTROL_ADDRESS: &str = "192.0.2.1";

/// The name of a machine's side of its cable.
pub(crate) const UPLINK: &str = "uplink";

/// The underlay address of a host, counted from 1. 192.0.2.0/24 is for documentation (RFC 5737) and used
/// inside the lab's namespaces only.
pub(crate) fn host_address(number: usize) -> String {
    format!("192.0.2.{}", 10 + number)
}

/// Makes the bridge and plugs in the machines with their addresses.
pub(crate) fn connect(underlay: &Machine, machines: &[(&Machine, String)]) -> Result<()> {
    let mut lines = vec!["link set lo up".to_owned(), "link add underlay type bridge".to_owned()];
    lines.push("link set underlay up".to_owned());
    for (machine, _) in machines {
        let (name, pid) = (&machine.name, machine.holder_pid());
        lines.push(format!("link add {name} type veth peer name {UPLINK} netns {pid}"));
        lines.push(format!("link set {name} master underlay up"));
    }
    ip_batch(underlay, &lines)?;
    for (machine, address) in machines {
        let lines = [
            "link set lo up".to_owned(),
            format!("addr add {address}/24 dev {UPLINK}"),
            format!("link set {UPLINK} up"),
        ];
        ip_batch(machine, &lines)?;
    }
    Ok(())
}

/// Pulls the cable of a machine, or plugs it in again.
pub(crate) fn set_cable(underlay: &Machine, name: &str, plugged: bool) -> Result<()> {
    ip_batch(underlay, &[format!("link set {name} {}", if plugged { "up" } else { "down" })])
}

/// One `ip` process for many commands, given as data on its standard input.
fn ip_batch(machine: &Machine, lines: &[String]) -> Result<()> {
    let attempted = || format!("set up the network of {}", machine.name);
    let mut child = machine
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(attempted)?;
    let mut stdin = child.stdin.take().context("ip has no standard input")?;
    stdin.write_all((lines.join("\n") + "\n").as_bytes()).with_context(attempted)?;
    drop(stdin);
    said_or_failed(child.wait_with_output(), attempted).map(|_| ())
}
