//! What a guest writes to, written to at another host as well: jobs of its QEMU there, and NBD of the other QEMU here.
//!
//! Neither side has a name that anybody could connect to: all sockets are handed in. INVARIANT: a mirror whose other side
//! cannot write, or is gone, ends with an error of its own and none of the guest's.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use protocol::VolumeId;
use serde::Deserialize;
use serde_json::{Value, json};
use virt::domain::Domain as Handle;

use super::BoxError;
use super::migrating::{ask, give};

/// What jobs and nodes of mirrors begin with; a number follows, since names of nodes are short.
const NAME: &str = "cumulo-mirror-";
const DOOR: &str = "cumulo-disks";
const NOT_OPEN: &str = "NBD server not running";
/// How long mirrors may take to end of a guest that stands still: it gets little more to write, and then flushes.
const END: Duration = Duration::from_secs(8);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How far all mirrors of a guest are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mirrors {
    None,
    Copying {
        done_bytes: u64,
        total_bytes: u64,
    },
    /// The other side gets each change.
    Ready,
    Broken,
}

#[derive(Debug, Deserialize)]
struct Job {
    device: String,
    len: u64,
    offset: u64,
    status: String,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Block {
    qdev: Option<String>,
    inserted: Option<Inserted>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Inserted {
    node_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Node {
    node_name: Option<String>,
}

/// What QEMU calls the top of a volume's chain.
fn top(blocks: &[Block], volume: VolumeId) -> Result<String, BoxError> {
    let alias = format!("ua-{volume}");
    let is_it = |block: &&Block| block.qdev.iter().any(|path| path.split('/').any(|part| part == alias));
    let node = blocks.iter().find(is_it).and_then(|block| block.inserted.as_ref()?.node_name.clone());
    node.ok_or_else(|| format!("the guest has no disk of volume {volume}").into())
}

fn blocks(domain: &Handle) -> Result<Vec<Block>, BoxError> {
    Ok(serde_json::from_value(ask(domain, "query-block", Value::Null)?)?)
}

/// The mirrors among all jobs.
fn jobs(domain: &Handle) -> Result<Vec<Job>, BoxError> {
    let jobs: Vec<Job> = serde_json::from_value(ask(domain, "query-block-jobs", Value::Null)?)?;
    Ok(jobs.into_iter().filter(|job| job.device.starts_with(NAME)).collect())
}

pub(super) fn open(domain: &Handle, volumes: &[VolumeId], door: &UnixListener) -> Result<(), BoxError> {
    // Of an agent that has ended since.
    close(domain)?;
    let blocks = blocks(domain)?;
    give(domain, DOOR, door.as_fd())?;
    let address = json!({"type": "fd", "data": {"str": DOOR}});
    ask(domain, "nbd-server-start", json!({"addr": address, "max-connections": volumes.len()}))?;
    for volume in volumes {
        let node = top(&blocks, *volume)?;
        let export = json!({"type": "nbd", "id": format!("{NAME}{volume}"), "name": volume.to_string(),
                            "node-name": node, "writable": true});
        ask(domain, "block-export-add", export)?;
    }
    Ok(())
}

pub(super) fn close(domain: &Handle) -> Result<(), BoxError> {
    match ask(domain, "nbd-server-stop", Value::Null) {
        Err(error) if !error.to_string().contains(NOT_OPEN) => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn begin(domain: &Handle, ways: &[(VolumeId, UnixStream)]) -> Result<(), BoxError> {
    end(domain)?;
    let blocks = blocks(domain)?;
    for (index, (volume, way)) in ways.iter().enumerate() {
        let (name, top) = (format!("{NAME}{index}"), top(&blocks, *volume)?);
        give(domain, &name, way.as_fd())?;
        let there = json!({"driver": "nbd", "node-name": name, "export": volume.to_string(), "discard": "unmap",
                           "server": {"type": "fd", "str": name}});
        ask(domain, "blockdev-add", there)?;
        // What is below is there already. Until all is there the guest waits for nothing.
        let mirror = json!({"job-id": name, "device": top, "target": name, "sync": "top", "copy-mode": "background",
                            "on-source-error": "report", "on-target-error": "report", "auto-dismiss": false});
        ask(domain, "blockdev-mirror", mirror)?;
    }
    Ok(())
}

pub(super) fn look(domain: &Handle) -> Result<Mirrors, BoxError> {
    Ok(judge(&jobs(domain)?))
}

fn judge(jobs: &[Job]) -> Mirrors {
    let is = |job: &Job, words: &[&str]| words.contains(&job.status.as_str());
    if jobs.is_empty() {
        Mirrors::None
    } else if jobs.iter().any(|job| job.error.is_some() || is(job, &["aborting", "concluded", "null"])) {
        Mirrors::Broken
    } else if jobs.iter().all(|job| is(job, &["ready", "standby"])) {
        Mirrors::Ready
    } else {
        let sum = |of: fn(&Job) -> u64| jobs.iter().map(of).fold(0, u64::saturating_add);
        Mirrors::Copying { done_bytes: sum(|job| job.offset), total_bytes: sum(|job| job.len) }
    }
}

/// From now on each write of the guest is one at the other side, too, so that there is never more left than it waits for.
/// False when nothing is mirrored.
pub(super) fn keep_pace(domain: &Handle) -> Result<bool, BoxError> {
    let jobs = jobs(domain)?;
    for job in &jobs {
        let change = json!({"id": job.device, "type": "mirror", "copy-mode": "write-blocking"});
        ask(domain, "block-job-change", change)?;
    }
    Ok(!jobs.is_empty())
}

/// See [`crate::hypervisor::Hypervisor::switch_over`].
pub(super) fn switch_over(domain: &Handle) -> Result<(), BoxError> {
    let mirrors = jobs(domain)?;
    for job in &mirrors {
        // Without force it ends when all is there, and flushed.
        ask(domain, "block-job-cancel", json!({"device": job.device, "force": false}))?;
    }
    let begun = Instant::now();
    loop {
        let now = jobs(domain)?;
        if let Some(job) = now.iter().find(|job| job.error.is_some()) {
            return Err(format!("{}: {}", job.device, job.error.as_deref().unwrap_or_default()).into());
        }
        if now.len() != mirrors.len() || now.is_empty() {
            return Err("a mirror is not there any more".into());
        }
        if now.iter().all(|job| job.status == "concluded") {
            break;
        }
        if begun.elapsed() > END {
            return Err("a mirror does not end".into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    for job in &mirrors {
        forget(domain, &job.device)?;
    }
    ask(domain, "migrate-continue", json!({"state": "pre-switchover"})).map(drop)
}

pub(super) fn end(domain: &Handle) -> Result<(), BoxError> {
    for job in jobs(domain)? {
        if job.status != "concluded" {
            ask(domain, "block-job-cancel", json!({"device": job.device, "force": true}))?;
        }
    }
    let begun = Instant::now();
    while jobs(domain)?.iter().any(|job| job.status != "concluded") {
        if begun.elapsed() > END {
            return Err("a mirror does not end".into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    for job in jobs(domain)? {
        ask(domain, "job-dismiss", json!({"id": job.device}))?;
    }
    let nodes: Vec<Node> =
        serde_json::from_value(ask(domain, "query-named-block-nodes", json!({"flat": true}))?)?;
    for name in nodes.into_iter().filter_map(|node| node.node_name) {
        if name.starts_with(NAME) {
            ask(domain, "blockdev-del", json!({"node-name": name}))?;
        }
    }
    Ok(())
}

fn forget(domain: &Handle, name: &str) -> Result<(), BoxError> {
    ask(domain, "job-dismiss", json!({"id": name}))?;
    ask(domain, "blockdev-del", json!({"node-name": name})).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: &str, offset: u64, error: Option<&str>) -> Job {
        let (device, error) = (format!("{NAME}one"), error.map(str::to_owned));
        Job { device, len: 100, offset, status: status.to_owned(), error }
    }

    #[test]
    fn mirrors_are_ready_when_all_are_and_broken_when_one_is() {
        assert_eq!(judge(&[]), Mirrors::None);
        let copying = [job("ready", 100, None), job("running", 20, None)];
        assert_eq!(judge(&copying), Mirrors::Copying { done_bytes: 120, total_bytes: 200 });
        assert_eq!(judge(&[job("ready", 100, None), job("standby", 100, None)]), Mirrors::Ready);
        for broken in [job("concluded", 50, Some("No space left on device")), job("concluded", 100, None)] {
            assert_eq!(judge(&[job("ready", 100, None), broken]), Mirrors::Broken);
        }
    }

    #[test]
    fn a_disk_is_found_by_its_volume() {
        let volume = VolumeId::from_uuid(uuid::Uuid::now_v7());
        let said = json!([
            {"device": "", "qdev": "/machine/peripheral/ua-other/virtio-backend", "inserted": {"node-name": "a"}},
            {"device": "", "qdev": format!("/machine/peripheral/ua-{volume}/virtio-backend"), "inserted": {"node-name": "b"}},
            {"device": "", "qdev": "cd"},
        ]);
        let blocks: Vec<Block> = serde_json::from_value(said).unwrap();
        assert_eq!(top(&blocks, volume).unwrap(), "b");
        assert!(top(&blocks, VolumeId::from_uuid(uuid::Uuid::now_v7())).is_err());
    }
}
