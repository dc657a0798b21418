//! Guests for other processors than the hosts', and by UEFI: from the image to an answer over the network.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, Lab, LabOptions, Project, cached, eventually, in_lab};
use serde_json::{Value, json};

/// Emulated firmware on a busy machine takes minutes.
const LIMIT: Duration = Duration::from_secs(300);

/// What each guest has on its page.
const SCRIPT: &str = "#!/bin/sh
mkdir /www
uname -m > /www/machine
httpd -p 80 -h /www
";

/// Image and type of a guest, both named after it.
async fn furnish(lab: &Lab, project: &Project, guest: Guest, architecture: &str) -> Result<()> {
    let name = guest.name();
    let image = json!({"name": name, "format": "qcow2", "architecture": architecture, "firmware": "uefi"});
    project.cloud.post(&project.path("/images"), image).await?.expect(201)?;
    let file = tokio::task::spawn_blocking(move || cached(guest)).await??;
    project.image(name, &file).await?;
    let size = json!({"name": name, "architecture": architecture, "vcpus": 2, "memory_mib": 256, "root_disk_gib": 1});
    lab.cloud.post("/v1/instance_types", size).await?.expect(201)?;
    Ok(())
}

async fn create(project: &Project, guest: Guest) -> Result<Instance> {
    let name = guest.name();
    project.create(json!({"name": name, "image": name, "instance_type": name, "user_data": SCRIPT})).await
}

async fn address(instance: &Instance) -> Result<String> {
    let shown = instance.get().await?;
    let address = shown["nics"][0]["addresses"][0].as_str();
    Ok(address.with_context(|| format!("no address in {shown}"))?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "other processors, all emulated: make chaos"]
async fn guests_for_arm64_and_riscv64_boot_and_answer_over_their_network() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let host = lab.cloud.get("/v1/hosts").await?.success()?["items"][0].clone();
        let runs = json!(["x86_64", "aarch64", "riscv64"]);
        ensure!(host["inventory"]["architectures"] == runs, "{host}");
        let project = lab.cloud.project("tests").await?;
        let mut instances = Vec::new();
        for (guest, architecture) in
            [(Guest::Uefi, "x86_64"), (Guest::Aarch64, "aarch64"), (Guest::Riscv64, "riscv64")]
        {
            furnish(lab, &project, guest, architecture).await?;
            instances.push((create(&project, guest).await?, architecture));
        }
        refuse_misfits(&project).await?;

        let (first, _) = &instances[0];
        let mut shell = lab.shell(first, LIMIT).await?;
        ensure!(shell.output("ls /sys/firmware")?.contains("efi"), "not started by UEFI");
        for (instance, architecture) in &instances[1..] {
            let said = instance.wait_for_serial("cumulo-test: ready", LIMIT).await?;
            for line in [
                "cumulo-test: cpus=2".to_owned(),
                "cumulo-test: boot=1".to_owned(),
                format!("cumulo-test: instance-id={}", instance.id),
                format!("cumulo-test: hostname={architecture}"),
                format!("cumulo-test: eth0 {}", address(instance).await?),
            ] {
                ensure!(said.contains(&line), "not {line:?}:\n{said}");
            }
            // From one guest to the other, over their network.
            let page = format!("timeout 9 wget -q -O - http://{}/machine", address(instance).await?);
            let fetched = eventually(format!("{page} to answer"), LIMIT, async || {
                let said = shell.run(&page)?;
                ensure!(said.status == 0, "{said:?}");
                Ok(said.text)
            });
            let fetched = fetched.await?;
            ensure!(fetched == *architecture, "{fetched:?}");
            // The serial console takes what is typed, too.
            let typed = lab.shell(instance, LIMIT).await?.output("uname -m")?;
            ensure!(typed == *architecture, "{typed:?}");
        }

        // A power button, where the machine has one.
        let (arm, _) = &instances[1];
        arm.stop().await?;
        arm.wait_for_state("stopped", LIMIT).await?;
        ensure!(arm.serial().await?.contains("cumulo-test: powering off"), "the guest was not asked");
        arm.start().await?;
        arm.wait_for_serial("cumulo-test: boot=2", LIMIT).await?;
        let (riscv, _) = &instances[2];
        riscv.action("stop", json!({"force": true})).await?;
        riscv.wait_for_state("stopped", LIMIT).await?;
        Ok(())
    })
    .await
}

/// Images and types that do not go together, and images that no machine boots.
async fn refuse_misfits(project: &Project) -> Result<()> {
    let refused = async |path: &str, body: Value| -> Result<String> {
        let answer = project.cloud.post(&project.path(path), body).await?;
        ensure!(answer.status == 422, "{}: {}", answer.status, answer.text);
        Ok(answer.body["errors"][0]["message"].as_str().context("no message")?.to_owned())
    };
    let body = json!({"name": "misfit", "image": "aarch64", "instance_type": "riscv64"});
    let why = refused("/instances", body).await?;
    ensure!(why == "the image is for aarch64, the type for riscv64; what fits: aarch64", "{why}");
    let image = json!({"name": "old", "format": "qcow2", "architecture": "riscv64", "firmware": "bios"});
    let why = refused("/images", image).await?;
    ensure!(why == "guests for riscv64 boot with uefi only", "{why}");
    Ok(())
}
