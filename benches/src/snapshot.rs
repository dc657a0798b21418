//! B11: a snapshot of a running instance, from the call until it is available, beside the same transaction by hand
//! through QEMU's monitor. For disks of 1, 10 and 100 GiB: the time shall not depend on the size.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::compare::{Series, report};
use crate::create::{run_command, virsh};
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

/// A domain like the instance's, which no agent knows.
struct Twin {
    name: String,
    folder: tempfile::TempDir,
    size_gib: u32,
}

impl Twin {
    fn new(site: &Site, id: &str, size_gib: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cumulo-bench-").tempdir_in("/var/tmp")?;
        let path = folder.path().to_str().context("a path of text")?.to_owned();
        run_command("chmod", &["711", &path])?;
        let xml = virsh(&["dumpxml", "--inactive", &format!("cumulo-{id}")])?;
        let named = |part| xml.split('\'').find(|text| text.contains(part) && text.ends_with(".qcow2"));
        let base = named("/images/").context("the XML names no cached image")?;
        let layer = named("/layers/").context("the XML names no layer")?;
        let own = uuid::Uuid::new_v4().to_string();
        let name = format!("bench-{own}");
        let xml = xml
            .replace(layer, &format!("{path}/0.qcow2"))
            .replace(&format!("{}/agent/pool/instances/{id}", site.state), &path)
            .replace(id, &own)
            .replace(&format!("<name>cumulo-{own}"), &format!("<name>{name}"))
            .replace("https://cumulo.dev/xmlns/instance/1", "https://cumulo.dev/xmlns/bench/1");
        std::fs::write(format!("{path}/domain.xml"), &xml)?;
        std::fs::write(format!("{path}/seed.img"), vec![0; 2 << 20])?;
        create_layer(&format!("{path}/0.qcow2"), base, size_gib)?;
        virsh(&["create", &format!("{path}/domain.xml")])?;
        Ok(Self { name, folder, size_gib })
    }

    /// The time of a new layer and of the switch to it, ms.
    fn snapshot(&self, round: usize) -> Result<f64> {
        let path = self.folder.path().to_str().context("a path of text")?;
        let [below, above] = [round, round + 1].map(|number| format!("{path}/{number}.qcow2"));
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
        let done = self.ask(&transaction)?;
        let elapsed = started.elapsed().as_secs_f64() * 1e3;
        ensure!(done["error"].is_null(), "QEMU refused: {done}");
        Ok(elapsed)
    }

    fn ask(&self, command: &Value) -> Result<Value> {
        let answer = virsh(&["qemu-monitor-command", &self.name, &command.to_string()])?;
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        if let Err(error) = virsh(&["destroy", &self.name]) {
            eprintln!("{error:#}");
        }
    }
}

fn create_layer(path: &str, below: &str, size_gib: u32) -> Result<()> {
    let options = format!("extended_l2=on,cluster_size=128k,backing_file={below},backing_fmt=qcow2");
    let size = format!("{size_gib}G");
    run_command("qemu-img", &["create", "-q", "-u", "-f", "qcow2", "-o", &options, path, &size]).map(|_| ())
}
