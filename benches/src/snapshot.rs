//! B11: a snapshot of a running instance, from the call until it is available, beside the same transaction by hand
//! through QEMU's monitor. For disks of 1, 10 and 100 GiB: the time shall not depend on the size.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::compare::{Series, report};
use crate::create::{Copy, create_layer, virsh};
use crate::site::Site;

const PROJECT: &str = "/v1/projects/demo";
const SIZES_GIB: [u32; 3] = [1, 10, 100];

/// One instance for each size. The peer's domain is a copy of its XML, on files of its own.
pub(crate) async fn run(site: &Site, rounds: usize) -> Result<()> {
    for size in SIZES_GIB {
        let body = json!({"name": format!("bench-{size}"), "image": "cumulo-test", "instance_type": "tiny",
            "root_disk_gib": size, "networks": []});
        let made: Value = site.cloud.post(&format!("{PROJECT}/instances?wait=60"), body).await?.success()?;
        let id = made["id"].as_str().context("an id")?.to_owned();
        ensure!(made["state"] == "running", "the instance does not run: {made}");
        let mut ours = Series::new("POST .../snapshots to available");
        let mut peer = Series::new("qemu-img create + QMP transaction");
        let twin = Twin::new(site, &id, size)?;
        for round in 0..rounds {
            ours.values.push(by_api(site, &id, round).await?);
            peer.values.push(twin.snapshot(round)?);
        }
        drop(twin);
        site.cloud.delete(&format!("{PROJECT}/instances/{id}?wait=60")).await?.success()?;
        for round in 0..rounds {
            site.cloud.delete(&format!("{PROJECT}/snapshots/bench-{round}")).await?.success()?;
        }
        report(&format!("b11-{size}-gib"), "ms", &ours, &peer)?;
    }
    Ok(())
}

async fn by_api(site: &Site, instance: &str, round: usize) -> Result<f64> {
    let body = json!({"name": format!("bench-{round}"), "instance": instance});
    let started = Instant::now();
    let taken: Value = site.cloud.post(&format!("{PROJECT}/snapshots?wait=60"), body).await?.success()?;
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    ensure!(taken["state"] == "available", "the snapshot is not there: {taken}");
    Ok(elapsed)
}

/// The peer's domain.
struct Twin {
    copy: Copy,
    size_gib: u32,
}

impl Twin {
    fn new(site: &Site, id: &str, size_gib: u32) -> Result<Self> {
        let xml = virsh(&["dumpxml", "--inactive", &format!("cumulo-{id}")])?;
        let copy = Copy::of(site, id, &xml)?;
        copy.start(size_gib)?;
        Ok(Self { copy, size_gib })
    }

    /// The time of a new layer and of the switch to it, ms.
    fn snapshot(&self, round: usize) -> Result<f64> {
        let [below, above] = [round, round + 1].map(|number| format!("{}/{number}.qcow2", self.copy.path));
        let blocks: Value = self.ask(&json!({"execute": "query-block"}))?;
        let writable = blocks["return"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["inserted"]["file"].as_str().is_some_and(|file| file.contains(&below)));
        let node = writable.context("the domain has no such disk")?["inserted"]["node-name"].clone();
        let switch = json!({"type": "blockdev-snapshot-sync", "data": {"node-name": node,
            "snapshot-node-name": format!("round-{round}"), "snapshot-file": above, "format": "qcow2",
            "mode": "existing"}});
        let transaction = json!({"execute": "transaction", "arguments": {"actions": [switch]}});
        let started = Instant::now();
        create_layer(&above, &below, self.size_gib)?;
        // QEMU runs as another user.
        std::fs::set_permissions(&above, Permissions::from_mode(0o666))?;
        let done = self.ask(&transaction)?;
        let elapsed = started.elapsed().as_secs_f64() * 1e3;
        ensure!(done["error"].is_null(), "QEMU refused: {done}");
        Ok(elapsed)
    }

    fn ask(&self, command: &Value) -> Result<Value> {
        let answer = virsh(&["qemu-monitor-command", &self.copy.name, &command.to_string()])?;
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        if let Err(error) = virsh(&["destroy", &self.copy.name]) {
            eprintln!("{error:#}");
        }
    }
}
