//! What a guest is told by its network, and cards that come and go; and who repairs it all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Host, LabOptions, ProcessId, eventually, in_lab};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Emulated guests share the processors of one machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The agent looks every ten seconds, and then it has work to do.
const REPAIRED: Duration = Duration::from_secs(15);

const ASK: &str = "#!/bin/sh
ask() { { printf '%s\\r\\n' \"$@\" 'Host: 169.254.169.254' 'Connection: close' ''; sleep 2; } | nc -w 5 169.254.169.254 80; }
token=$(ask 'PUT /latest/api/token HTTP/1.1' 'X-aws-ec2-metadata-token-ttl-seconds: 60' | tail -n 1)
id=$(ask 'GET /latest/meta-data/instance-id HTTP/1.1' \"X-aws-ec2-metadata-token: $token\" | tail -n 1)
echo \"told: instance-id=$id\"
echo \"told: $(ask 'GET /latest/meta-data/instance-id HTTP/1.1' | head -n 1)\"
";

/// Says so as long as the network's DNS and metadata answer.
const SERVED: &str = "#!/bin/sh
metadata() { { printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 1; } | nc -w 3 169.254.169.254 80 | grep -q 401; }
while sleep 1; do
  timeout 3 nslookup -type=a vm.tests.internal > /dev/null 2>&1 && metadata && echo served > /dev/console
done &
";

fn instance(user_data: &str) -> Value {
    json!({"name": "vm", "image": "fast", "instance_type": "fast", "user_data": user_data})
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn a_guest_asks_who_it_is_with_a_token() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let instance = project.create(instance(ASK)).await?;
        instance.wait_for_serial(&format!("told: instance-id={}", instance.id), LIMIT).await?;
        instance.wait_for_serial("told: HTTP/1.1 401", LIMIT).await.map(|_| ())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_plugged_into_a_running_guest_and_out_of_it() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        for (kind, body) in [
            ("/networks", json!({"name": "back"})),
            ("/subnets", json!({"name": "back", "network": "back", "cidr": "10.1.0.0/24"})),
        ] {
            lab.cloud.post(&project.path(kind), body).await?.success()?;
        }
        let instance = project.create(instance("")).await?;
        instance.wait_for_state("running", LIMIT).await?;
        instance.wait_for_serial("cumulo-test: ready", LIMIT).await?;

        instance.action("attach_port", json!({"network": "back", "address": "10.1.0.77"})).await?;
        instance.wait_for_serial("cumulo-test: eth1 10.1.0.77", LIMIT).await?;
        let domain = format!("cumulo-{}", instance.id);
        let cards = || {
            Ok::<_, anyhow::Error>(lab.hosts[0].virsh.run(&["domiflist", &domain])?.matches(" ct").count())
        };
        ensure!(cards()? == 2, "{} cards", cards()?);

        let shown = instance.get().await?;
        let port =
            shown["nics"][1]["port"]["id"].as_str().with_context(|| format!("no second card: {shown}"))?;
        instance.action("detach_port", json!({"port": port})).await?;
        eventually("one card to be left", LIMIT, async || {
            ensure!(cards()? == 1, "{} cards", cards()?);
            Ok(())
        })
        .await?;
        eventually("the port to go, now that the guest has let go of it", LIMIT, async || {
            let ports = lab.cloud.get(&project.path("/ports")).await?.success()?;
            let left = ports["items"].as_array().map_or(0, Vec::len);
            ensure!(left == 1, "{ports}");
            Ok(())
        })
        .await?;
        instance.delete().await?.success()?;
        instance.wait_gone(LIMIT).await?;
        lab.wait_empty(Duration::from_secs(30)).await
    })
    .await
}

async fn wait_dnsmasq(host: &Host, other_than: ProcessId) -> Result<()> {
    eventually("a new dnsmasq", REPAIRED, async || {
        let found = host.dnsmasqs();
        ensure!(found.len() == 1 && found[0] != other_than, "{found:?}, not {other_than:?}");
        Ok(())
    })
    .await
}

/// The devices, stations and rules of networks. Tables list their parts in the order in which they were made.
fn made(host: &Host) -> Result<Vec<String>> {
    let rules = host.machine.output("nft", &["--stateless", "list", "ruleset"])?;
    let links = host.machine.output("ip", &["-brief", "link", "show", "up"])?;
    let names = links.lines().filter_map(|line| line.split(['@', ' ']).next());
    let stations = host.machine.output("bridge", &["fdb", "show"])?;
    let stations = stations.lines().filter(|line| line.contains("static"));
    let mut all: Vec<_> = rules.lines().chain(names).chain(stations).map(str::to_owned).collect();
    all.sort_unstable();
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many faults: make chaos"]
async fn what_is_killed_or_removed_is_there_again_and_the_guest_does_not_notice() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let instance = project.create(instance(SERVED)).await?;
        instance.wait_for_state("running", LIMIT).await?;
        instance.wait_for_serial("cumulo-test: eth0 10.0.0.", LIMIT).await?;
        let host = &mut lab.hosts[0];
        let qemu = host.qemu_processes()?;
        instance.wait_for_serial("served", LIMIT).await?;
        let before = made(host)?;

        let dnsmasq = *host.dnsmasqs().first().context("no dnsmasq")?;
        dnsmasq.signal(Signal::SIGKILL)?;
        wait_dnsmasq(host, dnsmasq).await?;

        host.agent.kill().await?;
        let dnsmasq = *host.dnsmasqs().first().context("dnsmasq went with the agent")?;
        dnsmasq.signal(Signal::SIGKILL)?;
        host.machine.run("nft", &["delete", "table", "inet", "cumulo"])?;
        host.machine.run("nft", &["delete", "table", "bridge", "cumulo"])?;
        let links = host.machine.output("ip", &["-brief", "link", "show"])?;
        let service = links.split(['@', ' ', '\n']).find(|name| name.starts_with("csv")).context("no csv")?;
        host.machine.run("ip", &["link", "delete", service])?;
        host.agent.start().await?;
        wait_dnsmasq(host, dnsmasq).await?;
        eventually("everything to be as before", REPAIRED, async || {
            let now = made(host)?;
            let missing: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
            let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
            ensure!(now == before, "missing: {missing:?}, new: {new:?}");
            Ok(())
        })
        .await?;
        ensure!(host.qemu_processes()? == qemu, "the guest was started anew");
        // One question may have been under way before.
        let served = instance.serial().await?.matches("served").count();
        instance.wait_for_serial_times("served", served + 2, REPAIRED).await.map(|_| ())
    })
    .await
}
