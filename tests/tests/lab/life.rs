//! The whole life of one guest: each verb once, with the agent killed before or after it is asked for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, Lab, LabOptions, Project, Shell, Volume, eventually, in_lab};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::scene::{LIMIT, post};
use crate::volumes::disk::{CHANGE, device};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@here";
const READY: &str = "cumulo-test: ready";
/// Leases are looked at every five seconds.
const LEASE: Duration = Duration::from_secs(3);

/// When the agent dies.
#[derive(Debug, Clone, Copy)]
enum Killed {
    Before,
    After,
}

/// A guest, and how often it has come up.
struct Life<'a> {
    lab: &'a mut Lab,
    instance: Instance,
    boots: usize,
}

impl Life<'_> {
    /// Asks for something while the agent dies, and waits until it runs.
    async fn ask(&mut self, verb: &str, body: Value, killed: Killed) -> Result<Value> {
        let host = &mut self.lab.hosts[0];
        let accepted = match killed {
            Killed::Before => {
                host.agent.kill().await?;
                let accepted = self.instance.action(verb, body).await;
                host.agent.start().await?;
                accepted
            }
            Killed::After => {
                let accepted = self.instance.action(verb, body).await;
                host.crash_agent().await?;
                accepted
            }
        }
        .with_context(|| format!("{verb}, killed {killed:?}"))?;
        let operation = accepted["operation"]["id"].as_str().context("no operation")?;
        let operation = self.instance.wait_operation(operation, LIMIT).await?;
        ensure!(operation["status"] == "succeeded", "{verb}, killed {killed:?}: {operation}");
        Ok(accepted)
    }

    /// A shell in its next boot.
    async fn next_boot(&mut self) -> Result<Shell> {
        self.boots += 1;
        self.instance.wait_for_serial_times(READY, self.boots, LIMIT).await?;
        self.lab.shell(&self.instance, LIMIT).await
    }

    async fn state(&self) -> Result<(String, String)> {
        let instance = self.instance.get().await?;
        let text = |field: &str| instance[field].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("state_reason")))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn every_verb_of_a_life_with_a_dying_agent() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        // Two emulated processors wait for each other on a busy machine: one boot has to prove them.
        lab.cloud.instance_type("wide", 2, 192, 1).await?;
        lab.cloud.instance_type("tall", 1, 192, 1).await?;
        post(&project, "/key_pairs", json!({"name": "laptop", "public_key": KEY})).await?;
        let body = json!({"name": "web", "image": "fast", "instance_type": "fast", "key_pairs": ["laptop"],
            "labels": {"tier": "web"}});
        let instance = project.create(body).await?;
        let mut life = Life { lab, instance, boots: 0 };
        let mut shell = life.next_boot().await?;
        let console = life.instance.serial().await?;
        ensure!(console.contains(&format!("cumulo-test: key={KEY}\r\n")), "no key in:\n{console}");
        let root = root_of(&project, &life.instance).await?;
        on_boot_partition(&mut shell, &root, "echo kept > /mnt/marker")?;

        stands_still(&mut life, &mut shell).await?;
        changes_its_size(&mut life).await?;
        let mut shell = is_repaired(&mut life, &root).await?;
        let twin = has_a_twin(&mut life, &project).await?;
        is_made_anew(&mut life, &mut shell, &root).await?;
        ends(&mut life, &project, &twin).await?;
        life.lab.wait_empty(CHANGE).await
    })
    .await
}

async fn root_of(project: &Project, instance: &Instance) -> Result<Volume> {
    let instance = instance.get().await?;
    let volumes = instance["volumes"].as_array().context("no volumes")?;
    let root = volumes.iter().find(|one| one["position"] == 0).context("no root volume")?;
    let id = root["volume"]["id"].as_str().context("no id")?;
    project.volume_of(&project.cloud.get(&project.path(&format!("/volumes/{id}"))).await?.success()?)
}

/// Does something with the boot partition of a volume at `/mnt`.
fn on_boot_partition(shell: &mut Shell, volume: &Volume, line: &str) -> Result<String> {
    let disk = device(shell, volume)?;
    let mount = format!("mount -t vfat $(ls {disk}?* | head -n 1) /mnt");
    shell.output(&format!("{mount} && {{ {line}; }} && sync && umount /mnt"))
}

/// Paused and resumed, it is the same boot of the same process.
async fn stands_still(life: &mut Life<'_>, shell: &mut Shell) -> Result<()> {
    let processes = life.lab.qemu_processes()?;
    shell.output("echo here > /run/here")?;
    for killed in [Killed::Before, Killed::After] {
        life.ask("pause", json!({}), killed).await?;
        ensure!(life.state().await? == ("paused".into(), "as_requested".into()), "{:?}", life.state().await?);
        life.lab.hosts[0].crash_agent().await?;
        life.lab.wait_hosts_ready(LIMIT).await?;
        ensure!(life.state().await?.0 == "paused", "another agent lets it go on");
        life.ask("resume", json!({}), killed).await?;
        life.instance.wait_for_state("running", CHANGE).await?;
        ensure!(shell.output("cat /run/here")? == "here", "it has forgotten");
    }
    ensure!(life.lab.qemu_processes()? == processes, "it was started anew");
    Ok(())
}

async fn changes_its_size(life: &mut Life<'_>) -> Result<()> {
    let wide = json!({"instance_type": "wide", "reboot": true});
    life.ask("resize", wide.clone(), Killed::Before).await?;
    let mut shell = life.next_boot().await?;
    ensure!(shell.output("nproc")? == "2", "it has not grown");
    ensure!(life.state().await?.1 == "resized", "{:?}", life.state().await?);
    life.ask("revert_resize", json!({}), Killed::After).await?;
    let mut shell = life.next_boot().await?;
    ensure!(shell.output("nproc")? == "1", "it has not shrunk");
    life.instance.stop().await?;
    life.instance.wait_for_state("stopped", LIMIT).await?;
    eventually("what the resize held to be free", LIMIT, async || {
        life.instance.action("resize", json!({"instance_type": "tall"})).await
    })
    .await?;
    life.instance.action("start", json!({})).await?;
    let mut shell = life.next_boot().await?;
    let memory: u64 = shell.output("awk '/^MemTotal:/ { print $2 }' /proc/meminfo")?.parse()?;
    ensure!(memory > 128 << 10, "it has not grown while it was stopped: {memory} KiB");
    life.instance.action("confirm_resize", json!({})).await.map(|_| ())
}

/// Rescued, it finds its own disk behind another one.
async fn is_repaired(life: &mut Life<'_>, root: &Volume) -> Result<Shell> {
    life.ask("rescue", json!({"image": "fast"}), Killed::Before).await?;
    let mut shell = life.next_boot().await?;
    ensure!(life.state().await?.1 == "rescued", "{:?}", life.state().await?);
    ensure!(device(&mut shell, root)? != "/dev/vda", "it boots from its own disk");
    ensure!(on_boot_partition(&mut shell, root, "cat /mnt/marker")? == "kept", "its own disk is another");
    on_boot_partition(&mut shell, root, "echo repaired > /mnt/marker")?;
    life.ask("unrescue", json!({}), Killed::After).await?;
    let mut shell = life.next_boot().await?;
    ensure!(device(&mut shell, root)? == "/dev/vda", "it does not boot from its own disk");
    ensure!(on_boot_partition(&mut shell, root, "cat /mnt/marker")? == "repaired", "the repair is lost");
    Ok(shell)
}

async fn has_a_twin(life: &mut Life<'_>, project: &Project) -> Result<Instance> {
    let body = json!({"name": "twin", "source": {"instance": "web"}, "networks": [], "instance_type": "fast",
        "labels": {"tier": "web"}});
    let twin = project.create(body).await?;
    life.lab.hosts[0].crash_agent().await?;
    let mut shell = life.lab.shell(&twin, LIMIT).await?;
    let root = root_of(project, &twin).await?;
    ensure!(on_boot_partition(&mut shell, &root, "cat /mnt/marker")? == "repaired", "it is no twin");
    on_boot_partition(&mut shell, &root, "echo twin > /mnt/marker")?;
    Ok(twin)
}

async fn is_made_anew(life: &mut Life<'_>, shell: &mut Shell, root: &Volume) -> Result<()> {
    ensure!(on_boot_partition(shell, root, "cat /mnt/marker")? == "repaired", "the twin writes to its disk");
    life.ask("rebuild", json!({"image": "fast"}), Killed::Before).await?;
    let mut shell = life.next_boot().await?;
    ensure!(device(&mut shell, root)? == "/dev/vda", "it boots from another volume");
    on_boot_partition(&mut shell, root, "test ! -e /mnt/marker")?;
    Ok(())
}

/// One goes by its lease, the other with a verb for all that have its label.
async fn ends(life: &mut Life<'_>, project: &Project, twin: &Instance) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the cloud goes by the time of this machine")]
    let soon = |after: Duration| (OffsetDateTime::now_utc() + after).format(&Rfc3339);
    let lease = json!({"lease": {"stop_at": soon(LEASE)?}});
    project.cloud.patch(&life.instance.path(""), lease).await?.success()?;
    life.lab.hosts[0].crash_agent().await?;
    life.instance.wait_for_state("stopped", LIMIT).await?;
    let lease = json!({"lease": {"delete_at": soon(LEASE)?}});
    project.cloud.patch(&life.instance.path(""), lease).await?.success()?;
    life.instance.wait_gone(LIMIT).await?;
    let all = json!({"action": "delete", "label_selector": "tier=web"});
    let done = post(project, "/instance_actions", all).await?;
    ensure!(done["items"].as_array().is_some_and(|items| items.len() == 1), "{done}");
    life.lab.hosts[0].crash_agent().await?;
    twin.wait_gone(LIMIT).await
}
