//! The first session of a new user, with curl and nothing else.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, LabOptions, cached, in_lab};
use serde_json::{Value, json};

/// A user at a terminal.
struct Curl {
    url: String,
    token: String,
}

impl Curl {
    /// Runs curl; what is secret or long goes through standard input.
    fn run(&self, arguments: &[&str], path: &str, input: &[u8]) -> Result<String> {
        let mut child = Command::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body", "--max-time", "150"])
            .args(["--header", &format!("authorization: Bearer {}", self.token)])
            .args(arguments)
            .arg(format!("{}{path}", self.url))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("curl has no standard input")?.write_all(input)?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "curl {arguments:?} {path}: {}: {text}", output.status);
        Ok(text)
    }

    fn get(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.run(&[], path, b"")?).with_context(|| format!("GET {path} is no JSON"))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.run(&["--json", "@-"], path, body.to_string().as_bytes())?;
        serde_json::from_str(&answer).with_context(|| format!("POST {path} is no JSON"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_login_to_a_vm_and_back_to_nothing() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let mut curl = Curl { url: lab.control.url(), token: String::new() };
        let credentials = serde_json::to_value(lab.control.credentials()?)?;
        let login = curl.post("/v1/auth/login", &credentials)?;
        curl.token = login["access_token"].as_str().context("no access_token")?.to_owned();
        ensure!(
            login["refresh_token"].is_string() && login["expires_in"].is_u64(),
            "{}",
            login["expires_in"]
        );

        curl.post("/v1/projects", &json!({"name": "shop"}))?;
        curl.post(
            "/v1/instance_types",
            &json!({"name": "small", "vcpus": 1, "memory_mib": 128, "root_disk_gib": 1}),
        )?;
        let image = curl.post("/v1/projects/shop/images", &json!({"name": "test", "format": "qcow2"}))?;
        ensure!(image["state"] == "awaiting_upload", "{image}");
        let file = tokio::task::spawn_blocking(|| cached(Guest::Fast)).await??;
        curl.run(&["--upload-file", file.as_str()], "/v1/projects/shop/images/test/content", b"")?;
        ensure!(curl.get("/v1/projects/shop/images/test")?["state"] == "available");

        let body = json!({"name": "web", "image": "test", "instance_type": "small"});
        let created = curl.post("/v1/projects/shop/instances", &body)?;
        ensure!(created["state"] == "pending" || created["state"] == "provisioning", "{created}");
        let web = curl.get("/v1/projects/shop/instances/web?wait=120")?;
        ensure!(web["state"] == "running", "{web}");
        lab::eventually("the guest to be ready", Duration::from_secs(120), async || {
            let console = curl.run(&[], "/v1/projects/shop/instances/web/serial", b"")?;
            ensure!(console.contains("cumulo-test: hostname=web"), "no host name yet:\n{console}");
            ensure!(console.contains("cumulo-test: ready"), "not ready yet:\n{console}");
            Ok(())
        })
        .await?;

        for (verb, state) in [("stop", "stopped"), ("start", "running")] {
            curl.post(&format!("/v1/projects/shop/instances/web/{verb}"), &json!({}))?;
            let web = curl.get("/v1/projects/shop/instances/web?wait=120")?;
            ensure!(web["state"] == state, "after {verb}: {web}");
        }
        check_trail(&curl.get(&operation_path(&created)?)?)?;

        curl.run(&["--request", "DELETE"], "/v1/projects/shop/instances/web", b"")?;
        let deadline = Duration::from_secs(60);
        lab::eventually("the instance to be gone", deadline, async || {
            let left = curl.get("/v1/projects/shop/instances")?;
            ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
            Ok(())
        })
        .await?;
        lab.wait_empty(deadline).await?;
        let host = &curl.get("/v1/hosts")?["items"][0];
        for resource in ["vcpus", "memory_mib", "disk_gib"] {
            ensure!(host[resource]["reserved"] == 0, "{resource} is still reserved: {host}");
        }
        Ok(())
    })
    .await
}

fn operation_path(instance: &Value) -> Result<String> {
    let id = instance["operation"]["id"].as_str().context("the answer names no operation")?;
    Ok(format!("/v1/projects/shop/operations/{id}"))
}

/// The trail of a creation tells every step, in order, with its time.
fn check_trail(operation: &Value) -> Result<()> {
    ensure!(operation["status"] == "succeeded", "{operation}");
    let trail = operation["trail"].as_array().context("no trail")?;
    let steps: Vec<&str> = trail.iter().filter_map(|step| step["step"].as_str()).collect();
    let mut rest = steps.iter();
    for wanted in ["agent_received", "image_cached", "disk_made", "seed_made", "domain_defined", "running"] {
        ensure!(rest.any(|step| *step == wanted), "{wanted} is missing or out of order in {steps:?}");
    }
    ensure!(trail.iter().all(|step| step["at"].is_string()), "a step has no time: {operation}");
    Ok(())
}
