//! `verify` sees what was damaged while no agent runs, and changes nothing; the next agent puts it right.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Lab, LabOptions, eventually, in_lab};
use serde_json::{Value, json};

/// Emulated guests share the processors of one machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Agents look about once a minute, and twice.
const LOOKED: Duration = Duration::from_secs(240);

/// What differs on hosts, once there is so much of it and all have looked.
async fn drift(lab: &Lab, count: usize) -> Result<Vec<Value>> {
    eventually(format!("{count} differences"), LOOKED, async || {
        let answer = lab.cloud.get("/v1/drift").await?.success()?;
        let found = answer["items"].as_array().context("no list")?.clone();
        ensure!(found.len() == count, "{found:#?}");
        let hosts = lab.cloud.get("/v1/hosts").await?.success()?;
        let host = &hosts["items"][0];
        ensure!(host["drift"] == json!(count) && host["drift_looked_at"].is_string(), "{host:#}");
        Ok(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn verify_names_each_damage_and_the_next_agent_repairs_it() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let body = json!({"name": "vm", "image": "fast", "instance_type": "fast"});
        let instance = project.create(body).await?;
        instance.wait_for_state("running", LIMIT).await?;
        instance.wait_for_serial("cumulo-test: eth0 10.0.0.", LIMIT).await?;
        lab.verify().await?;

        let host = &mut lab.hosts[0];
        host.agent.kill().await?;
        ensure!(
            host.differences(Duration::ZERO)?.is_empty(),
            "without an agent: {:?}",
            host.differences(Duration::ZERO)?
        );
        let links = host.machine.output("ip", &["-brief", "link"])?;
        let named = |prefix: &str| {
            let name = links
                .lines()
                .filter_map(|line| line.split(['@', ' ']).next())
                .find(|name| name.starts_with(prefix));
            name.map(str::to_owned).with_context(|| format!("no {prefix} in\n{links}"))
        };
        let (tap, bridge, services) = (named("ct")?, named("cbr")?, named("csv")?);
        let vni = bridge.trim_start_matches("cbr").to_owned();
        let namespace = format!("cumulo-net-{vni}");
        let stations = host.agent_state().join(format!("networks/{vni}/dhcp-hosts"));
        let seed = host.agent_state().join(format!("pool/instances/{}/seed.img", instance.id));
        let stray = host.agent_state().join("pool/instances/0190163d-8694-739b-aea5-966c26f8ad91");

        for (program, arguments) in [
            ("bridge", vec!["link", "set", "dev", &tap, "learning", "on"]),
            ("nft", vec!["flush", "map", "inet", "cumulo", "zones"]),
            ("ip", vec!["link", "add", "ct0123456789ab", "type", "veth", "peer", "name", "other"]),
            ("ip", vec!["link", "set", &services, "down"]),
            ("ip", vec!["netns", "add", "cumulo-net-77"]),
            ("ip", vec!["-n", &namespace, "address", "add", "10.9.9.9/24", "dev", "eth0"]),
        ] {
            host.machine.run(program, &arguments)?;
        }
        fs::write(&stations, "# by hand\n")?;
        let kept_seed = fs::read(&seed)?;
        fs::remove_file(&seed)?;
        fs::create_dir(&stray)?;

        let found = host.differences(Duration::ZERO)?;
        for expected in [
            format!("set the properties of {tap} as a port"),
            "add 1 element of set zones in table inet cumulo".to_owned(),
            "host: remove device ct0123456789ab: no port has this card".to_owned(),
            format!("set device {services} up"),
            "host: remove namespace cumulo-net-77".to_owned(),
            format!("remove 10.9.9.9/24 from eth0 in namespace {namespace}"),
            "write dhcp-hosts of DHCP and DNS".to_owned(),
            format!("instances: instance {}: stop and start it: it runs, but its seed is gone", instance.id),
            "leftovers: instance 0190163d-8694-739b-aea5-966c26f8ad91: decide about its seed and logs"
                .to_owned(),
        ] {
            ensure!(found.iter().any(|line| line.contains(&expected)), "not {expected:?}: {found:#?}");
        }
        ensure!(host.differences(Duration::ZERO)? == found, "looking has changed something");

        // What no agent would touch.
        host.machine.run("ip", &["link", "del", "ct0123456789ab"])?;
        fs::write(&seed, kept_seed)?;
        fs::remove_dir(&stray)?;
        host.agent.start().await?;
        lab.verify().await?;

        // Beside a running agent, the operator reads of it at the control plane, and that it is over.
        let kept_seed = fs::read(&seed)?;
        fs::remove_file(&seed)?;
        fs::create_dir(&stray)?;
        let found = drift(lab, 2).await?;
        let about = |code: &str| found.iter().find(|one| one["code"] == code).map(|one| &one["about"]);
        let gone = about("instance_file_missing").with_context(|| format!("{found:?}"))?;
        ensure!(gone["id"] == json!(instance.id) && gone["name"] == "vm", "{gone}");
        let left = about("unknown_files").with_context(|| format!("{found:?}"))?;
        ensure!(left["id"] == "0190163d-8694-739b-aea5-966c26f8ad91", "{left}");
        ensure!(
            found.iter().all(|one| one["repair"].as_str().is_some_and(|it| it.starts_with("an operator")))
        );
        fs::write(&seed, kept_seed)?;
        fs::remove_dir(&stray)?;
        drift(lab, 0).await?;

        instance.delete().await?.success()?;
        instance.wait_gone(LIMIT).await?;
        lab.wait_empty(Duration::from_secs(30)).await
    })
    .await
}
