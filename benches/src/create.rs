//! B1: from POST to a running domain with a disk and a network card, beside the same by hand.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::compare::{Series, report};
use crate::site::Site;

const INSTANCES: &str = "/v1/projects/demo/instances";
/// The peer's own, so that no packet rules are about it.
const BRIDGE: &str = "bench-b1";
const TAP: &str = "bench-tap";

/// Alternates between the two; every machine that is made is removed before the next. The network's bridge is there
/// on both sides, because `hello` is in it; the tap is made by libvirt.
pub(crate) async fn run(site: &Site, rounds: usize) -> Result<()> {
    let mut ours = Series::new("POST .../instances to running");
    let mut peer = Series::new("qemu-img create + virsh create of the same XML, tap too");
    let bridge = Bridge::new()?;
    for round in 0..rounds {
        let body = json!({"name": format!("bench-{round}"), "image": "cumulo-test", "instance_type": "tiny",
            "networks": [{"network": "default"}]});
        let started = Instant::now();
        let made: Value = site.cloud.post(&format!("{INSTANCES}?wait=60"), body).await?.success()?;
        ours.values.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(made["state"] == "running", "the instance does not run: {made}");
        let id = made["id"].as_str().context("an id")?;
        let xml = virsh(&["dumpxml", "--inactive", &format!("cumulo-{id}")])?;
        site.cloud.delete(&format!("{INSTANCES}/{id}?wait=60")).await?.success()?;
        peer.values.push(by_hand(site, id, &xml)?);
    }
    drop(bridge);
    report("b1", "ms", &ours, &peer)
}

struct Bridge;

impl Bridge {
    fn new() -> Result<Self> {
        run_command("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        let this = Self;
        run_command("ip", &["link", "set", BRIDGE, "addrgenmode", "none", "up"])?;
        Ok(this)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Err(error) = run_command("ip", &["link", "delete", BRIDGE]) {
            eprintln!("{error:#}");
        }
    }
}

/// The time of the bare commands, with disk and seed of the peer's own.
fn by_hand(site: &Site, id: &str, xml: &str) -> Result<f64> {
    let bridge = word_after(xml, "<source bridge='")?;
    let tap = word_after(xml, "<target dev='ct")?;
    let xml = xml
        .replace(&format!("bridge='{bridge}'"), &format!("bridge='{BRIDGE}'"))
        .replace(&format!("dev='ct{tap}'"), &format!("dev='{TAP}'"));
    let copy = Copy::of(site, id, &xml)?;
    let started = Instant::now();
    copy.start(1)?;
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    virsh(&["destroy", &copy.name])?;
    Ok(elapsed)
}

/// A domain like an instance's, which no agent knows, with files of its own.
pub(crate) struct Copy {
    pub name: String,
    /// With `0.qcow2`, its disk.
    pub path: String,
    base: String,
    _folder: tempfile::TempDir,
}

impl Copy {
    /// `xml` is that of the instance's domain.
    pub(crate) fn of(site: &Site, id: &str, xml: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in("/var/tmp")?;
        let path = folder.path().to_str().context("a path of text")?.to_owned();
        run_command("chmod", &["711", &path])?;
        let named = |folder| xml.split('\'').find(|text| text.contains(folder) && text.ends_with(".qcow2"));
        let base = named("/images/").context("the XML names no cached image")?.to_owned();
        let layer = named("/layers/").context("the XML names no layer")?;
        let own = uuid::Uuid::new_v4().to_string();
        let name = format!("bench-{own}");
        let xml = xml
            .replace(layer, &format!("{path}/0.qcow2"))
            .replace(&format!("{}/agent/pool/instances/{id}", site.state), &path)
            .replace(&format!("cumulo-{id}"), &name)
            .replace(id, &own)
            .replace("https://cumulo.dev/xmlns/instance/1", "https://cumulo.dev/xmlns/bench/1");
        std::fs::write(format!("{path}/domain.xml"), xml)?;
        std::fs::write(format!("{path}/seed.img"), vec![0; 2 << 20])?;
        Ok(Self { name, path, base, _folder: folder })
    }

    /// Makes its disk of this size and starts it.
    pub(crate) fn start(&self, size_gib: u32) -> Result<()> {
        create_layer(&format!("{}/0.qcow2", self.path), &self.base, size_gib)?;
        virsh(&["create", &format!("{}/domain.xml", self.path)]).map(|_| ())
    }
}

/// An overlay with the options of ours.
pub(crate) fn create_layer(path: &str, below: &str, size_gib: u32) -> Result<()> {
    let options = format!("extended_l2=on,cluster_size=128k,backing_file={below},backing_fmt=qcow2");
    let size = format!("{size_gib}G");
    run_command("qemu-img", &["create", "-q", "-u", "-f", "qcow2", "-o", &options, path, &size]).map(|_| ())
}

/// What stands between `start` and the next quotation mark.
fn word_after<'a>(xml: &'a str, start: &str) -> Result<&'a str> {
    let rest = xml.split_once(start).with_context(|| format!("the XML has no {start}"))?.1;
    rest.split('\'').next().context("a quotation mark")
}

pub(crate) fn virsh(arguments: &[&str]) -> Result<String> {
    let mut all = vec!["--quiet", "--connect", "qemu:///system"];
    all.extend_from_slice(arguments);
    run_command("virsh", &all)
}

pub(crate) fn run_command(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
