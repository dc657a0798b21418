//! What a fleet refuses before it asks anybody.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use super::{Options, run};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    options: Options,
}

fn options(folder: &Utf8Path, more: &[&str]) -> Result<Options, clap::Error> {
    // Nobody listens there.
    let usual = ["simulate", "--control-plane", "https://127.0.0.1:1", "--state-dir", folder.as_str()];
    Ok(Program::try_parse_from(usual.iter().chain(more))?.options)
}

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    (dir, path)
}

async fn refusal(options: &Options) -> String {
    let ended = tokio::time::timeout(Duration::from_secs(60), run(options, CancellationToken::new())).await;
    format!("{:#}", ended.unwrap().unwrap_err())
}

#[test]
fn options_are_checked() {
    let (_dir, folder) = folder();
    let usual = options(&folder, &["--hosts", "3"]).unwrap();
    assert_eq!(usual.name(3).unwrap().as_str(), "sim-0003");
    let times = ["--hosts", "3", "--create-latency", "2s", "--step-latency", "15ms"];
    let times = options(&folder, &times).unwrap();
    assert_eq!(times.create_latency + times.step_latency, Duration::from_millis(2015));
    for bad in [
        &["--hosts", "0"][..],
        &["--hosts", "100001"],
        &["--hosts", "1", "--prefix", "Not a name"],
        &["--hosts", "1", "--cpus", "0"],
        &["--hosts", "1", "--create-latency", "2"],
        &["--hosts", "1", "--faults", "fire=1m"],
        &["--hosts", "3", "--sharing", "1"],
        &["--hosts", "3", "--ordeals", "1"],
        &["--hosts", "3", "--sharing", "3", "--guests", "0"],
    ] {
        assert!(options(&folder, bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn hosts_that_have_not_joined_need_a_token_each() {
    let (_dir, folder) = folder();
    let none = options(&folder, &["--hosts", "3"]).unwrap();
    assert!(refusal(&none).await.contains("3 of 3 hosts have not joined"));
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, "\n\n").unwrap();
    let with_tokens = options(&folder, &["--hosts", "3", "--token-file", tokens.as_str()]).unwrap();
    assert!(refusal(&with_tokens).await.contains("no join token left"));
    std::fs::write(&tokens, "not a token\n").unwrap();
    assert!(refusal(&with_tokens).await.contains("did not join"));
}

#[tokio::test]
async fn hosts_that_share_pools_have_ordeals_and_no_other_interruptions() {
    let (_dir, folder) = folder();
    for faults in ["restart=10m", "silence=10m/40s"] {
        let options = options(&folder, &["--hosts", "3", "--sharing", "3", "--faults", faults]).unwrap();
        assert!(refusal(&options).await.contains("have --ordeals"), "{faults}");
    }
}

#[tokio::test]
async fn a_folder_is_of_one_fleet_at_a_time() {
    let (_dir, folder) = folder();
    let options = options(&folder, &["--hosts", "1"]).unwrap();
    let _other = crate::agent::StateDir::take(&folder).unwrap();
    assert!(refusal(&options).await.contains("another agent uses"));
}
