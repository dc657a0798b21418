//! The command line, where it is more than one call; what its guide says is run by `guides.rs`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{LabOptions, binaries, eventually, in_lab};
use serde_json::Value;
use tokio::process::Command;

const SIZE: u64 = 384 << 20;
const PART: u64 = 16 << 20;
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_cut_off_goes_on_where_it_was() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        lab.cloud.project("cut-off").await?;
        let (program, url) = (binaries::find("cumulo")?, lab.control.url());
        let credentials = lab.control.credentials()?;
        let folder = tempfile::tempdir()?;
        let (configuration, disk) = (folder.path().join("configuration"), folder.path().join("disk.raw"));
        std::fs::File::create(&disk)?.set_len(SIZE)?;
        let cumulo = |words: &[&str]| {
            let mut command = Command::new(&program);
            command.args(words).env("CUMULO_CONFIG_DIR", &configuration).env("CUMULO_URL", &url);
            command
                .env("CUMULO_USERNAME", &credentials.username)
                .env("CUMULO_PASSWORD", &credentials.password);
            command.kill_on_drop(true).stdout(Stdio::null());
            command
        };
        for words in [&["login", "-p", "cut-off"][..], &["image", "create", "big", "--format", "raw"]] {
            ensure!(cumulo(words).status().await?.success(), "{words:?} fails");
        }
        let disk = disk.to_str().context("a path of text")?;
        let upload = ["image", "upload", "big", disk];

        let mut cut_off = cumulo(&upload).spawn()?;
        let path = eventually("the first part to be there", LIMIT, async || {
            let path = format!("/v1/projects/cut-off/images/big/uploads/{}", begun(&configuration)?);
            let offset = lab.cloud.get(&path).await?.success()?["offset_bytes"].as_u64();
            ensure!(offset >= Some(PART), "nothing is there yet");
            Ok(path)
        });
        let path = path.await?;
        cut_off.kill().await?;
        let offset = lab.cloud.get(&path).await?.success()?["offset_bytes"].as_u64().context("an offset")?;
        ensure!(offset < SIZE, "it was not cut off");

        ensure!(cumulo(&upload).status().await?.success(), "it does not go on");
        let image = lab.cloud.get("/v1/projects/cut-off/images/big").await?.success()?;
        ensure!(image["state"] == "available" && image["size_bytes"] == SIZE, "{image}");
        ensure!(begun(&configuration).is_err(), "it remembers what is over");
        let begun = uploads_begun(&lab.cloud.get("/metrics").await?.text);
        ensure!(begun == 1, "{begun} uploads were begun");
        Ok(())
    })
    .await
}

/// The upload that the program remembers.
fn begun(configuration: &Path) -> Result<String> {
    let files = std::fs::read_dir(configuration)?.filter_map(|file| Some(file.ok()?.path()));
    let is_memory = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("upload-"))
    };
    let memory: Value =
        serde_json::from_slice(&std::fs::read(files.into_iter().find(is_memory).context("none")?)?)?;
    Ok(memory["upload"].as_str().context("an id")?.to_owned())
}

/// How often one was begun, as the API has counted.
fn uploads_begun(metrics: &str) -> u64 {
    let of_uploads = |line: &&str| {
        line.starts_with("cumulo_http_request_duration_seconds_count")
            && line.contains("method=\"POST\"")
            && line.contains("/uploads\"")
    };
    let counts =
        metrics.lines().filter(of_uploads).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}
