//! Volumes in real guests: what one writes another reads, nobody reads what was deleted, and whoever dies on the
//! way, the end is the same.

pub mod disk;
mod images;
mod journey;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lab::{Guest, Instance, Lab, LabOptions, Shell, Volume, eventually, in_lab};
use serde_json::json;

use crate::scene::{EFFECT, LIMIT};
use crate::shared::index_of;
use disk::{
    CHANGE, attach, curtain, device, from_image, guests, has_none, holds, is_zero, soon_device, write,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
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
        moves_with_its_disks(lab, &third, &mut in_third, &volume).await?;
        curtain(lab, &[&first, &second, &third], &[&volume]).await
    })
    .await
}

/// Its system and its data are on the disk of one host, and then on that of the other; nothing is left at the first.
async fn moves_with_its_disks(
    lab: &Lab,
    instance: &Instance,
    shell: &mut Shell,
    volume: &Volume,
) -> Result<()> {
    let disk = device(shell, volume)?;
    write(shell, &disk, 2, 300)?;
    write(shell, "/dev/vda", 3, 900)?;
    let home = index_of(lab, instance)?;
    instance.stop().await?;
    instance.wait_for_state("stopped", LIMIT).await?;
    let layers = || {
        Ok::<_, anyhow::Error>(
            lab.hosts[home].leftovers()?.into_iter().filter(|file| file.contains("/layers/")).count(),
        )
    };
    let before = layers()?;
    let accepted = instance.action("move", json!({})).await?;
    let operation = accepted["operation"]["id"].as_str().context("no operation")?;
    let done = instance.wait_operation(operation, LIMIT).await?;
    ensure!(done["status"] == "succeeded", "{done}");
    eventually("the files at its first host to go", CHANGE, async || {
        let left = layers()?;
        ensure!(left + 2 == before, "{left} of {before}");
        Ok(())
    })
    .await?;
    instance.start().await?;
    let mut shell = lab.shell(instance, LIMIT).await?;
    ensure!(index_of(lab, instance)? != home, "it is where it was");
    let disk = device(&mut shell, volume)?;
    holds(&mut shell, &disk, 1, 0)?;
    holds(&mut shell, &disk, 2, 300)?;
    holds(&mut shell, "/dev/vda", 3, 900)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
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
#[ignore = "one of many journeys: make chaos"]
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
#[ignore = "one of many faults: make chaos"]
async fn a_volume_stays_with_a_guest_that_does_not_let_go() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let wanted = [("first", from_image()), ("second", from_image())];
        let [(first, mut in_first), (second, mut in_second)] = guests(lab, &project, wanted).await?;
        let volume = project.volume(json!({"name": "data", "size_gib": 1})).await?;
        let disk = attach(&volume, &first, &mut in_first).await?;
        write(&mut in_first, &disk, 3, 100)?;

        // From here on it answers nobody.
        in_first.output("(sleep 1; halt -f) > /dev/null 2>&1 &")?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        volume.detach_from(&first).await?.expect(202)?;
        for asked in 1..=2 {
            eventually("the guest to be asked", CHANGE, async || {
                let log = lab.hosts[0].agent.log();
                ensure!(log.matches("step=DetachDisk").count() >= asked, "not {asked} times yet");
                Ok(())
            })
            .await?;
            lab.hosts[0].crash_agent().await?;
            lab.wait_hosts_ready(CHANGE).await?;
        }
        ensure!(volume.get().await?["state"] == "detaching");
        volume.attach_to(&second).await?.problem(409, "in_use")?;
        volume.delete().await?.problem(409, "in_use")?;
        has_none(&mut in_second, &volume)?;

        // The end of a guest is the end of its hold.
        first.action("stop", json!({"force": true})).await?;
        volume.wait_for_state("available", CHANGE).await?;
        let disk = attach(&volume, &second, &mut in_second).await?;
        holds(&mut in_second, &disk, 3, 100)?;
        volume.detach_from(&second).await?.expect(202)?;
        curtain(lab, &[&first, &second], &[&volume]).await
    })
    .await
}
