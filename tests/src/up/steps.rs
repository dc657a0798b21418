//! `make up`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;

use super::progress::Progress;
use super::record::Record;
use super::service::{Outcome, Service};
use super::settings::Settings;
use super::{demo, join, libvirt, port};
use crate::cloud::{Cloud, Credentials};
use crate::control::is_ready;
use crate::{binaries, wait};

pub(crate) const API: &str = "cumulo-api";
pub(crate) const AGENT: &str = "cumulo-agent";

/// Starts what does not run, makes what is missing, and says how to go on.
pub async fn up() -> Result<()> {
    let settings = Settings::from_env()?;
    settings.make_folders()?;
    let mut record = Record::open(&settings.state)?;
    let progress = Progress::new();

    let step = progress.step("libvirt");
    step.done(libvirt::ensure(&settings, &mut record).await?);

    let step = progress.step("api");
    step.done(ensure_api(&settings, &mut record).await?);
    let credentials = read_credentials(&settings.credentials())?;
    let cloud = Cloud::login(&settings.url(), credentials.clone()).await?;

    let step = progress.step("agent");
    step.done(ensure_agent(&settings, &mut record, &cloud).await?);
    let step = progress.step("host");
    step.done(join::wait_ready(&cloud).await?);

    let step = progress.step("catalogue");
    let project = demo::ensure_catalogue(&cloud).await?;
    step.done(format!(
        "project {}, image {}, type {}, address pool {}",
        demo::PROJECT,
        demo::IMAGE,
        demo::INSTANCE_TYPE,
        demo::ADDRESS_POOL
    ));
    let step = progress.step("instances");
    let started = demo::start_again(&cloud, record.stopped()).await?;
    step.done(format!("{started} started again"));
    let step = progress.step(demo::INSTANCE);
    step.done(demo::ensure_instance(&project, record.stopped()).await?);
    record.set_stopped(Vec::new())?;

    print_welcome(&settings, &credentials, progress.elapsed());
    Ok(())
}

async fn ensure_api(settings: &Settings, record: &mut Record) -> Result<String> {
    let program = binaries::find("cumulo-api")?;
    let mut options = vec![
        ("--data-dir", settings.api_data().into_string()),
        ("--listen", settings.listen.to_string()),
        ("--agent-listen", settings.agent_listen.to_string()),
        ("--first-run-credentials", settings.credentials().into_string()),
        // The guides sign in with it, and it is for this machine alone.
        ("--first-run-password-change", "optional".to_owned()),
    ];
    // As an argument, and not only through the environment, so that another value restarts the API.
    if let Ok(rate) = std::env::var("CUMULO_RATE_LIMIT") {
        options.push(("--rate-limit", rate));
    }
    let service = service(settings, API, &program, "serve", &options);
    if record.running(API).is_none() {
        port::ensure_free(settings.listen, "CUMULO_LISTEN")?;
        port::ensure_free(settings.agent_listen, "CUMULO_AGENT_LISTEN")?;
    }
    let outcome = service.ensure(record)?;
    record.set_url(Some(settings.url()))?;
    let ready = wait::eventually("cumulo-api to be ready", Duration::from_secs(60), async || {
        if record.running(API).is_none() {
            return Ok(false);
        }
        is_ready(&settings.url()).await?;
        Ok(true)
    });
    let ready = ready.await.with_context(|| service.last_words())?;
    ensure!(ready, "{}", service.last_words());
    Ok(describe(outcome, &settings.url()))
}

async fn ensure_agent(settings: &Settings, record: &mut Record, cloud: &Cloud) -> Result<String> {
    if !record.joined() {
        join::join(settings, record, cloud).await?;
    }
    let options = [
        ("--state-dir", settings.agent_state().into_string()),
        ("--libvirt-uri", "qemu:///system".to_owned()),
    ];
    let service = service(settings, AGENT, &binaries::find("cumulo-agent")?, "run", &options);
    Ok(describe(service.ensure(record)?, "qemu:///system"))
}

fn service(
    settings: &Settings,
    name: &'static str,
    program: &Utf8Path,
    verb: &str,
    options: &[(&str, String)],
) -> Service {
    let mut command = vec![program.to_string(), verb.to_owned()];
    command.extend(options.iter().flat_map(|(option, value)| [(*option).to_owned(), value.clone()]));
    Service { name, command, log: settings.log(name) }
}

fn describe(outcome: Outcome, what: &str) -> String {
    match outcome {
        Outcome::Kept => format!("runs already: {what}"),
        Outcome::Started => format!("started: {what}"),
        Outcome::Restarted => format!("restarted, it has changed: {what}"),
    }
}

pub(crate) fn read_credentials(path: &Utf8Path) -> Result<Credentials> {
    let text = fs::read(path).with_context(|| format!("read {path}"))?;
    serde_json::from_slice(&text).with_context(|| format!("understand {path}"))
}

fn print_welcome(settings: &Settings, credentials: &Credentials, took: Duration) {
    let (url, Credentials { username, password }) = (settings.url(), credentials);
    say!(
        r#"
The cloud is up after {took:.1?}.

  console    {url}
  API        {url}/v1    (its reference: {url}/docs)
  username   {username}
  password   {password}

Try next:

  eval "$(make -s env)"
  TOKEN=$(curl -s "$CUMULO_URL/v1/auth/login" --json "{{\"username\":\"$CUMULO_USERNAME\",\"password\":\"$CUMULO_PASSWORD\"}}" | jq -r .access_token)
  api() {{ curl -s -H "authorization: Bearer $TOKEN" "$@"; }}
  P="$CUMULO_URL/v1/projects/demo"
  api "$P/instances" | jq
  api "$P/instances/hello/serial"

Give hello an address that this machine alone knows the way to, and let everybody in at its port 80:

  IP=$(api "$P/floating_ips" --json '{{"name":"hello"}}' | jq -r .address)
  api "$P/floating_ips/hello/associate" --json '{{"instance":"hello"}}' | jq
  api "$P/security_groups/default/rules" --json '{{"direction":"ingress","protocol":"tcp","port_first":80,"remote_cidr":"0.0.0.0/0"}}' | jq
  curl -s --retry 9 --retry-delay 1 --retry-all-errors --connect-timeout 2 "http://$IP/"
"#
    );
}
