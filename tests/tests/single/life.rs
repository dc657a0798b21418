//! The life of an instance as its guest and its owner see it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, LabOptions, Project, in_lab};
use serde_json::{Value, json};

const READY: &str = "cumulo-test: ready";
const BOOT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

fn body(name: &str, script: Option<&str>) -> Value {
    json!({"name": name, "image": "fast", "instance_type": "fast", "user_data": script})
}

/// An instance whose guest has booted to the end.
async fn booted(project: &Project, name: &str, script: Option<&str>) -> Result<Instance> {
    let instance = project.create(body(name, script)).await?;
    instance.wait_for_state("running", BOOT).await?;
    instance.wait_for_serial(READY, BOOT).await?;
    Ok(instance)
}

/// The steps of the instance's newest operation, once that has ended well.
async fn steps_of(instance: &Instance, called: &Value) -> Result<Vec<String>> {
    let operation = called["operation"]["id"].as_str().context("the answer names no operation")?;
    let operation = instance.wait_operation(operation, SOON).await?;
    ensure!(operation["status"] == "succeeded", "{operation}");
    let steps = operation["trail"].as_array().into_iter().flatten();
    Ok(steps.filter_map(|step| step["step"].as_str().map(str::to_owned)).collect())
}

fn has(steps: &[String], step: &str) -> bool {
    steps.iter().any(|done| done == step)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_presses_the_button_first_and_cuts_the_power_when_it_must() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let deaf_script = "#!/bin/sh\ntouch /run/ignore-power-button\n";
        let (polite, deaf, other) = tokio::try_join!(
            booted(&project, "polite", None),
            booted(&project, "deaf", Some(deaf_script)),
            booted(&project, "other", Some(deaf_script)),
        )?;

        let called = polite.stop().await?;
        let stopped = polite.wait_for_state("stopped", SOON).await?;
        ensure!(stopped["state_reason"] == "as_requested", "{stopped}");
        let steps = steps_of(&polite, &called).await?;
        ensure!(has(&steps, "power_button_pressed") && !has(&steps, "power_cut"), "{steps:?}");
        ensure!(polite.serial().await?.contains("cumulo-test: powering off"), "the guest was not asked");

        let asked = Instant::now();
        let called = deaf.action("stop", json!({"timeout_seconds": 4})).await?;
        deaf.wait_for_state("stopped", SOON).await?;
        ensure!(asked.elapsed() >= Duration::from_secs(4), "cut off after {:?}", asked.elapsed());
        let steps = steps_of(&deaf, &called).await?;
        ensure!(has(&steps, "power_button_pressed") && has(&steps, "power_cut"), "{steps:?}");

        let called = other.action("stop", json!({"force": true})).await?;
        other.wait_for_state("stopped", SOON).await?;
        let steps = steps_of(&other, &called).await?;
        ensure!(!has(&steps, "power_button_pressed") && has(&steps, "power_cut"), "{steps:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_powers_itself_off_shows_as_stopped_and_starts_again() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        // Powers itself off at the first boot only.
        let script = "#!/bin/sh\n[ -e /once ] && exit\ntouch /once; echo going down; sync; poweroff -f\n";
        let instance = project.create(body("brief", Some(script))).await?;
        let stopped = instance.wait_for_state("stopped", BOOT).await?;
        ensure!(stopped["state_reason"] == "guest_shutdown", "{stopped}");
        ensure!(instance.serial().await?.contains("going down"));
        ensure!(lab.hosts[0].virsh.domains()?.is_empty(), "the domain is still there");
        instance.start().await?;
        instance.wait_for_state("running", BOOT).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn a_power_off_is_heard_of_and_not_found_later() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let instance = booted(&project, "watched", None).await?;
        let (_, qemu) = lab.qemu_processes()?.pop_first().context("no QEMU runs")?;
        // Not through our API: as if the guest or an operator had done it.
        lab.hosts[0].virsh.run(&["shutdown", &format!("cumulo-{}", instance.id)])?;
        let gone = tokio::task::spawn_blocking(move || qemu.wait_gone(SOON).then(Instant::now)).await?;
        let gone = gone.context("the guest does not power off")?;
        instance.wait_for_state("stopped", SOON).await?;
        // Well under a second on an idle machine; a lost event would be made up for after half a minute.
        ensure!(gone.elapsed() < Duration::from_secs(5), "it took {:?}", gone.elapsed());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_gets_its_seed_and_keeps_its_disk_over_a_reboot() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN8ZgQ0lEzUS1n3JFmhvGfHQnIYgnpcDbV2Wm2SyZkVM me@example";
        let mut new = body("seeded", Some("#!/bin/sh\necho \"the answer is $((6 * 7))\"\n"));
        new["ssh_authorized_keys"] = json!([key]);
        new["hostname"] = json!("db-1");
        let instance = project.create(new).await?;
        let console = instance.wait_for_serial(READY, BOOT).await?;
        for line in
            ["hostname=db-1", &format!("key={key}"), &format!("instance-id={}", instance.id), "boot=1"]
        {
            ensure!(console.contains(&format!("cumulo-test: {line}\r\n")), "{line} is missing:\n{console}");
        }
        ensure!(console.contains("the answer is 42"), "the script did not run:\n{console}");

        let before = lab.qemu_processes()?;
        let called = instance.action("reboot", json!({})).await?;
        ensure!(has(&steps_of(&instance, &called).await?, "running"));
        instance.wait_for_serial("cumulo-test: boot=2", BOOT).await?;
        ensure!(before != lab.qemu_processes()?, "the old QEMU still runs");
        Ok(())
    })
    .await
}
