//! Guests that come and go, by QEMU's own commands: libvirt's migration would give the libvirt of one host to the other.
//!
//! The way is a socket that is handed to QEMU, so that nothing listens and no file is named.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use protocol::VolumeId;
use serde::Deserialize;
use serde_json::{Value, json};
use virt::domain::Domain as Handle;

use super::mirrors::{self, Mirrors};
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
struct Version {
    qemu: Release,
}

#[derive(Deserialize)]
struct Release {
    major: u32,
    minor: u32,
}

impl Release {
    /// Machines change with these two numbers; `version` is as libvirt writes it.
    const fn has_the_machines_of(&self, version: u32) -> bool {
        self.major * 1000 + self.minor == version / 1000
    }
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

pub(super) fn ask(domain: &Handle, command: &str, arguments: Value) -> Result<Value, BoxError> {
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

/// Hands a file to QEMU under that name.
pub(super) fn give(domain: &Handle, name: &str, file: BorrowedFd<'_>) -> Result<(), BoxError> {
    let command = command_text("getfd", json!({"fdname": name}));
    returned("getfd", &sys::monitor_command_with_file(domain, &command, file)?).map(drop)
}

fn set(domain: &Handle, capabilities: &[&str], state: bool) -> Result<(), BoxError> {
    let all: Vec<_> = capabilities.iter().map(|name| json!({"capability": name, "state": state})).collect();
    ask(domain, "migrate-set-capabilities", json!({"capabilities": all})).map(drop)
}

pub(super) fn receive(domain: &Handle, way: &UnixStream) -> Result<(), BoxError> {
    set(domain, &BOTH, true)?;
    give(domain, WAY, way.as_fd())?;
    ask(domain, "migrate-incoming", json!({"uri": format!("fd:{WAY}")})).map(drop)
}

/// Whether the other host makes the same machine of its description: a QEMU from before an upgrade has an older one, which
/// tells only when the guest stands still already. And libvirt leaves its disks alone when it ends here, but for those of
/// these volumes, which are this host's alone.
pub(super) fn is_of_today(domain: &Handle, local: &[VolumeId]) -> Result<bool, BoxError> {
    let Version { qemu } = serde_json::from_value(ask(domain, "query-version", Value::Null)?)?;
    let installed = domain.get_connect()?.get_hyp_version()?;
    Ok(qemu.has_the_machines_of(installed) && xml::leaves_owners(&domain.get_xml_desc(0)?, local)?)
}

pub(super) fn send(domain: &Handle, way: &UnixStream, max_downtime_ms: u32) -> Result<(), BoxError> {
    set(domain, &BOTH, true)?;
    // A guest that changes its memory faster than it is sent is slowed down.
    set(domain, &["auto-converge"], true)?;
    let parameters = json!({"downtime-limit": max_downtime_ms, "max-bandwidth": 0});
    ask(domain, "migrate-set-parameters", parameters)?;
    // An attempt with other disks may have left it as it wanted it.
    set(domain, &["pause-before-switchover"], mirrors::keep_pace(domain)?)?;
    give(domain, WAY, way.as_fd())?;
    ask(domain, "migrate", json!({"uri": format!("fd:{WAY}")})).map(drop)
}

pub(super) fn cancel(domain: &Handle) -> Result<(), BoxError> {
    ask(domain, "migrate_cancel", Value::Null).map(drop)
}

pub(super) fn look(domain: &Handle) -> Result<Transfer, BoxError> {
    let transfer = judge(|command| ask(domain, command, Value::Null))?;
    if transfer != Transfer::Idle {
        return Ok(transfer);
    }
    Ok(match mirrors::look(domain)? {
        Mirrors::None | Mirrors::Broken => Transfer::Idle,
        Mirrors::Copying { done_bytes, total_bytes } => Transfer::Mirroring { done_bytes, total_bytes },
        Mirrors::Ready => Transfer::Mirrored,
    })
}

/// INVARIANT: a guest counts as sent by the state of its QEMU, which no failed attempt and no arrival leaves behind. That is
/// asked last: what ends between the two answers has not failed.
fn judge(mut ask: impl FnMut(&str) -> Result<Value, BoxError>) -> Result<Transfer, BoxError> {
    let info: MigrationInfo = serde_json::from_value(ask("query-migrate")?)?;
    let Status { status } = serde_json::from_value(ask("query-status")?)?;
    let is_over =
        matches!(info.status.as_deref(), None | Some("none" | "completed" | "failed" | "cancelled"));
    Ok(match status.as_str() {
        "postmigrate" => Transfer::Sent,
        "inmigrate" => Transfer::Waiting,
        _ if info.status.as_deref() == Some("pre-switchover") => Transfer::Switching,
        status if is_over && status != "finish-migrate" => Transfer::Idle,
        _ => {
            let Ram { total, remaining } = info.ram.unwrap_or(Ram { total: 0, remaining: 0 });
            Transfer::Sending { done_bytes: total.saturating_sub(remaining), total_bytes: total }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU between two states: each answer is that of the moment in which it is asked for.
    fn seen(moments: [(&str, &str); 2]) -> Transfer {
        let mut moments = moments.into_iter();
        let answered = judge(|command| {
            let (status, migration) = moments.next().unwrap();
            Ok(match command {
                "query-status" => json!({"status": status}),
                _ => json!({"status": migration, "ram": {"total": 100, "remaining": 40}}),
            })
        });
        answered.unwrap()
    }

    #[test]
    fn machines_change_with_releases_and_not_with_their_corrections() {
        let said = json!({"qemu": {"micro": 7, "minor": 2, "major": 10}, "package": "Debian 1:10.2.7"});
        let Version { qemu } = serde_json::from_value(said).unwrap();
        assert!(qemu.has_the_machines_of(10_002_007) && qemu.has_the_machines_of(10_002_011));
        assert!(!qemu.has_the_machines_of(10_001_007) && !qemu.has_the_machines_of(11_002_007));
    }

    #[test]
    fn what_ends_while_it_is_looked_at_has_not_failed() {
        let (runs, stopped, sent) =
            (("running", "active"), ("finish-migrate", "active"), ("postmigrate", "completed"));
        for before in [runs, stopped] {
            assert_eq!(seen([before, sent]), Transfer::Sent);
        }
        let sending = Transfer::Sending { done_bytes: 60, total_bytes: 100 };
        assert_eq!(seen([runs, stopped]), sending);
        assert_eq!(seen([("finish-migrate", "completed"); 2]), sending);
        for over in ["none", "failed", "cancelled", "completed"] {
            assert_eq!(seen([("running", over); 2]), Transfer::Idle);
        }
        assert_eq!(seen([("inmigrate", "none"); 2]), Transfer::Waiting);
        assert_eq!(seen([("finish-migrate", "pre-switchover"); 2]), Transfer::Switching);
        assert_eq!(seen([("postmigrate", "pre-switchover"); 2]), Transfer::Sent);
    }
}
