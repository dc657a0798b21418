//! The guides in `docs/` do what they say: their commands are run as they stand there.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, LabOptions, binaries, cached, in_lab};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_team_and_its_rights() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        // What `make up` has made.
        lab.cloud.instance_type("tiny", 1, 256, 1).await?;
        let credentials = lab.control.credentials()?;
        let url = lab.control.url();
        let environment = [
            ("CUMULO_URL", url.as_str()),
            ("CUMULO_USERNAME", &credentials.username),
            ("CUMULO_PASSWORD", &credentials.password),
        ];
        let said = run_guide("team.md", &environment)?;
        for expected in [
            r#"["compute:DeleteInstance","explicit_deny","KeepTheDatabase"]"#,
            r#"["compute:StopInstance","allowed","EverythingButIdentityAndQuotas"]"#,
            r#"["compute:StopInstance","explicit_deny","OnlyFromTheOffice"]"#,
            r#"{"resource":"vcpus","limit":20,"used":1,"source":"project"}"#,
        ] {
            ensure!(said.contains(expected), "the guide does not say {expected}:\n{said}");
        }
        let left = lab.cloud.get("/v1/projects?name=shop").await?.success()?;
        ensure!(left["items"] == json!([]), "the guide leaves its project: {left}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_networks_of_a_shop() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        // What `make up` has made.
        lab.cloud.instance_type("tiny", 1, 256, 1).await?;
        let pool = json!({"name": "public", "cidr": "203.0.113.0/24"});
        lab.cloud.post("/v1/address_pools", pool).await?.success()?;
        let credentials = lab.control.credentials()?;
        let url = lab.control.url();
        let image = tokio::task::spawn_blocking(|| cached(Guest::Fast)).await??;
        let environment = [
            ("CUMULO_URL", url.as_str()),
            ("CUMULO_USERNAME", &credentials.username),
            ("CUMULO_PASSWORD", &credentials.password),
            ("FILE", image.as_str()),
        ];
        let said = run_guide("networks.md", &environment)?;
        for expected in [
            r#"["10.0.0.1","10.0.1.1"]"#,
            r#"{"state":"running","addresses":["10.0.1.4"]}"#,
            r#""dns_name":"db.shop.internal","status":"active","status_detail":null}"#,
            r#"{"address":"203.0.113.1","fixed_address":"10.0.1.4"}"#,
            r#"["shop","default"]"#,
        ] {
            ensure!(said.contains(expected), "the guide does not say {expected}:\n{said}");
        }
        let left = lab.cloud.get("/v1/projects?name=shop").await?.success()?;
        ensure!(left["items"] == json!([]), "the guide leaves its project: {left}");
        lab.wait_empty(Duration::from_secs(30)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        // What `make up` has made.
        lab.cloud.instance_type("tiny", 1, 256, 1).await?;
        let credentials = lab.control.credentials()?;
        let url = lab.control.url();
        let image = tokio::task::spawn_blocking(|| cached(Guest::Fast)).await??;
        let program = binaries::find("cumulo")?;
        let folder = program.parent().context("a folder of programs")?;
        let path = format!("{folder}:{}", std::env::var("PATH")?);
        let configuration = tempfile::tempdir()?;
        let environment = [
            ("PATH", path.as_str()),
            ("CUMULO_CONFIG_DIR", configuration.path().to_str().context("a path of text")?),
            ("CUMULO_URL", &url),
            ("CUMULO_USERNAME", &credentials.username),
            ("CUMULO_PASSWORD", &credentials.password),
            ("FILE", image.as_str()),
        ];
        let said = run_guide("cli.md", &environment)?;
        for expected in [
            "A host would take it now.",
            "Linux web-1",
            "web-1  running",
            "instance web-1 is running",
            "web-1\trunning",
        ] {
            ensure!(said.contains(expected), "the guide does not say {expected}:\n{said}");
        }
        let left = lab.cloud.get("/v1/projects?name=shop").await?.success()?;
        ensure!(left["items"] == json!([]), "the guide leaves its project: {left}");
        lab.wait_empty(Duration::from_secs(30)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_by_terraform() -> Result<()> {
    binaries::terraform()?;
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        // What `make up` has made.
        lab.cloud.instance_type("tiny", 1, 256, 1).await?;
        let pool = json!({"name": "public", "cidr": "203.0.113.0/24"});
        lab.cloud.post("/v1/address_pools", pool).await?.success()?;
        let credentials = lab.control.credentials()?;
        let url = lab.control.url();
        let image = tokio::task::spawn_blocking(|| cached(Guest::Fast)).await??;
        let program = binaries::find("cumulo")?;
        binaries::find("terraform-provider-cumulo")?;
        let folder = program.parent().context("a folder of programs")?;
        let path = format!("{folder}:{}", std::env::var("PATH")?);
        let home = tempfile::tempdir()?;
        let home = home.path().to_str().context("a path of text")?;
        let environment = [
            ("PATH", path.as_str()),
            ("HOME", home),
            ("XDG_DATA_HOME", home),
            ("CUMULO_CONFIG_DIR", home),
            ("TF_CLI_CONFIG_FILE", "/dev/null"),
            ("CHECKPOINT_DISABLE", "1"),
            ("TF_CLI_ARGS", "-no-color"),
            ("CUMULO_URL", &url),
            ("CUMULO_USERNAME", &credentials.username),
            ("CUMULO_PASSWORD", &credentials.password),
            ("FILE", image.as_str()),
        ];
        let said = run_guide("terraform.md", &environment)?;
        for expected in
            ["203.0.113.1", "running", "No changes. Your infrastructure matches", "Destroy complete!"]
        {
            ensure!(said.contains(expected), "the guide does not say {expected}:\n{said}");
        }
        let left = lab.cloud.get("/v1/projects?name=shop").await?.success()?;
        ensure!(left["items"] == json!([]), "the guide leaves its project: {left}");
        lab.wait_empty(Duration::from_secs(30)).await
    })
    .await
}

/// Runs every `sh` block of a guide in one shell that ends at the first failure; returns what it wrote.
fn run_guide(name: &str, environment: &[(&str, &str)]) -> Result<String> {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let blocks: Vec<&str> =
        text.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default()).collect();
    ensure!(!blocks.is_empty(), "{name} has no commands");
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("guide");
    fs::write(&script, blocks.join("\n"))?;
    let output = Command::new("bash")
        .args(["-euxo", "pipefail"])
        .arg(&script)
        .current_dir(folder.path())
        .envs(environment.iter().copied())
        .output()
        .context("run bash")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let trace = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} fails with {}\n{said}\n{trace}", output.status);
    Ok(said)
}
