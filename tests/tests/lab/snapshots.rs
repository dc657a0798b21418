//! Snapshots of real guests: what was written before one is in it, what was written after is not, and what is made
//! of it, merged or killed on the way changes nothing about that.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, Lab, LabOptions, Project, Shell, Snapshot, Volume, eventually, in_lab};
use serde_json::json;

use crate::scene::LIMIT;
use crate::volumes::disk::{CHANGE, attach, curtain, from_image, guests, holds, soon_device, write};

/// Merging copies what was written since, on a busy machine.
const MERGE: Duration = Duration::from_secs(90);

/// A running guest with a volume for its data.
async fn guest_with_data(lab: &Lab, project: &Project) -> Result<(Instance, Shell, Volume, String)> {
    let [(instance, mut shell)] = guests(lab, project, [("shop", from_image())]).await?;
    let data = project.volume(json!({"name": "data", "size_gib": 1})).await?;
    let disk = attach(&data, &instance, &mut shell).await?;
    Ok((instance, shell, data, disk))
}

async fn taken(project: &Project, instance: &Instance, name: &str) -> Result<Snapshot> {
    let snapshot = project.snapshot(json!({"name": name, "instance": instance.id})).await?;
    snapshot.wait_for_state("available", CHANGE).await?;
    Ok(snapshot)
}

async fn gone(snapshots: &[&Snapshot]) -> Result<()> {
    for snapshot in snapshots {
        snapshot.delete().await?.success()?;
        snapshot.wait_gone(CHANGE).await?;
    }
    Ok(())
}

async fn stopped(instance: &Instance) -> Result<()> {
    instance.action("stop", json!({"force": true})).await?;
    instance.wait_for_state("stopped", LIMIT).await.map(|_| ())
}

async fn started(lab: &Lab, instance: &Instance) -> Result<Shell> {
    instance.start().await?;
    lab.shell(instance, LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_goes_back_to_what_it_was() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let (instance, mut shell, data, disk) = guest_with_data(lab, &project).await?;
        write(&mut shell, &disk, 1, 0)?;
        let processes = lab.qemu_processes()?;
        let before = taken(&project, &instance, "before").await?;
        ensure!(lab.qemu_processes()? == processes, "the guest was not left running");
        write(&mut shell, &disk, 2, 0)?;
        let after = taken(&project, &instance, "after").await?;
        write(&mut shell, &disk, 3, 0)?;

        before.restore().await?.problem(409, "wrong_state")?;
        for (snapshot, seed) in [(&before, 1), (&after, 2), (&before, 1)] {
            stopped(&instance).await?;
            snapshot.restore().await?.success()?;
            shell = started(lab, &instance).await?;
            let disk = soon_device(&mut shell, &data).await?;
            holds(&mut shell, &disk, seed, 0).with_context(|| format!("back at {}", snapshot.name))?;
            write(&mut shell, &disk, 9, 0)?;
        }
        gone(&[&before, &after]).await?;
        let disk = soon_device(&mut shell, &data).await?;
        holds(&mut shell, &disk, 9, 0)?;
        data.detach_from(&instance).await?.expect(202)?;
        curtain(lab, &[&instance], &[&data]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn clones_have_what_was_written_before_and_go_their_own_ways() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let (instance, mut shell, data, disk) = guest_with_data(lab, &project).await?;
        write(&mut shell, &disk, 1, 0)?;
        let snapshot = taken(&project, &instance, "golden").await?;
        write(&mut shell, &disk, 2, 0)?;

        let mut copies = Vec::new();
        for number in 0..3 {
            let source = json!({"snapshot": snapshot.id, "volume": data.id});
            let copy = project.volume(json!({"name": format!("copy-{number}"), "source": source})).await?;
            let disk = attach(&copy, &instance, &mut shell).await?;
            holds(&mut shell, &disk, 1, 0)?;
            write(&mut shell, &disk, 10 + number, 0)?;
            copies.push((copy, disk));
        }
        let twin = project.create(json!({"name": "twin", "snapshot": snapshot.id, "networks": []})).await?;
        let mut in_twin = lab.shell(&twin, LIMIT).await?;
        let of_twin = twin.get().await?["volumes"].as_array().cloned().unwrap_or_default();
        ensure!(of_twin.len() == 2, "the twin has {of_twin:?}");
        let id = of_twin[1]["volume"]["id"].as_str().context("no second volume")?;
        let path = project.path(&format!("/volumes/{id}"));
        let twin_data = project.volume_of(&project.cloud.get(&path).await?.success()?)?;
        let twin_disk = soon_device(&mut in_twin, &twin_data).await?;
        holds(&mut in_twin, &twin_disk, 1, 0)?;
        write(&mut in_twin, &twin_disk, 20, 0)?;

        // What the others stand on stays when its name goes, and when its volume goes.
        gone(&[&snapshot]).await?;
        data.detach_from(&instance).await?.expect(202)?;
        data.wait_for_state("available", CHANGE).await?;
        data.delete().await?.success()?;
        data.wait_gone(CHANGE).await?;
        for (number, (_, disk)) in (0..).zip(&copies) {
            holds(&mut shell, disk, 10 + number, 0)?;
        }
        holds(&mut in_twin, &twin_disk, 20, 0)?;
        for (copy, _) in &copies {
            copy.detach_from(&instance).await?.expect(202)?;
        }
        let mut left: Vec<_> = copies.iter().map(|(copy, _)| copy).collect();
        if twin_data.get().await?["attachment"]["delete_with_instance"] == false {
            left.push(&twin_data);
        }
        curtain(lab, &[&instance, &twin], &left).await
    })
    .await
}

/// Whoever dies, in each phase: nothing that was written is lost, nothing is in a snapshot that came later.
async fn merged_live(lab: &mut Lab, crash: impl AsyncFn(&mut Lab) -> Result<()>) -> Result<()> {
    let project = lab.project_with(Guest::Fast).await?;
    let (instance, mut shell, data, disk) = guest_with_data(lab, &project).await?;
    let mut snapshots = Vec::new();
    for seed in 0..4 {
        write(&mut shell, &disk, seed, u64::from(seed) * 10)?;
        let name = format!("s{seed}");
        let snapshot = project.snapshot(json!({"name": name, "instance": instance.id})).await?;
        crash(lab).await?;
        snapshot.wait_for_state("available", CHANGE).await?;
        snapshots.push(snapshot);
    }
    write(&mut shell, &disk, 100, 5)?;
    for snapshot in [1, 0, 3].map(|index: usize| &snapshots[index]) {
        snapshot.delete().await?.success()?;
        crash(lab).await?;
        snapshot.wait_gone(CHANGE).await?;
        write(&mut shell, &disk, 100, 5)?;
        for seed in 0..4 {
            holds(&mut shell, &disk, seed, u64::from(seed) * 10)?;
        }
    }
    // One snapshot is left: a layer for it, one on top, and one at most that is not merged yet or again.
    eventually("the layers to be merged", MERGE, async || {
        let xml = lab.hosts[0].virsh.run(&["dumpxml", &format!("cumulo-{}", instance.id)])?;
        let layers = xml.matches("/layers/").count();
        ensure!(layers <= 6, "{layers} layers in the chains of two volumes");
        Ok(())
    })
    .await?;

    let source = json!({"snapshot": snapshots[2].id, "volume": data.id});
    let copy = project.volume(json!({"name": "copy", "source": source})).await?;
    let copied = attach(&copy, &instance, &mut shell).await?;
    for seed in 0..3 {
        holds(&mut shell, &copied, seed, u64::from(seed) * 10)?;
    }
    holds(&mut shell, &disk, 100, 5)?;
    gone(&[&snapshots[2]]).await?;
    for seed in 0..4 {
        holds(&mut shell, &disk, seed, u64::from(seed) * 10)?;
    }
    for volume in [&data, &copy] {
        volume.detach_from(&instance).await?.expect(202)?;
    }
    curtain(lab, &[&instance], &[&data, &copy]).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn deleted_snapshots_are_merged_while_the_guest_runs() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| merged_live(lab, async |_| Ok(())).await).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn an_agent_that_is_killed_while_layers_change_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        merged_live(lab, async |lab| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            lab.hosts[0].crash_agent().await
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn an_api_that_is_killed_while_layers_change_ends_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        merged_live(lab, async |lab| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            lab.control.crash_api().await
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn a_snapshot_of_two_disks_never_has_the_second_write_without_the_first() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let (instance, mut shell, first, first_disk) = guest_with_data(lab, &project).await?;
        let second = project.volume(json!({"name": "log", "size_gib": 1})).await?;
        let second_disk = attach(&second, &instance, &mut shell).await?;
        // A number goes to the first disk and, once that is on the medium, to the second.
        let put =
            |disk: &str| format!("printf '%-512s' $n | dd of={disk} bs=512 conv=fsync,notrunc 2>/dev/null");
        let writer = format!(
            "(n=1; while :; do {}; {}; n=$((n+1)); done) > /dev/null 2>&1 &",
            put(&first_disk),
            put(&second_disk)
        );
        shell.output(&writer)?;
        let mut snapshots = Vec::new();
        for number in 0..5 {
            snapshots.push(taken(&project, &instance, &format!("s{number}")).await?);
        }
        for (number, snapshot) in snapshots.iter().enumerate() {
            let mut seen = Vec::new();
            for volume in [&first, &second] {
                let source = json!({"snapshot": snapshot.id, "volume": volume.id});
                let copy = project.volume(json!({"name": "copy", "source": source})).await?;
                let disk = attach(&copy, &instance, &mut shell).await?;
                let text = shell.output(&format!("dd if={disk} bs=512 count=1 2>/dev/null"))?;
                seen.push(text.trim().parse::<u64>().with_context(|| format!("{text:?} in {number}"))?);
                copy.detach_from(&instance).await?.expect(202)?;
                copy.wait_for_state("available", CHANGE).await?;
                copy.delete().await?.success()?;
                copy.wait_gone(CHANGE).await?;
            }
            ensure!(seen[0] == seen[1] || seen[0] == seen[1] + 1, "snapshot {number} has {seen:?}");
        }
        gone(&snapshots.iter().collect::<Vec<_>>()).await?;
        for volume in [&first, &second] {
            volume.detach_from(&instance).await?.expect(202)?;
        }
        curtain(lab, &[&instance], &[&first, &second]).await
    })
    .await
}

fn count(shell: &mut Shell) -> Result<u64> {
    let text = shell.output("cat /run/count")?;
    text.trim().parse().with_context(|| format!("{text:?} is no number"))
}

async fn counts_beyond(shell: &mut Shell, number: u64) -> Result<u64> {
    eventually(format!("the guest to count beyond {number}"), LIMIT, async || {
        let now = count(shell)?;
        ensure!(now > number, "it is at {now}");
        Ok(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn a_guest_goes_on_from_its_memory_whoever_was_killed_meanwhile() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let (instance, mut shell, data, disk) = guest_with_data(lab, &project).await?;
        write(&mut shell, &disk, 1, 0)?;
        // In memory alone.
        shell.output(
            "(n=0; while :; do n=$((n+1)); echo $n > /run/count; sleep 0.1; done) > /dev/null 2>&1 &",
        )?;
        let before = counts_beyond(&mut shell, 5).await?;
        let processes = lab.qemu_processes()?;
        let take = async |name: &str| {
            project.snapshot(json!({"name": name, "instance": instance.id, "memory": true})).await
        };
        let then = take("then").await?;
        let taken = then.wait_for_state("available", CHANGE).await?;
        ensure!(taken["memory"] == true && lab.qemu_processes()? == processes, "{taken}");
        let after = count(&mut shell)?;
        write(&mut shell, &disk, 2, 0)?;
        counts_beyond(&mut shell, after + 20).await?;

        // The agent dies: a whole one, or none.
        let mut others = Vec::new();
        for (number, after_ms) in [(1, 20), (2, 150), (3, 400)] {
            let name = format!("agent-{number}");
            let other = take(&name).await?;
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            lab.hosts[0].crash_agent().await?;
            let end = other.wait_for_end(CHANGE).await?;
            eprintln!("an agent that was killed after {after_ms} ms left it {}", end["state"]);
            others.push(other);
        }
        counts_beyond(&mut shell, after + 20).await?;
        stopped(&instance).await?;
        then.restore().await?.expect(202)?;
        instance.wait_for_state("running", LIMIT).await?;
        let mut shell = lab.shell(&instance, LIMIT).await?;
        let back = count(&mut shell)?;
        ensure!(before <= back && back <= after + 20, "{before} before, {after} after, back at {back}");
        counts_beyond(&mut shell, back).await?;
        holds(&mut shell, &disk, 1, 0)?;
        write(&mut shell, &disk, 3, 0)?;
        holds(&mut shell, &disk, 3, 0)?;
        for other in &others {
            if other.get().await?["state"] == "available" {
                stopped(&instance).await?;
                other.restore().await?.expect(202)?;
                instance.wait_for_state("running", LIMIT).await?;
                let mut shell = lab.shell(&instance, LIMIT).await?;
                ensure!(count(&mut shell)? > after, "{} is older than it", other.name);
                holds(&mut shell, &disk, 2, 0)?;
            }
        }

        // From the disks, the guest boots.
        stopped(&instance).await?;
        then.restore_with(json!({"memory": false})).await?.expect(200)?;
        let mut shell = started(lab, &instance).await?;
        shell.fails("test -e /run/count")?;
        let disk = soon_device(&mut shell, &data).await?;
        holds(&mut shell, &disk, 1, 0)?;

        // QEMU dies.
        let last = take("last").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for process in lab.qemu_processes()?.into_values() {
            process.signal(nix::sys::signal::Signal::SIGKILL)?;
        }
        let end = last.wait_for_end(CHANGE).await?;
        eprintln!("a QEMU that was killed left it {}", end["state"]);
        instance.wait_for_state("stopped", LIMIT).await?;
        gone(&[&then, &last]).await?;
        gone(&others.iter().collect::<Vec<_>>()).await?;
        data.detach_from(&instance).await?.expect(202)?;
        curtain(lab, &[&instance], &[&data]).await
    })
    .await
}
