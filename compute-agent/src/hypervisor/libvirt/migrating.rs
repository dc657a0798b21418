//! Guests that come and go, by QEMU's own commands: libvirt's migration would give the libvirt of one host to the other.
//!
//! The way is a socket that is handed to QEMU, so that nothing listens and no file is named.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde::Deserialize;
use serde_json::{Value, json};
use virt::domain::Domain as Handle;

use super::{BoxError, sys, xml};
use crate::hypervisor::Transfer;

/// What QEMU calls the socket.
const WAY: &str = "cumulo-migration";

/// Both sides say when they are done; and the disks are the new QEMU's only when its guest goes on.
const BOTH: [&str; 2] = ["return-path", "late-block-activate"];

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<QmpError>,
}

#[derive(Deserialize)]
struct QmpError {
    desc: String,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

#[derive(Deserialize)]
struct MigrationInfo {
    status: Option<String>,
    ram: Option<Ram>,
}

#[derive(Deserialize)]
struct Ram {
    total: u64,
    remaining: u64,
}

fn ask(domain: &Handle, command: &str, arguments: Value) -> Result<Value, BoxError> {
    let text = domain.qemu_monitor_command(&command_text(command, arguments), 0)?;
    returned(command, &text)
}

fn command_text(command: &str, arguments: Value) -> String {
    match arguments {
        Value::Null => json!({"execute": command}),
        arguments => json!({"execute": command, "arguments": arguments}),
    }
    .to_string()
}

fn returned(command: &str, text: &str) -> Result<Value, BoxError> {
    let answer: Answer = serde_json::from_str(text)?;
    match answer {
        Answer { error: Some(error), .. } => Err(format!("{command}: {}", error.desc).into()),
        answer => Ok(answer.returned.unwrap_or_default()),
    }
}

fn give(domain: &Handle, way: &UnixStream) -> Result<(), BoxError> {
    let command = command_text("getfd", json!({"fdname": WAY}));
    returned("getfd", &sys::monitor_command_with_file(domain, &command, way.as_fd())?).map(drop)
}

fn enable(domain: &Handle, capabilities: &[&str]) -> Result<(), BoxError> {
    let on: Vec<_> = capabilities.iter().map(|name| json!({"capability": name, "state": true})).collect();
    ask(domain, "migrate-set-capabilities", json!({"capabilities": on})).map(drop)
}

pub(super) fn receive(domain: &Handle, way: &UnixStream) -> Result<(), BoxError> {
    enable(domain, &BOTH)?;
    give(domain, way)?;
    ask(domain, "migrate-incoming", json!({"uri": format!("fd:{WAY}")})).map(drop)
}

pub(super) fn send(domain: &Handle, way: &UnixStream, max_downtime_ms: u32) -> Result<(), BoxError> {
    if !xml::leaves_owners(&domain.get_xml_desc(0)?)? {
        return Err(
            "an earlier release has started it, and libvirt would take its disks when it ends here".into()
        );
    }
    enable(domain, &BOTH)?;
    // A guest that changes its memory faster than it is sent is slowed down.
    enable(domain, &["auto-converge"])?;
    let parameters = json!({"downtime-limit": max_downtime_ms, "max-bandwidth": 0});
    ask(domain, "migrate-set-parameters", parameters)?;
    give(domain, way)?;
    ask(domain, "migrate", json!({"uri": format!("fd:{WAY}")})).map(drop)
}

pub(super) fn cancel(domain: &Handle) -> Result<(), BoxError> {
    ask(domain, "migrate_cancel", Value::Null).map(drop)
}

/// INVARIANT: a guest counts as sent by the state of its QEMU, which no failed attempt and no arrival leaves behind.
pub(super) fn look(domain: &Handle) -> Result<Transfer, BoxError> {
    let Status { status } = serde_json::from_value(ask(domain, "query-status", Value::Null)?)?;
    match status.as_str() {
        "postmigrate" => return Ok(Transfer::Sent),
        "inmigrate" => return Ok(Transfer::Waiting),
        _ => {}
    }
    let info: MigrationInfo = serde_json::from_value(ask(domain, "query-migrate", Value::Null)?)?;
    let is_over =
        matches!(info.status.as_deref(), None | Some("none" | "completed" | "failed" | "cancelled"));
    if is_over && status != "finish-migrate" {
        return Ok(Transfer::Idle);
    }
    let Ram { total, remaining } = info.ram.unwrap_or(Ram { total: 0, remaining: 0 });
    Ok(Transfer::Sending { done_bytes: total.saturating_sub(remaining), total_bytes: total })
}
