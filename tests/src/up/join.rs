//! This machine becomes a host of the cloud.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::record::Record;
use super::settings::Settings;
use crate::cloud::Cloud;
use crate::lab::items;
use crate::machine::said_or_failed;
use crate::{binaries, wait};

/// Of a machine that somebody works on, whose disk is rarely as empty as that of a host should be.
const POOL_LOW_PERCENT: u32 = 1;

/// Joins with a one-time token. The token goes through a file that only root reads, not through argv.
pub(crate) async fn join(settings: &Settings, record: &mut Record, cloud: &Cloud) -> Result<()> {
    let answer = cloud.post("/v1/host_join_tokens", json!({"ttl_seconds": 600})).await?.success()?;
    let token = answer["token"].as_str().context("the answer holds no join token")?;
    let path = settings.state.join("join-token");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(token.as_bytes())?;
    let joined = Command::new(binaries::find("cumulo-agent")?)
        .args(["join", "--control-plane", &settings.agent_url(), "--token-file", path.as_str()])
        .args(["--state-dir", settings.agent_state().as_str(), "--name", &host_name()])
        .output();
    fs::remove_file(&path).with_context(|| format!("remove {path}"))?;
    said_or_failed(joined, || "cumulo-agent join".to_owned())?;
    let host = format!("/v1/hosts/{}", host_name());
    cloud.patch(&host, json!({"pool_low_percent": POOL_LOW_PERCENT})).await?.success()?;
    record.set_joined()
}

/// Waits until a host is ready to run instances. The agent boots a tiny guest first to see what the machine
/// can really do.
pub(crate) async fn wait_ready(cloud: &Cloud) -> Result<String> {
    let mut found = String::new();
    wait::eventually("this host to be ready", Duration::from_secs(120), async || {
        let answer = cloud.get("/v1/hosts").await?.success()?;
        let ready = items(&answer).find(|host| host["state"] == "ready");
        let states: Vec<_> = items(&answer).map(|host| host["state"].clone()).collect();
        ensure!(ready.is_some(), "the states of its hosts are {states:?}");
        found = ready.map(describe).unwrap_or_default();
        Ok(())
    })
    .await?;
    Ok(found)
}

fn describe(host: &serde_json::Value) -> String {
    let inventory = &host["inventory"];
    let acceleration = inventory["acceleration"].as_str().unwrap_or_default();
    format!("ready: {} {acceleration}", host["name"].as_str().unwrap_or_default())
}

/// The machine's name as a resource name: lower-case letters, digits, hyphens, beginning with a letter.
fn host_name() -> String {
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    as_resource_name(own.trim())
}

fn as_resource_name(text: &str) -> String {
    let label = text.split('.').next().unwrap_or_default().to_lowercase();
    let clean: String =
        label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50).collect();
    let clean = clean.trim_matches('-');
    if clean.starts_with(|c: char| c.is_ascii_lowercase()) {
        clean.to_owned()
    } else {
        format!("host-{clean}").trim_end_matches('-').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::as_resource_name;

    #[test]
    fn every_machine_name_becomes_a_resource_name() {
        for (own, name) in [
            ("web1.example.com", "web1"),
            ("(none)", "none"),
            ("10-0-0-7", "host-10-0-0-7"),
            ("", "host"),
            ("A_b", "a-b"),
        ] {
            assert_eq!(as_resource_name(own), name);
        }
    }
}
