//! Volumes in real guests: what one writes another reads, nobody reads what was deleted, and whoever dies on the
//! way, the end is the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lab::{Guest, Instance, Lab, LabOptions, Project, Shell, Volume, eventually, in_lab};
use serde_json::{Value, json};

use crate::scene::{EFFECT, LIMIT};

/// An agent that is killed has to come back first.
const CHANGE: Duration = Duration::from_secs(40);
const GIB: u64 = 1 << 30;

/// Guests without cards, with a shell in each. They boot side by side.
async fn guests<const N: usize>(
    lab: &Lab,
    project: &Project,
    wanted: [(&str, Value); N],
) -> Result<[(Instance, Shell); N]> {
    let mut instances = Vec::new();
    for (name, mut body) in wanted {
        let rest = json!({"name": name, "instance_type": "fast", "networks": []});
        body.as_object_mut().context("no object")?.extend(rest.as_object().cloned().unwrap_or_default());
        instances.push(project.create(body).await?);
    }
    let mut all = Vec::new();
    for instance in instances {
        let shell = lab.shell(&instance, LIMIT).await?;
        all.push((instance, shell));
    }
    all.try_into().ok().context("as many guests as wanted")
}

fn from_image() -> Value {
    json!({"image": "fast"})
}

/// The device under which a guest has the volume.
fn device(shell: &mut Shell, volume: &Volume) -> Result<String> {
    let file = shell.output(&format!("grep -lx {} /sys/block/*/serial", volume.serial))?;
    let name = file.split('/').nth(3).with_context(|| format!("{file:?} names no disk"))?;
    Ok(format!("/dev/{name}"))
}

async fn soon_device(shell: &mut Shell, volume: &Volume) -> Result<String> {
    eventually(format!("{} to see {}", shell.name, volume.serial), EFFECT, async || device(shell, volume))
        .await
}

fn has_none(shell: &mut Shell, volume: &Volume) -> Result<()> {
    shell.fails(&format!("grep -lx {} /sys/block/*/serial", volume.serial))
}

/// Attaches a volume and waits until the guest has it.
async fn attach(volume: &Volume, instance: &Instance, shell: &mut Shell) -> Result<String> {
    volume.attach_to(instance).await?.expect(202)?;
    volume.wait_for_state("attached", CHANGE).await?;
    soon_device(shell, volume).await
}

/// Writes lines that depend on `seed`, at this place.
fn write(shell: &mut Shell, device: &str, seed: u32, at_mib: u64) -> Result<()> {
    let lines = format!("seq {seed} {}", seed + 100_000);
    shell.output(&format!("{lines} | dd of={device} bs=1M seek={at_mib} conv=fsync 2>/dev/null")).map(|_| ())
}

/// Compares what is at this place with what [`write`] puts there, byte for byte.
fn holds(shell: &mut Shell, device: &str, seed: u32, at_mib: u64) -> Result<()> {
    let line = format!(
        "seq {seed} {} > /run/want; length=$(wc -c < /run/want); blockdev --flushbufs {device}; \
         dd if={device} bs=1M skip={at_mib} 2>/dev/null | head -c $length | cmp - /run/want",
        seed + 100_000
    );
    shell.output(&line).map(|_| ())
}

/// So many MiB from this place on are zeros.
fn is_zero(shell: &mut Shell, device: &str, at_mib: u64, mib: u64) -> Result<()> {
    let read = format!("dd if={device} bs=1M skip={at_mib} count={mib} 2>/dev/null");
    let said = shell.output(&format!("{read} | tr -d '\\000' | head -c 64 | wc -c"))?;
    ensure!(said == "0", "{device} holds something at {at_mib} MiB");
    Ok(())
}

fn size(shell: &mut Shell, device: &str) -> Result<u64> {
    let name = device.trim_start_matches("/dev/");
    Ok(shell.output(&format!("cat /sys/block/{name}/size"))?.parse::<u64>()? * 512)
}

/// Deletes all, and looks whether anything is left anywhere.
async fn curtain(lab: &Lab, instances: &[&Instance], volumes: &[&Volume]) -> Result<()> {
    try_join_all(instances.iter().map(async |one| one.delete().await?.success())).await?;
    try_join_all(instances.iter().map(|one| one.wait_gone(LIMIT))).await?;
    for volume in volumes {
        volume.wait_for_state("available", CHANGE).await?;
        volume.delete().await?.success()?;
    }
    try_join_all(volumes.iter().map(|one| one.wait_gone(CHANGE))).await?;
    lab.wait_empty(Duration::from_secs(30)).await?;
    lab.control.verify()?;
    let hosts = lab.cloud.get("/v1/hosts").await?.success()?;
    for host in hosts["items"].as_array().context("no list of hosts")? {
        ensure!(host["disk_gib"]["reserved"] == 0, "disk is still reserved: {host}");
    }
    Ok(())
}

/// Who is killed at every step.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Nobody,
    Agent,
    Libvirtd,
    Api,
}

impl Victim {
    async fn crash(self, lab: &mut Lab, after_ms: u64) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        match self {
            Self::Nobody => Ok(()),
            Self::Agent => lab.hosts[0].crash_agent().await,
            Self::Libvirtd => lab.hosts[0].crash_libvirtd().await,
            Self::Api => lab.control.crash_api().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_from_guest_to_guest_and_grows() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Nobody).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_at_every_step_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Agent).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirtd_that_is_killed_at_every_step_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Libvirtd).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_killed_at_every_step_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| journey(lab, Victim::Api).await).await
}

async fn journey(lab: &mut Lab, victim: Victim) -> Result<()> {
    let project = lab.project_with(Guest::Fast).await?;
    let wanted = [("first", from_image()), ("second", from_image())];
    let [(first, mut in_first), (second, mut in_second)] = guests(lab, &project, wanted).await?;
    let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
    let processes = lab.qemu_processes()?;

    volume.attach_to(&first).await?.expect(202)?;
    victim.crash(lab, 0).await?;
    volume.wait_for_state("attached", CHANGE).await?;
    let disk = soon_device(&mut in_first, &volume).await?;
    ensure!(size(&mut in_first, &disk)? == GIB);
    is_zero(&mut in_first, &disk, 0, 16)?;
    write(&mut in_first, &disk, 1, 0)?;
    write(&mut in_first, &disk, 500_000, 1000)?;

    volume.detach_from(&first).await?.expect(202)?;
    victim.crash(lab, 30).await?;
    volume.wait_for_state("available", CHANGE).await?;
    has_none(&mut in_first, &volume)?;

    volume.attach_to(&second).await?.expect(202)?;
    victim.crash(lab, 100).await?;
    volume.wait_for_state("attached", CHANGE).await?;
    let disk = soon_device(&mut in_second, &volume).await?;
    holds(&mut in_second, &disk, 1, 0)?;
    holds(&mut in_second, &disk, 500_000, 1000)?;

    let limits = json!({"size_gib": 3, "iops_limit": 400, "bytes_per_second_limit": 50_000_000});
    volume.change(limits).await?;
    victim.crash(lab, 60).await?;
    volume.wait_for_state("attached", CHANGE).await?;
    eventually("the guest to see its new size", EFFECT, async || {
        let size = size(&mut in_second, &disk)?;
        ensure!(size == 3 * GIB, "{size} bytes");
        Ok(())
    })
    .await?;
    let xml = lab.hosts[0].virsh.run(&["dumpxml", &format!("cumulo-{}", second.id)])?;
    for limit in ["<total_iops_sec>400<", "<total_bytes_sec>50000000<"] {
        ensure!(xml.contains(limit), "no {limit} in {xml}");
    }
    holds(&mut in_second, &disk, 500_000, 1000)?;
    is_zero(&mut in_second, &disk, 1024, 16)?;
    write(&mut in_second, &disk, 7, 3000)?;
    holds(&mut in_second, &disk, 7, 3000)?;

    // It outlives its instance, and the guest need not let go of it first.
    volume.delete().await?.problem(409, "in_use")?;
    second.delete().await?.success()?;
    victim.crash(lab, 10).await?;
    second.wait_gone(LIMIT).await?;
    volume.wait_for_state("available", CHANGE).await?;
    let disk = attach(&volume, &first, &mut in_first).await?;
    holds(&mut in_first, &disk, 7, 3000)?;
    let still = lab.qemu_processes()?;
    ensure!(still.len() == 1 && still.iter().all(|one| processes.get(one.0) == Some(one.1)), "{still:?}");

    volume.detach_from(&first).await?.expect(202)?;
    volume.wait_for_state("available", CHANGE).await?;
    volume.delete().await?.expect(202)?;
    victim.crash(lab, 0).await?;
    volume.wait_gone(CHANGE).await?;
    curtain(lab, &[&first], &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_calls_one_gets_the_volume() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let wanted = [("first", from_image()), ("second", from_image())];
        let [(first, mut in_first), (second, mut in_second)] = guests(lab, &project, wanted).await?;
        let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
        for round in 0..3 {
            let calls = (0..8).map(|call| volume.attach_to(if call % 2 == 0 { &first } else { &second }));
            let answers = try_join_all(calls).await?;
            let won = answers.iter().position(|answer| answer.status == 202).context("nobody won")?;
            for (call, answer) in answers.into_iter().enumerate().filter(|(call, _)| *call != won) {
                answer.problem(409, "in_use").with_context(|| format!("call {call} of round {round}"))?;
            }
            volume.wait_for_state("attached", CHANGE).await?;
            let (winner, has, lacks) = if won % 2 == 0 {
                (&first, &mut in_first, &mut in_second)
            } else {
                (&second, &mut in_second, &mut in_first)
            };
            soon_device(has, &volume).await?;
            has_none(lacks, &volume)?;
            let answers = try_join_all((0..3).map(|_| volume.detach_from(winner))).await?;
            ensure!(answers.iter().any(|answer| answer.status == 202), "{answers:?}");
            volume.wait_for_state("available", CHANGE).await?;
        }
        curtain(lab, &[&first, &second], &[&volume]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_on_one_host_is_not_attached_on_another() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let wanted = [("first", from_image()), ("second", from_image())];
        let [(first, mut in_first), (second, _)] = guests(lab, &project, wanted).await?;
        ensure!(lab.host_of(&first)?.name() != lab.host_of(&second)?.name(), "both are on one host");
        let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
        let disk = attach(&volume, &first, &mut in_first).await?;
        write(&mut in_first, &disk, 1, 0)?;
        volume.attach_to(&second).await?.problem(409, "in_use")?;
        volume.detach_from(&first).await?.expect(202)?;
        volume.wait_for_state("available", CHANGE).await?;

        let refused = volume.attach_to(&second).await?.problem(409, "wrong_state")?;
        let why = refused["detail"].as_str().unwrap_or_default();
        ensure!(why.contains("is on another host") && why.contains("made with this volume"), "{why}");
        ensure!(lab.hosts.iter().all(|host| !why.contains(host.name())), "{why}");

        // An instance that is made with it goes where the data is.
        let with = json!({"image": "fast", "volumes": [{"volume": "data"}]});
        let [(third, mut in_third)] = guests(lab, &project, [("third", with)]).await?;
        ensure!(lab.host_of(&third)?.name() == lab.host_of(&first)?.name(), "it is not with its volume");
        let disk = device(&mut in_third, &volume)?;
        holds(&mut in_third, &disk, 1, 0)?;
        curtain(lab, &[&first, &second, &third], &[&volume]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_volume_outlives_its_instance_and_boots_again() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let [(first, _)] = guests(lab, &project, [("first", from_image())]).await?;
        first.wait_for_serial("cumulo-test: boot=1", EFFECT).await?;
        let root =
            first.get().await?["volumes"][0]["volume"]["id"].as_str().context("no root volume")?.to_owned();
        let path = project.path(&format!("/volumes/{root}"));
        let root = project.volume_of(&project.cloud.get(&path).await?.success()?)?;
        root.change(json!({"delete_with_instance": false})).await?;
        first.delete().await?.success()?;
        first.wait_gone(LIMIT).await?;
        root.wait_for_state("available", CHANGE).await?;

        let kept = json!({"root_volume": {"volume": root.id}});
        let [(second, _)] = guests(lab, &project, [("second", kept)]).await?;
        second.wait_for_serial("cumulo-test: boot=2", EFFECT).await?;
        second.wait_for_serial("cumulo-test: hostname=second", EFFECT).await?;
        curtain(lab, &[&second], &[&root]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn space_that_is_used_again_reads_as_zeros() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let [(instance, mut shell)] = guests(lab, &project, [("vm", from_image())]).await?;
        for round in 0..2 {
            let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
            let disk = attach(&volume, &instance, &mut shell).await?;
            is_zero(&mut shell, &disk, 0, 64).with_context(|| format!("round {round}"))?;
            is_zero(&mut shell, &disk, 960, 64).with_context(|| format!("round {round}"))?;
            shell.output("tr '\\000' x < /dev/zero | head -c 1048576 > /run/full")?;
            let one = format!("dd if=/run/full of={disk} bs=1M seek=$at 2>/dev/null");
            shell.output(&format!("for at in $(seq 0 63); do {one}; done; sync"))?;
            write(&mut shell, &disk, 9, 1000)?;
            volume.detach_from(&instance).await?.expect(202)?;
            volume.wait_for_state("available", CHANGE).await?;
            volume.delete().await?.success()?;
            volume.wait_gone(CHANGE).await?;
        }
        curtain(lab, &[&instance], &[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_stays_with_a_guest_that_does_not_let_go() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let wanted = [("first", from_image()), ("second", from_image())];
        let [(first, mut in_first), (second, mut in_second)] = guests(lab, &project, wanted).await?;
        let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
        let disk = attach(&volume, &first, &mut in_first).await?;

        let driver = "/sys/bus/pci_express/drivers/pciehp";
        in_first.output(&format!("cd {driver} && for s in 0*; do echo $s >> /run/slots; done; cd /"))?;
        in_first.output(&format!("for s in $(cat /run/slots); do echo $s > {driver}/unbind; done"))?;
        volume.detach_from(&first).await?.expect(202)?;
        eventually("the guest to be asked", CHANGE, async || {
            ensure!(lab.hosts[0].agent.log().contains("step=DetachDisk"), "not yet");
            Ok(())
        })
        .await?;
        lab.hosts[0].crash_agent().await?;
        lab.wait_hosts_ready(CHANGE).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        ensure!(volume.get().await?["state"] == "detaching");
        volume.attach_to(&second).await?.problem(409, "in_use")?;
        volume.delete().await?.problem(409, "in_use")?;
        write(&mut in_first, &disk, 3, 100)?;
        has_none(&mut in_second, &volume)?;

        // It is asked again.
        in_first.output(&format!("for s in $(cat /run/slots); do echo $s > {driver}/bind; done"))?;
        volume.wait_for_state("available", CHANGE).await?;
        let disk = attach(&volume, &second, &mut in_second).await?;
        holds(&mut in_second, &disk, 3, 100)?;

        // The end of a guest is the end of its hold.
        in_second.output(&format!("cd {driver} && for s in 0*; do echo $s > unbind; done; cd /"))?;
        volume.detach_from(&second).await?.expect(202)?;
        second.action("stop", json!({"force": true})).await?;
        volume.wait_for_state("available", CHANGE).await?;
        let disk = attach(&volume, &first, &mut in_first).await?;
        holds(&mut in_first, &disk, 3, 100)?;
        volume.detach_from(&first).await?.expect(202)?;
        curtain(lab, &[&first, &second], &[&volume]).await
    })
    .await
}
