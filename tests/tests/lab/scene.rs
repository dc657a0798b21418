//! What the scenes of networks have in common: groups, guests with a shell, and what the API says of their ports.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Host, Instance, Lab, Project, Shell, eventually};
use serde_json::{Value, json};

/// Emulated guests share the processors of one machine.
pub const LIMIT: Duration = Duration::from_secs(180);
/// From a change in the API to its effect in a guest.
pub const EFFECT: Duration = Duration::from_secs(20);

pub async fn post(project: &Project, path: &str, body: Value) -> Result<Value> {
    project.cloud.post(&project.path(path), body).await?.success()
}

pub fn ingress(rest: Value) -> Value {
    rule("ingress", rest)
}

/// To everybody, in both families.
pub fn egress() -> [Value; 2] {
    ["0.0.0.0/0", "::/0"].map(|everybody| rule("egress", json!({"remote_cidr": everybody})))
}

fn rule(direction: &str, mut rest: Value) -> Value {
    rest["direction"] = direction.into();
    rest
}

pub async fn group(project: &Project, name: &str, rules: Vec<Value>) -> Result<Value> {
    post(project, "/security_groups", json!({"name": name, "rules": rules})).await
}

/// A guest with one card, and a shell in it.
pub struct Actor {
    pub instance: Instance,
    pub shell: Shell,
    pub port: String,
    pub mac: String,
    /// The first address of each family.
    pub v4: String,
    pub v6: Option<String>,
    /// Its host's name.
    pub host: String,
}

/// One instance for each name and card. They boot side by side.
pub async fn cast(lab: &Lab, project: &Project, cards: &[(&str, Value)]) -> Result<Vec<Actor>> {
    let mut instances = Vec::new();
    for (name, card) in cards {
        let body = json!({"name": name, "image": "fast", "instance_type": "fast", "networks": [card]});
        instances.push(project.create(body).await?);
    }
    let mut actors = Vec::new();
    for instance in instances {
        let mut shell = lab.shell(&instance, LIMIT).await?;
        shell.output("/etc/tools")?;
        let card = instance.get().await?["nics"][0].clone();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut addresses = card["addresses"].as_array().into_iter().flatten().filter_map(text);
        actors.push(Actor {
            v4: addresses.next().with_context(|| format!("no address in {card}"))?,
            v6: addresses.next(),
            mac: text(&card["mac"]).with_context(|| format!("no MAC in {card}"))?,
            port: text(&card["port"]["name"]).with_context(|| format!("no port in {card}"))?,
            host: lab.host_of(&instance)?.name().to_owned(),
            instance,
            shell,
        });
    }
    Ok(actors)
}

impl Actor {
    /// What the API says of its port.
    pub async fn shown(&self) -> Result<Value> {
        let project = &self.instance.project;
        project.cloud.get(&project.path(&format!("/ports/{}", self.port))).await?.success()
    }

    pub async fn change_port(&self, body: Value) -> Result<()> {
        let project = &self.instance.project;
        project
            .cloud
            .patch(&project.path(&format!("/ports/{}", self.port)), body)
            .await?
            .success()
            .map(|_| ())
    }

    /// Waits until a line succeeds in the guest.
    pub async fn soon(&mut self, line: &str) -> Result<String> {
        let shell = &mut self.shell;
        eventually(format!("`{line}` to succeed"), EFFECT, async || shell.output(line)).await
    }

    /// Waits until a line fails in the guest.
    pub async fn soon_fails(&mut self, line: &str) -> Result<()> {
        let shell = &mut self.shell;
        eventually(format!("`{line}` to fail"), EFFECT, async || shell.fails(line)).await
    }

    pub fn on<'a>(&self, lab: &'a Lab) -> Result<&'a Host> {
        lab.hosts.iter().find(|host| host.name() == self.host).context("its host is gone")
    }
}

/// One ping that has to be answered within two seconds.
pub fn ping(address: &str) -> String {
    format!("ping -c 1 -W 2 {address}")
}

/// A page of a guest's `httpd`.
pub fn get(address: &str, port: u16) -> String {
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("timeout 2 wget -q -O - http://{address}:{port}/page")
}

/// Pages on these ports, which the guest itself can read.
pub fn serve(actor: &mut Actor, ports: &[u16]) -> Result<()> {
    let name = actor.instance.name.clone();
    actor.shell.output(&format!("mkdir -p /www; echo {name}-page > /www/page"))?;
    for port in ports {
        actor.shell.output(&format!("httpd -p {port} -h /www"))?;
        for inside in ["127.0.0.1", "::1"] {
            let page = actor.shell.output(&get(inside, *port))?;
            ensure!(page.contains("-page"), "{name} does not serve itself: {page}");
        }
    }
    Ok(())
}

/// Deletes all, and waits until nothing of them is left on the hosts.
pub async fn curtain(lab: &Lab, actors: Vec<Actor>) -> Result<()> {
    for actor in &actors {
        actor.instance.delete().await?.success()?;
    }
    for actor in &actors {
        actor.instance.wait_gone(LIMIT).await?;
    }
    lab.wait_empty(Duration::from_secs(30)).await
}
