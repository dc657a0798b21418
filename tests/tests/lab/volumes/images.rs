//! Disks that become images.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, Lab, LabOptions, Project, Volume, eventually, in_lab};
use serde_json::{Value, json};

use super::disk::{CHANGE, curtain, device, from_image, guests, holds, write};
use crate::scene::{EFFECT, LIMIT};

/// Behind the file system of the guest.
const PLACE_MIB: u64 = 700;

async fn root_of(project: &Project, instance: &Instance) -> Result<Volume> {
    let instance = instance.get().await?;
    let id = instance["volumes"][0]["volume"]["id"].as_str().context("no root volume")?;
    project.volume_of(&project.cloud.get(&project.path(&format!("/volumes/{id}"))).await?.success()?)
}

/// Asks for an image of the instance's disk as soon as its host has seen the newest of it.
async fn publish(project: &Project, instance: &Instance, name: &str) -> Result<Value> {
    let body = json!({"name": name, "source": {"instance": instance.name}});
    eventually(format!("{name} to be accepted"), CHANGE, async || {
        project.cloud.post(&project.path("/images"), body.clone()).await?.expect(202)
    })
    .await
}

async fn until_available(project: &Project, instance: &Instance, image: &Value) -> Result<Value> {
    let operation = image["operation_id"].as_str().context("no operation")?;
    let ended = instance.wait_operation(operation, LIMIT).await?;
    ensure!(ended["status"] == "succeeded" && ended["progress"]["percent"] == 100, "{ended}");
    let path = project.path(&format!("/images/{}", image["name"].as_str().unwrap_or_default()));
    let image = project.cloud.get(&path).await?.success()?;
    ensure!(image["state"] == "available" && image["size_bytes"] == ended["progress"]["bytes"], "{image}");
    Ok(image)
}

fn scratch(lab: &Lab) -> Result<Vec<String>> {
    let left = lab.hosts.iter().map(lab::Host::leftovers).collect::<Result<Vec<_>>>()?;
    Ok(left.into_iter().flatten().filter(|path| path.contains("/incoming/")).collect())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn a_disk_becomes_an_image_that_boots_on_another_host() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let [(first, mut in_first)] = guests(lab, &project, [("first", from_image())]).await?;
        let root = root_of(&project, &first).await?;
        let disk = device(&mut in_first, &root)?;
        write(&mut in_first, &disk, 4, PLACE_MIB)?;
        let body = json!({"name": "golden", "source": {"instance": "first"}});
        project.cloud.post(&project.path("/images"), body).await?.problem(409, "wrong_state")?;
        let home = lab.host_of(&first)?.name().to_owned();
        first.stop().await?;
        first.wait_for_state("stopped", LIMIT).await?;
        let golden = publish(&project, &first, "golden").await?;
        // What its owner writes from now on is none of the image's business.
        first.start().await?;
        first.wait_for_serial_times("cumulo-test: ready", 2, LIMIT).await?;
        let mut in_first = lab.shell(&first, LIMIT).await?;
        let disk = device(&mut in_first, &root)?;
        holds(&mut in_first, &disk, 4, PLACE_MIB)?;
        write(&mut in_first, &disk, 5, PLACE_MIB)?;
        let golden = until_available(&project, &first, &golden).await?;
        ensure!(golden["virtual_size_bytes"] == 1_u64 << 30, "{golden}");

        let [(second, mut in_second)] =
            guests(lab, &project, [("second", json!({"image": "golden"}))]).await?;
        ensure!(lab.host_of(&second)?.name() != home, "both are on one host");
        second.wait_for_serial("cumulo-test: boot=2", EFFECT).await?;
        second.wait_for_serial("cumulo-test: hostname=second", EFFECT).await?;
        let copy = root_of(&project, &second).await?;
        let disk = device(&mut in_second, &copy)?;
        holds(&mut in_second, &disk, 4, PLACE_MIB)?;
        write(&mut in_second, &disk, 6, PLACE_MIB)?;
        let disk = device(&mut in_first, &root)?;
        holds(&mut in_first, &disk, 5, PLACE_MIB)?;
        ensure!(scratch(lab)?.is_empty(), "{:?}", scratch(lab)?);
        curtain(lab, &[&first, &second], &[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn an_agent_that_is_killed_while_it_makes_an_image_makes_it_in_the_end() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let [(first, _)] = guests(lab, &project, [("first", from_image())]).await?;
        first.stop().await?;
        first.wait_for_state("stopped", LIMIT).await?;
        let mut sizes = Vec::new();
        for after_ms in [0, 50, 100, 200, 400] {
            let image = publish(&project, &first, &format!("after-{after_ms}")).await?;
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            lab.hosts[0].crash_agent().await?;
            sizes.push(until_available(&project, &first, &image).await?["size_bytes"].clone());
        }
        ensure!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
        ensure!(scratch(lab)?.is_empty(), "{:?}", scratch(lab)?);
        // Cancelled while it is made.
        publish(&project, &first, "unwanted").await?;
        project.cloud.delete(&project.path("/images/unwanted")).await?.success()?;
        eventually("nothing to be left of it", CHANGE, async || {
            let left = scratch(lab)?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        curtain(lab, &[&first], &[]).await
    })
    .await
}
