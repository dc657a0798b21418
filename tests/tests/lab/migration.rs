//! Running guests that go from one host to another: their connections live on, and whoever is killed, one of them runs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, Lab, LabOptions, Shell, eventually, in_lab};
use serde_json::{Value, json};

use crate::restart::{guards_hold, restarting};
use crate::scene::{EFFECT, LIMIT, egress, group, ingress};
use crate::shared::{Shared, in_pool, index_of};
use crate::volumes::disk::{CHANGE, curtain, device, guests, holds, write};

/// Where the other guest counts what comes.
const COUNTER: u16 = 7000;

/// In a guest that was started on another host, whose serial log stays there.
pub(crate) fn shell_on(lab: &Lab, index: usize, instance: &Instance) -> Result<Shell> {
    tokio::task::block_in_place(|| Shell::open(&lab.hosts[index], instance))
}

async fn begin(lab: &Lab, instance: &Instance, to: usize) -> Result<String> {
    let body = json!({"host": lab.hosts[to].name()});
    let accepted = instance.action("migrate", body).await?;
    Ok(accepted["operation"]["id"].as_str().context("no operation")?.to_owned())
}

/// Sends it there, and gives the operation at its end.
async fn migrate(lab: &Lab, instance: &Instance, to: usize) -> Result<Value> {
    let operation = begin(lab, instance, to).await?;
    instance.wait_operation(&operation, LIMIT).await
}

/// How far the other guest has counted; no number may be missing.
fn counted(shell: &mut Shell) -> Result<u64> {
    let last = shell.output("awk 'NR != $1 { exit 1 } END { print NR }' /run/counted")?;
    last.parse().with_context(|| format!("{last:?} is no number"))
}

/// The longest time between two numbers after that one, in seconds of the guest that counts.
fn gap(shell: &mut Shell, after: u64) -> Result<String> {
    shell.output(&format!(
        "awk 'NR > {after} && $2 - last > most {{ most = $2 - last }} {{ last = $2 }} END {{ print most }}' /run/counted"
    ))
}

async fn counts_on(shell: &mut Shell) -> Result<()> {
    let so_far = counted(shell)?;
    eventually("an open connection to go on", EFFECT, async || {
        let now = counted(shell)?;
        ensure!(now >= so_far + 3, "{now} after {so_far}");
        Ok(())
    })
    .await
}

/// The instance runs on that host alone, at its first boot, and the guest is the one that it was.
pub(crate) async fn is_the_same(lab: &Lab, instance: &Instance, on: usize, boot_id: &str) -> Result<Shell> {
    instance.wait_for_state("running", CHANGE).await?;
    eventually("one host to have it", CHANGE, async || {
        lab.qemu_processes()?;
        ensure!(index_of(lab, instance)? == on, "it is elsewhere");
        Ok(())
    })
    .await?;
    let mut shell = shell_on(lab, on, instance)?;
    let now = shell.output("cat /proc/sys/kernel/random/boot_id")?;
    ensure!(now == boot_id, "the guest was started anew: {now}, and not {boot_id}");
    Ok(shell)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_goes_to_the_other_host_and_back_with_its_connection() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shared = Shared::start(lab).await?;
        guards_hold(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let everything = [egress().to_vec(), vec![ingress(json!({"remote_cidr": "0.0.0.0/0"}))]].concat();
        group(&project, "open", everything).await?;
        let card = json!([{"network": "default", "security_groups": ["open"]}]);
        let volume = project.volume(json!({"name": "data", "size_gib": 1, "pool": "fast"})).await?;
        let mut mover = restarting();
        mover["volumes"] = json!([{"volume": "data"}]);
        let mut bodies = Vec::new();
        for (name, mut body) in [("mover", mover), ("other", in_pool())] {
            let rest = json!({"name": name, "instance_type": "fast", "networks": card});
            body.as_object_mut().context("no object")?.extend(rest.as_object().cloned().unwrap_or_default());
            bodies.push(project.create(body).await?);
        }
        let [instance, other] = <[Instance; 2]>::try_from(bodies).ok().context("two guests")?;
        let mut shell = lab.shell(&instance, LIMIT).await?;
        let mut listener = lab.shell(&other, LIMIT).await?;
        let address = other.get().await?["nics"][0]["addresses"][0].as_str().context("no address")?.to_owned();
        listener.output(&format!(
            "(sleep 100000 | nc -l -p {COUNTER} 2>&1 | while read n; do read up rest < /proc/uptime; echo $n $up; done \
             > /run/counted &)"
        ))?;
        shell.output(&format!(
            "(i=0; while usleep 200000; do i=$((i + 1)); echo $i; done) | nc {address} {COUNTER} > /dev/null 2>&1 &"
        ))?;
        counts_on(&mut listener).await?;
        let disk = device(&mut shell, &volume)?;
        write(&mut shell, &disk, 1, 0)?;
        let boot_id = shell.output("cat /proc/sys/kernel/random/boot_id")?;
        drop(shell);

        let home = index_of(lab, &instance)?;
        let owners = shared.owners()?;
        ensure!(owners.len() == 1 && !owners.contains(&(0, 0)), "{owners:?}");
        for to in [1 - home, home] {
            let before = counted(&mut listener)?;
            let operation = migrate(lab, &instance, to).await?;
            ensure!(operation["status"] == "succeeded", "{operation}");
            let mut shell = is_the_same(lab, &instance, to, &boot_id).await?;
            counts_on(&mut listener).await?;
            eprintln!("the connection stood still for {} s", gap(&mut listener, before)?);
            holds(&mut shell, &disk, 1, 0)?;
            write(&mut shell, &disk, 2, 100)?;
            holds(&mut shell, &disk, 2, 100)?;
            drop(shell);
            // The other one has let go of it before it may come back.
            eventually("the other host to let go", CHANGE, async || {
                let dry = instance.path("/migrate?dry_run=true");
                instance.project.cloud.post(&dry, json!({})).await?.success()
            })
            .await?;
            let guards = [to, 1 - to].map(|index| lab.hosts[index].guards(&instance.id));
            ensure!(guards == [true, false], "{guards:?}");
            // Where the end of the domain there has changed nothing for the one here.
            ensure!(shared.owners()? == owners, "{:?}, and not {owners:?}", shared.owners()?);
        }
        lab.verify().await?;
        drop(listener);
        curtain(lab, &[&instance, &other], &[&volume]).await?;
        shared.wait_empty(lab).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn whoever_is_killed_in_the_middle_the_guest_runs_once_and_is_the_same() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shared = Shared::start(lab).await?;
        let project = lab.project_with(Guest::Fast).await?;
        let [(instance, mut shell)] = guests(lab, &project, [("vm", in_pool())]).await?;
        let boot_id = shell.output("cat /proc/sys/kernel/random/boot_id")?;
        drop(shell);
        for victim in ["source", "destination", "api"] {
            for after in [200, 1200] {
                let home = index_of(lab, &instance)?;
                let operation = begin(lab, &instance, 1 - home).await?;
                tokio::time::sleep(Duration::from_millis(after)).await;
                match victim {
                    "source" => lab.hosts[home].crash_agent().await?,
                    "destination" => lab.hosts[1 - home].crash_agent().await?,
                    _ => lab.control.crash_api().await?,
                }
                lab.wait_hosts_ready(CHANGE).await?;
                let ended = instance.wait_operation(&operation, LIMIT).await?;
                let on = if ended["status"] == "succeeded" { 1 - home } else { home };
                drop(
                    is_the_same(lab, &instance, on, &boot_id)
                        .await
                        .with_context(|| format!("{victim}: {ended}"))?,
                );
                eventually("the next one to be possible", CHANGE, async || {
                    let dry = instance.path("/migrate?dry_run=true");
                    instance.project.cloud.post(&dry, json!({})).await?.success()
                })
                .await?;
            }
        }
        lab.verify().await?;
        curtain(lab, &[&instance], &[]).await?;
        shared.wait_empty(lab).await
    })
    .await
}
