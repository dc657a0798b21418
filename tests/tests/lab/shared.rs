//! Pools that two hosts share: what a guest wrote on one host, a guest on the other reads; and whatever dies, no disk has
//! two guests.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use camino::Utf8PathBuf;
use lab::{Guest, Host, Instance, Lab, LabOptions, eventually, in_lab};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::LIMIT;
use crate::volumes::disk::{CHANGE, attach, curtain, device, guests, has_none, holds, soon_device, write};

/// Where hosts have the pool.
pub const MOUNTED: &str = "/var/lib/cumulo/shared";

/// A directory that hosts of the lab mount at one path.
pub struct Shared {
    data: Utf8PathBuf,
}

impl Shared {
    /// Offers it to the cloud as the pool `fast`, on all hosts.
    pub async fn start(lab: &mut Lab) -> Result<Self> {
        let shared = Self { data: lab.hosts[0].machine.dir.join("shared") };
        fs::create_dir(&shared.data)?;
        let pool = format!("fast={MOUNTED}");
        for host in &lab.hosts {
            fs::create_dir(host.machine.outside(MOUNTED))?;
            shared.mount(host)?;
        }
        lab.hosts[0].make_pool(&pool)?;
        for host in &mut lab.hosts {
            host.share_pool(&pool).await?;
        }
        lab.cloud.post("/v1/pools", json!({"name": "fast", "low_percent": 0})).await?.success()?;
        Self::wait_hosts(lab, lab.hosts.len()).await?;
        Ok(shared)
    }

    pub fn mount(&self, host: &Host) -> Result<()> {
        host.machine.run("mount", &["--bind", self.data.as_str(), MOUNTED])
    }

    pub fn unmount(host: &Host) -> Result<()> {
        // The agent has its lock there open.
        host.machine.run("umount", &["--lazy", MOUNTED])
    }

    /// Waits until so many hosts have it.
    async fn wait_hosts(lab: &Lab, count: usize) -> Result<()> {
        eventually(format!("{count} hosts to have the pool"), CHANGE, async || {
            let pool = lab.cloud.get("/v1/pools/fast").await?.success()?;
            ensure!(pool["hosts"] == count, "{pool}");
            Ok(())
        })
        .await
    }

    /// Whose the files of its layers are.
    pub fn owners(&self) -> Result<BTreeSet<(u32, u32)>> {
        let layers = fs::read_dir(self.data.join("layers"))?;
        layers
            .map(|layer| layer?.metadata().map(|found| (found.uid(), found.gid())).map_err(Into::into))
            .collect()
    }

    /// Waits until no layer is left in it.
    pub async fn wait_empty(&self, lab: &Lab) -> Result<()> {
        eventually("the pool to be empty", CHANGE, async || {
            let layers: Vec<_> = fs::read_dir(self.data.join("layers"))?.collect::<Result<_, _>>()?;
            ensure!(layers.is_empty(), "{layers:?}");
            Ok(())
        })
        .await?;
        let pool = lab.cloud.get("/v1/pools/fast").await?.success()?;
        ensure!(pool["disk_gib"]["reserved"] == 0, "{pool}");
        Ok(())
    }
}

pub fn in_pool() -> Value {
    json!({"image": "fast", "root_volume": {"pool": "fast"}})
}

pub fn index_of(lab: &Lab, instance: &Instance) -> Result<usize> {
    let name = lab.host_of(instance)?.name().to_owned();
    lab.hosts.iter().position(|host| host.name() == name).context("no such host")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn a_stopped_guest_starts_on_the_other_host_with_its_data() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shared = Shared::start(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let volume = project.volume(json!({"name": "data", "size_gib": 1, "pool": "fast"})).await?;
        let mut wanted = in_pool();
        wanted["volumes"] = json!([{"volume": "data"}]);
        let [(instance, mut shell)] = guests(lab, &project, [("vm", wanted)]).await?;
        let first = index_of(lab, &instance)?;
        let xml = lab.hosts[first].virsh.run(&["dumpxml", &format!("cumulo-{}", instance.id)])?;
        ensure!(xml.matches("cache='none'").count() == 2, "{xml}");
        let disk = device(&mut shell, &volume)?;
        write(&mut shell, &disk, 1, 0)?;
        write(&mut shell, &disk, 2, 500)?;
        instance.project.cloud.post(&instance.path("/move"), json!({})).await?.problem(409, "wrong_state")?;
        drop(shell);
        instance.stop().await?;
        instance.wait_for_state("stopped", LIMIT).await?;

        // Its host may be away meanwhile: it has said that nothing runs.
        lab.hosts[first].agent.kill().await?;
        instance.action("move", json!({})).await?;
        instance.wait_for_state("stopped", LIMIT).await?;
        instance.start().await?;
        let mut shell = lab.shell(&instance, LIMIT).await?;
        ensure!(index_of(lab, &instance)? != first, "it is where it was");
        let disk = device(&mut shell, &volume)?;
        holds(&mut shell, &disk, 1, 0)?;
        holds(&mut shell, &disk, 2, 500)?;
        write(&mut shell, &disk, 3, 100)?;
        instance.wait_for_serial("cumulo-test: boot=2", LIMIT).await?;

        lab.hosts[first].agent.start().await?;
        lab.wait_hosts_ready(CHANGE).await?;
        lab.hosts[first].wait_empty(CHANGE).await?;
        drop(shell);
        instance.stop().await?;
        instance.wait_for_state("stopped", LIMIT).await?;
        instance.action("move", json!({})).await?;
        instance.start().await?;
        let mut shell = lab.shell(&instance, LIMIT).await?;
        ensure!(index_of(lab, &instance)? == first, "it did not come back");
        let disk = device(&mut shell, &volume)?;
        holds(&mut shell, &disk, 3, 100)?;
        curtain(lab, &[&instance], &[&volume]).await?;
        shared.wait_empty(lab).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_from_a_guest_on_one_host_to_a_guest_on_the_other() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shared = Shared::start(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let wanted = [("first", in_pool()), ("second", in_pool())];
        let [(first, mut in_first), (second, mut in_second)] = guests(lab, &project, wanted).await?;
        let (home, away) = (index_of(lab, &first)?, index_of(lab, &second)?);
        ensure!(home != away, "both are on one host");
        let volume = project.volume(json!({"name": "data", "size_gib": 1, "pool": "fast"})).await?;
        for round in 0..3 {
            let disk = attach(&volume, &first, &mut in_first).await?;
            if round > 0 {
                holds(&mut in_first, &disk, 100 + round - 1, 20)?;
            }
            write(&mut in_first, &disk, round, 10)?;
            volume.detach_from(&first).await?.expect(202)?;
            lab.hosts[home].crash_agent().await?;
            volume.attach_to(&second).await?;
            volume.wait_for_state("available", CHANGE).await?;
            has_none(&mut in_first, &volume)?;

            volume.attach_to(&second).await?.expect(202)?;
            lab.hosts[away].crash_agent().await?;
            volume.wait_for_state("attached", CHANGE).await?;
            let disk = soon_device(&mut in_second, &volume).await?;
            holds(&mut in_second, &disk, round, 10)?;
            write(&mut in_second, &disk, 100 + round, 20)?;
            volume.detach_from(&second).await?.expect(202)?;
            volume.wait_for_state("available", CHANGE).await?;
        }
        // It is removed by a host that never had an instance with it last.
        lab.hosts[away].agent.kill().await?;
        volume.delete().await?.success()?;
        volume.wait_gone(Duration::from_secs(90)).await?;
        lab.hosts[away].agent.start().await?;
        lab.wait_hosts_ready(CHANGE).await?;
        curtain(lab, &[&first, &second], &[]).await?;
        shared.wait_empty(lab).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn a_lost_host_gives_its_guest_up_only_when_it_is_dead() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shared = Shared::start(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let [(instance, mut shell)] = guests(lab, &project, [("vm", in_pool())]).await?;
        let (lost, other) = (index_of(lab, &instance)?, 1 - index_of(lab, &instance)?);
        write(&mut shell, "/dev/vda", 5, 900)?;
        let domain = format!("cumulo-{}", instance.id);
        let process = lab.hosts[lost].qemu_processes()?.remove(&domain).context("no process")?;

        lab.hosts[lost].agent.kill().await?;
        let host = format!("/v1/hosts/{}", lab.hosts[lost].name());
        let dead = json!({"no_guest_runs": true});
        lab.cloud.post(&format!("{host}/declare_dead"), dead.clone()).await?.problem(409, "wrong_state")?;
        eventually("the host to be unreachable", CHANGE, async || {
            let seen = lab.cloud.get(&host).await?.success()?;
            ensure!(seen["state"] == "unreachable", "{seen}");
            Ok(())
        })
        .await?;
        instance.project.cloud.post(&instance.path("/move"), json!({})).await?.problem(409, "wrong_state")?;

        // An operator who is wrong: its guest runs. The last guard is the lock of the disk.
        lab.cloud.post(&format!("{host}/declare_dead"), dead).await?.success()?;
        instance.action("move", json!({})).await?;
        instance.wait_for_state("error", LIMIT).await?;
        ensure!(process.is_alive(), "the guest that ran has ended");
        // libvirt lists one that QEMU is about to refuse.
        eventually("the second guest to be refused", CHANGE, async || {
            ensure!(!lab.hosts[other].virsh.domains()?.contains(&domain), "two guests have one disk");
            Ok(())
        })
        .await?;
        write(&mut shell, "/dev/vda", 6, 901)?;

        // Now it is dead.
        drop(shell);
        process.signal(Signal::SIGKILL)?;
        let mut shell = lab.shell(&instance, LIMIT).await?;
        ensure!(index_of(lab, &instance)? == other, "it is where it was");
        holds(&mut shell, "/dev/vda", 6, 901)?;

        // It comes back, and leaves the guest where it is.
        lab.hosts[lost].agent.start().await?;
        lab.wait_hosts_ready(CHANGE).await?;
        lab.hosts[lost].wait_empty(CHANGE).await?;
        ensure!(lab.cloud.get(&host).await?.success()?.get("declared_dead_at").is_none());
        holds(&mut shell, "/dev/vda", 6, 901)?;
        curtain(lab, &[&instance], &[]).await?;
        shared.wait_empty(lab).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn nothing_is_made_or_started_where_the_pool_is_not_mounted() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let shared = Shared::start(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let [(instance, mut shell)] = guests(lab, &project, [("vm", in_pool())]).await?;
        write(&mut shell, "/dev/vda", 5, 900)?;
        drop(shell);
        instance.stop().await?;
        instance.wait_for_state("stopped", LIMIT).await?;
        Shared::unmount(&lab.hosts[0])?;
        Shared::wait_hosts(lab, 0).await?;
        let host = lab.cloud.get(&format!("/v1/hosts/{}", lab.hosts[0].name())).await?.success()?;
        let why = host["shared_pools"][0]["detail"].as_str().unwrap_or_default().to_owned();
        ensure!(why.contains("is its file system mounted?"), "{host}");
        lab.hosts[0].crash_agent().await?;
        lab.wait_hosts_ready(CHANGE).await?;
        instance.start().await?;
        let failed = instance.wait_for_state("error", LIMIT).await?;
        ensure!(failed["state_detail"].as_str().unwrap_or_default().contains("shared pool"), "{failed}");
        let below: Vec<_> = fs::read_dir(lab.hosts[0].machine.outside(MOUNTED))?.collect::<Result<_, _>>()?;
        ensure!(below.is_empty(), "made below the mount: {below:?}");
        shared.mount(&lab.hosts[0])?;
        let mut shell = lab.shell(&instance, LIMIT).await?;
        holds(&mut shell, "/dev/vda", 5, 900)?;
        curtain(lab, &[&instance], &[]).await?;
        shared.wait_empty(lab).await
    })
    .await
}
