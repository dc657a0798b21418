//! Virtual networks as guests and strangers see them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Instance, Lab, LabOptions, Machine, Project, eventually, in_lab};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue, IF_MATCH};
use serde_json::{Value, json};

/// Emulated guests share the processors of one machine.
const LIMIT: Duration = Duration::from_secs(180);
/// From a change in the API to its effect on the hosts.
const EFFECT: Duration = Duration::from_secs(20);
/// For documentation (RFC 5737); used inside the lab only.
const PUBLIC: &str = "198.51.100.0/24";

const DB: &str = "#!/bin/sh
mkdir /www
echo 'forty-two apples' > /www/stock
httpd -p 5432 -h /www
httpd -p 80 -h /www
";

/// Port 22 is open in the guest, so only the security group can close it.
const WEB: &str = "#!/bin/sh
mkdir /www
httpd -p 22 -h /www
for attempt in $(seq 20); do
  timeout 5 wget -O /www/stock http://db.shop.internal:5432/stock && break
  sleep 1
done
timeout 3 wget -q -O /dev/null http://db.shop.internal/stock && echo 'shop: port 80 of db is open'
httpd -p 80 -h /www
timeout 3 wget -q -O /dev/null http://127.0.0.1:22/stock && echo 'shop: port 22 of web is open inside'
echo \"shop: fetched $(cat /www/stock)\"
";

async fn post(project: &Project, path: &str, body: Value) -> Result<Value> {
    project.cloud.post(&project.path(path), body).await?.success()
}

async fn create(project: &Project, name: &str, network: Value, user_data: &str) -> Result<Instance> {
    let body = json!({
        "name": name, "image": "fast", "instance_type": "fast", "networks": [network], "user_data": user_data,
    });
    project.create(body).await
}

/// The first address of an instance's first card.
async fn address(instance: &Instance) -> Result<String> {
    let shown = instance.get().await?;
    let address = shown["nics"][0]["addresses"][0].as_str();
    Ok(address.with_context(|| format!("no address in {shown}"))?.to_owned())
}

/// A pool on the underlay, and one of its addresses for an instance. The control plane's machine is the outside:
/// it has a way to the pool and finds out by ARP which host answers.
async fn publish(lab: &Lab, instance: &Instance) -> Result<String> {
    let pool = json!({"name": "public", "cidr": PUBLIC});
    lab.cloud.post("/v1/address_pools", pool).await?.success()?;
    lab.control.machine.run("ip", &["route", "add", PUBLIC, "dev", "uplink"])?;
    let project = &instance.project;
    let floating = post(project, "/floating_ips", json!({"name": "front"})).await?;
    post(project, "/floating_ips/front/associate", json!({"instance": instance.name})).await?;
    Ok(floating["address"].as_str().with_context(|| format!("no address in {floating}"))?.to_owned())
}

fn fetch(from: &Machine, url: &str) -> Result<String> {
    from.output("curl", &["--silent", "--show-error", "--fail", "--max-time", "4", url])
}

/// curl's status is that of a connection that was refused or never answered.
fn ensure_closed(from: &Machine, url: &str) -> Result<()> {
    let refused = fetch(from, url).err().with_context(|| format!("{url} answers"))?;
    let reason = format!("{refused:#}");
    ensure!(reason.contains("exit status: 7") || reason.contains("exit status: 28"), "{reason}");
    Ok(())
}

async fn delete_all(lab: &Lab, instances: &[&Instance]) -> Result<()> {
    for instance in instances {
        instance.delete().await?.success()?;
    }
    for instance in instances {
        instance.wait_gone(LIMIT).await?;
    }
    lab.wait_empty(Duration::from_secs(30)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_serves_the_public_from_a_database_that_nobody_else_reaches() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let shop = lab.project_named("shop", Guest::Fast).await?;
        let everywhere = json!({"direction": "egress", "remote_cidr": "0.0.0.0/0"});
        let tcp = |port: u16, end: &str, who: &str| {
            json!({"direction": "ingress", "protocol": "tcp", "port_first": port, end: who})
        };
        let rules = json!([tcp(80, "remote_cidr", "0.0.0.0/0"), everywhere]);
        post(&shop, "/security_groups", json!({"name": "web", "rules": rules})).await?;
        let rules = json!([tcp(5432, "remote_group", "web")]);
        post(&shop, "/security_groups", json!({"name": "db", "rules": rules})).await?;

        let card = |group: &str| json!({"network": "default", "security_groups": [group]});
        let db = create(&shop, "db", card("db"), DB).await?;
        let web = create(&shop, "web", card("web"), WEB).await?;
        for instance in [&db, &web] {
            instance.wait_for_state("running", LIMIT).await?;
        }
        let (db_host, web_host) = (lab.host_of(&db)?, lab.host_of(&web)?);
        ensure!(db_host.name() != web_host.name(), "both are on {}", db_host.name());
        let (db_address, web_address) = (address(&db).await?, address(&web).await?);
        db.wait_for_serial(&format!("cumulo-test: eth0 {db_address}\r"), LIMIT).await?;
        web.wait_for_serial(&format!("cumulo-test: eth0 {web_address}\r"), LIMIT).await?;

        // By its name, over the underlay, through both groups.
        let said = web.wait_for_serial("shop: fetched forty-two apples", LIMIT).await?;
        ensure!(!said.contains("port 80 of db is open"), "web reaches more of db than its group allows:\n{said}");

        ensure!(said.contains("port 22 of web is open inside"), "closing it proves nothing:\n{said}");

        let outside = lab.control.machine.clone();
        let front = publish(lab, &web).await?;
        let served = eventually(format!("an answer from {front}"), EFFECT, async || {
            fetch(&outside, &format!("http://{front}/stock"))
        });
        ensure!(served.await? == "forty-two apples\n");
        ensure_closed(&outside, &format!("http://{front}:22/stock"))?;
        ensure_closed(&outside, &format!("http://{front}:5432/stock"))?;
        // The private addresses are no secret, and no way in.
        for host in [db_host, web_host] {
            let route = ["route", "replace", "10.0.0.0/24", "via", &host.address];
            outside.run("ip", &route)?;
            ensure_closed(&outside, &format!("http://{db_address}:5432/stock"))?;
            ensure_closed(&outside, &format!("http://{web_address}/stock"))?;
        }

        // Another project with the same addresses; by spreading, on a host that has one of the shop's.
        let rival = lab.project_named("rival", Guest::Fast).await?;
        let spy = format!(
            "#!/bin/sh
mkdir /www
echo 'my own' > /www/stock
httpd -p 5432 -h /www
timeout 5 wget -q -O - http://10.0.0.250:5432/stock && echo 'spy: its own server answers'
timeout 5 wget -q -O - http://{db_address}:5432/stock && echo 'spy: reaches db'
timeout 5 wget -q -O - http://{web_address}/stock && echo 'spy: reaches web'
ping -c 1 -W 2 {db_address} && echo 'spy: pings db'
nslookup -type=a db.shop.internal && echo 'spy: finds db'
nslookup -type=a spy.rival.internal && echo 'spy: finds itself'
echo 'spy: done'
"
        );
        let spy = create(&rival, "spy", json!({"network": "default", "address": "10.0.0.250"}), &spy).await?;
        let said = spy.wait_for_serial("spy: done", LIMIT).await?;
        for expected in ["spy: its own server answers", "spy: finds itself"] {
            ensure!(said.contains(expected), "not {expected:?}:\n{said}");
        }
        for forbidden in ["spy: reaches", "spy: pings", "spy: finds db", "apples"] {
            ensure!(!said.contains(forbidden), "{forbidden:?}:\n{said}");
        }

        // A rule that goes takes its effect along.
        let rules = shop.path("/security_groups/web/rules");
        let body = json!({"rules": [everywhere]});
        let whatever_is_there = HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static("*"))]);
        shop.cloud.send(Method::PUT, &rules, &whatever_is_there, Some(body)).await?.success()?;
        eventually(format!("{front} to be closed"), EFFECT, async || {
            ensure_closed(&outside, &format!("http://{front}/stock"))
        })
        .await?;

        delete_all(lab, &[&db, &web, &spy]).await
    })
    .await
}
