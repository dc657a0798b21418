//! Security groups that change while guests talk, and one that cannot be made.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Lab, LabOptions, ProcessId, Project, eventually, in_lab};
use serde_json::{Value, json};

use crate::scene::{Actor, EFFECT, cast, curtain, egress, get, group, ingress, ping, serve};

/// An echo server.
const ECHO: u16 = 7;
/// How long silence has to last to be believed; a guest says something every half second.
const SILENCE: Duration = Duration::from_secs(3);

/// A connection to an echo server that is kept busy; what comes back is counted in the guest.
struct Talk {
    log: String,
}

impl Talk {
    fn begin(from: &mut Actor, to: &Actor, name: &str) -> Result<Self> {
        let log = format!("/run/talk-{name}");
        let address = &to.v4;
        from.shell.output(&format!(
            "(while usleep 500000; do echo tick; done) | nc {address} {ECHO} > {log} 2>&1 &"
        ))?;
        Ok(Self { log })
    }

    fn heard(&self, from: &mut Actor) -> Result<u64> {
        let lines = from.shell.output(&format!("grep -c tick {} || true", self.log))?;
        lines.parse().with_context(|| format!("{lines:?} is no count"))
    }

    /// Waits until two more answers have come.
    async fn goes_on(&self, from: &mut Actor) -> Result<()> {
        let so_far = self.heard(from)?;
        eventually("an open connection to go on", EFFECT, async || {
            let now = self.heard(from)?;
            ensure!(now >= so_far + 2, "{now} answers after {so_far}");
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(())
        })
        .await
    }

    /// Waits until nothing comes any more.
    async fn ends(&self, from: &mut Actor) -> Result<()> {
        eventually("an open connection to end", EFFECT, async || {
            let so_far = self.heard(from)?;
            tokio::time::sleep(SILENCE).await;
            let now = self.heard(from)?;
            ensure!(now == so_far, "{} answers more", now - so_far);
            Ok(())
        })
        .await
    }
}

/// The rule of a group for this port.
async fn rule(project: &Project, group: &str, port: u16) -> Result<String> {
    let shown = project.cloud.get(&project.path(&format!("/security_groups/{group}"))).await?.success()?;
    let rules = shown["rules"].as_array().into_iter().flatten();
    let id = rules.into_iter().find(|rule| rule["port_first"] == port).and_then(|rule| rule["id"].as_str());
    Ok(id.with_context(|| format!("no rule for {port} in {shown}"))?.to_owned())
}

async fn remove(project: &Project, group: &str, rule: &str) -> Result<()> {
    let path = project.path(&format!("/security_groups/{group}/rules/{rule}"));
    project.cloud.delete(&path).await?.success().map(|_| ())
}

/// What only a rule allowed ends with it, though it was open; other rules do not matter.
async fn rules(project: &Project, client: &mut Actor, server: &mut Actor) -> Result<()> {
    let talk = Talk::begin(client, server, "rules")?;
    talk.goes_on(client).await?;
    client.soon(&get(&server.v4, 80)).await?;
    remove(project, "server", &rule(project, "server", 80).await?).await?;
    client.soon_fails(&get(&server.v4, 80)).await?;
    talk.goes_on(client).await.context("after an unrelated rule has gone")?;
    remove(project, "server", &rule(project, "server", ECHO).await?).await?;
    talk.ends(client).await
}

fn tcp(port: u16, mut rest: Value) -> Value {
    rest["protocol"] = "tcp".into();
    rest["port_first"] = port.into();
    ingress(rest)
}

/// Whoever comes into a group that a rule names gains what it allows, and loses it by leaving.
async fn members(project: &Project, client: &mut Actor, server: &mut Actor) -> Result<()> {
    let rules = json!({"rules": [tcp(ECHO, json!({"remote_group": "friends"})), tcp(80, json!({"remote_group": "friends"}))]});
    project.cloud.put(&project.path("/security_groups/server/rules"), rules).await?.success()?;
    client.shell.fails(&get(&server.v4, 80))?;
    client.change_port(json!({"security_groups": ["client", "friends"]})).await?;
    client.soon(&get(&server.v4, 80)).await?;
    let talk = Talk::begin(client, server, "members")?;
    talk.goes_on(client).await?;
    client.change_port(json!({"security_groups": ["client"]})).await?;
    talk.ends(client).await?;
    client.shell.fails(&get(&server.v4, 80))
}

/// The kinds of things that a host could not make, with the host's words.
async fn faults(lab: &Lab, host: &str) -> Result<Vec<(String, String)>> {
    let hosts = lab.cloud.get("/v1/hosts").await?.success()?;
    let hosts = hosts["items"].as_array().into_iter().flatten();
    let host = hosts.into_iter().find(|item| item["name"] == host).context("no such host")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let faults = host["network_faults"].as_array().into_iter().flatten();
    Ok(faults.map(|fault| (text(&fault["subject"]["kind"]), text(&fault["detail"]))).collect())
}

/// A group that the API would refuse, as after damage to the database: `broken` passes nothing, the other
/// guests of its host notice nothing, and the operator is told.
async fn broken_group(lab: &Lab, project: &Project, broken: &mut Actor, well: [&mut Actor; 2]) -> Result<()> {
    let [neighbour, other] = well;
    broken.change_port(json!({"security_groups": ["client", "odd"]})).await?;
    broken.soon(&ping(&other.v4)).await?;
    let talk = Talk::begin(neighbour, other, "beside")?;
    talk.goes_on(neighbour).await?;

    lab.control.sql("ALTER TABLE security_group_rules DROP CONSTRAINT security_group_rules_icmp_code")?;
    lab.control.sql(
        "INSERT INTO security_group_rules
             (id, security_group_id, direction, protocol, icmp_code, remote_cidr, created_at)
         SELECT gen_random_uuid(), id, 'ingress', 'icmp', 3, '10.0.0.0/24', now()
         FROM security_groups WHERE name = 'odd'",
    )?;
    broken.soon_fails(&ping(&other.v4)).await?;
    eventually("the fault to be shown", EFFECT, async || {
        let shown = broken.shown().await?;
        ensure!(shown["status"] == "fault", "{shown}");
        let faults = faults(lab, &broken.host).await?;
        let told = faults.iter().find(|(kind, _)| kind == "security_group");
        ensure!(told.is_some_and(|(_, detail)| detail.contains("ICMP code 3")), "{faults:?}");
        Ok(())
    })
    .await?;
    // Not even what another of its groups allows, nor the services, nor anybody to it.
    broken.shell.fails(&ping(&neighbour.v4))?;
    broken.shell.fails(&ping("10.0.0.1"))?;
    broken.shell.fails("timeout 3 nslookup -type=a server.tests.internal 10.0.0.2")?;
    neighbour.shell.fails(&ping(&broken.v4))?;
    for well in [&*neighbour, &*other] {
        let shown = well.shown().await?;
        ensure!(shown["status"] == "active", "{shown}");
    }
    talk.goes_on(neighbour).await.context("beside the broken group")?;
    neighbour.shell.output(&ping(&other.v4))?;
    // What changes meanwhile reaches that host all the same.
    let rules = json!({"rules": [tcp(80, json!({"remote_group": "friends"}))]});
    project.cloud.put(&project.path("/security_groups/server/rules"), rules).await?.success()?;
    talk.ends(neighbour).await?;

    // The owner writes the group anew, by the API.
    let pings = ingress(json!({"protocol": "icmp", "remote_cidr": "0.0.0.0/0"}));
    project
        .cloud
        .put(&project.path("/security_groups/odd/rules"), json!({"rules": [pings]}))
        .await?
        .success()?;
    broken.soon(&ping(&other.v4)).await?;
    eventually("the fault to be gone", EFFECT, async || {
        let (shown, faults) = (broken.shown().await?, faults(lab, &broken.host).await?);
        ensure!(shown["status"] == "active" && faults.is_empty(), "{shown} {faults:?}");
        Ok(())
    })
    .await
}

fn same_guests(lab: &Lab, before: &BTreeMap<String, ProcessId>) -> Result<()> {
    let now = lab.qemu_processes()?;
    ensure!(now == *before, "guests were started anew: {before:?}, {now:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_change_under_open_connections_and_fail_alone() -> Result<()> {
    in_lab(LabOptions { hosts: 2 }, async |lab| {
        let project = lab.project_with(Guest::Fast).await?;
        let pings = ingress(json!({"protocol": "icmp", "remote_cidr": "0.0.0.0/0"}));
        let everybody = || json!({"remote_cidr": "10.0.0.0/24"});
        group(&project, "client", [vec![pings.clone()], egress().into()].concat()).await?;
        group(&project, "server", vec![tcp(ECHO, everybody()), tcp(80, everybody())]).await?;
        group(&project, "pinged", vec![pings.clone()]).await?;
        group(&project, "friends", vec![]).await?;
        group(&project, "odd", vec![pings]).await?;

        let card = |groups: &[&str]| json!({"network": "default", "security_groups": groups});
        let cards =
            [("server", card(&["server", "pinged"])), ("one", card(&["client"])), ("two", card(&["client"]))];
        let mut actors = cast(lab, &project, &cards).await?;
        let guests = lab.qemu_processes()?;
        let [server, one, two] = &mut actors[..] else { anyhow::bail!("not three") };
        // On the other host than the server; the third is beside one of them.
        let (far, beside) = if one.host == server.host { (two, one) } else { (one, two) };
        ensure!(far.host != server.host, "all are on {}", server.host);
        serve(server, &[80])?;
        server.shell.output(&format!("nc -ll -p {ECHO} -e cat &"))?;

        rules(&project, far, server).await.context("rules that go")?;
        members(&project, far, server).await.context("members that come and go")?;

        far.change_port(json!({"security_groups": ["client", "friends"]})).await?;
        let rules = json!({"rules": [tcp(ECHO, json!({"remote_group": "friends"}))]});
        project.cloud.put(&project.path("/security_groups/server/rules"), rules).await?.success()?;
        broken_group(lab, &project, beside, [far, server]).await.context("a group that cannot be made")?;
        same_guests(lab, &guests)?;
        curtain(lab, actors).await
    })
    .await
}
