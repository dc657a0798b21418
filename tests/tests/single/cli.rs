//! The command line, where it is more than one call; what its guide says is run by `guides.rs`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{LabOptions, binaries, eventually, in_lab};
use regex::Regex;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_password_by_somebody_else_is_changed_at_a_terminal() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        let (program, url) = (binaries::find("cumulo")?, lab.control.url());
        let (known, own) = ("said on the phone", "known to nobody else");
        let body = serde_json::json!({"name": "ada", "password": known});
        lab.cloud.post("/v1/users", body).await?.success()?;
        let folder = tempfile::tempdir()?;
        let cumulo = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).env("CUMULO_CONFIG_DIR", folder.path()).env("CUMULO_URL", &url);
            command.env("CUMULO_USERNAME", "ada").kill_on_drop(true).stdin(Stdio::null());
            command
        };

        // A program is told what people do, and keeps no session.
        let ended = cumulo(program.as_str(), &["login"]).env("CUMULO_PASSWORD", known).output().await?;
        let said = String::from_utf8(ended.stderr)?;
        ensure!(
            ended.status.code() == Some(4) && said.contains("`cumulo login` asks for another one"),
            "{said}"
        );
        let ended = cumulo(program.as_str(), &["project", "list"]).output().await?;
        ensure!(ended.status.code() == Some(4), "a session is left");

        let mut terminal =
            cumulo("script", &["--quiet", "--return", "--command", &format!("{program} login"), "/dev/null"]);
        let mut login = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let typed = [known, "short", "short", own, known, own, own].map(|line| format!("{line}\n")).concat();
        login.stdin.take().context("a terminal")?.write_all(typed.as_bytes()).await?;
        let ended = tokio::time::timeout(LIMIT, login.wait_with_output()).await??;
        let said = String::from_utf8(ended.stdout)?;
        ensure!(ended.status.success(), "{said}");
        // Here alone is a password hashed by the program that users run.
        let costs = lab.control.sql("SELECT DISTINCT left(password_hash, 31) FROM user_passwords")?;
        ensure!(costs.trim() == "$argon2id$v=19$m=19456,t=2,p=1$", "{costs}");
        let mut rest = said.as_str();
        for part in [
            "Somebody else knows",
            "at least 12 characters",
            "The two differ.",
            "Your password is changed.",
            "Signed in",
        ] {
            rest =
                rest.split_once(part).with_context(|| format!("not {part:?}, in its place, in:\n{said}"))?.1;
        }
        let ended = cumulo(program.as_str(), &["project", "list"]).output().await?;
        ensure!(
            ended.status.success(),
            "the session is of no use: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
        let ended = cumulo(program.as_str(), &["login"]).env("CUMULO_PASSWORD", own).output().await?;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        Ok(())
    })
    .await
}

/// What people and scripts see: tables, other outputs, errors with their exit codes, contexts, calls of one's own.
const TRANSCRIPT: &str = "tests/single/cli/transcript.txt";
const SESSION: &[&str] = &[
    "network list",
    "login -p shop",
    "login --context other",
    "context list",
    "network list",
    "context use default",
    "context list -o yaml",
    "context project nowhere",
    "network list",
    "network create front --label tier=web",
    "network create front",
    "network create x/y",
    "network list",
    "network list -o json --columns name",
    "network list -o yaml --columns name",
    "network list --columns name,labels",
    "network list --columns name,colour",
    "network get back",
    "instance list --host h1",
    "instance list --cloud --label-selector tier=web",
    "network frobnicate",
    "subnet create front --network front --cidr 10.7.0.1/24",
    "subnet create front --network front --cidr 10.7.0.0/24 --dry-run",
    "subnet list",
    "api get /v1/projects/{project}/networks/front/labels",
    "api post /v1/projects/{project}/networks --body {\"nome\":\"back\"}",
    "api post /v1/projects/{project}/networks --body {",
    "api patch /v1/projects/{project}/networks/front --body {\"description\":\"faces\\u001b[31mall\"}",
    "api get v1/projects",
    "--context other api get /v1/projects/{project}",
    "network delete front",
    "context remove other",
    "--context other network list -p shop",
    "context use other",
    "logout",
    "network list",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_as_it_did() -> Result<()> {
    in_lab(LabOptions { hosts: 0 }, async |lab| {
        lab.cloud.project("shop").await?;
        let (program, url) = (binaries::find("cumulo")?, lab.control.url());
        let credentials = lab.control.credentials()?;
        let folder = tempfile::tempdir()?;
        let mut transcript = String::new();
        for line in SESSION {
            let mut command = Command::new(&program);
            command.args(line.split(' ')).env("CUMULO_CONFIG_DIR", folder.path()).env("COLUMNS", "120");
            if line.starts_with("login") {
                command.env("CUMULO_URL", &url).env("CUMULO_USERNAME", &credentials.username);
                command.env("CUMULO_PASSWORD", &credentials.password);
            }
            let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
            let said = [ended.stdout, ended.stderr].map(String::from_utf8);
            let [told, complained] = said;
            writeln!(transcript, "$ cumulo {line}\n{}{}", told?, complained?)?;
            if !ended.status.success() {
                writeln!(transcript, "[{}]\n", ended.status)?;
            }
        }
        is_golden(&settled(&transcript))
    })
    .await
}

/// Without what differs from run to run, as wide as it was.
fn settled(transcript: &str) -> String {
    let mut text = transcript.to_owned();
    for (differs, settled) in [
        ("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "01234567-89ab-cdef-0123-456789abcdef"),
        (r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d(\.\d+)?Z", "2020-02-02${1}20:20:20Z"),
        (r"127\.0\.0\.1:\d{5}", "127.0.0.1:12345"),
        (r#"(vni"?: )\d+"#, "${1}1234567"),
    ] {
        text = Regex::new(differs).expect("a pattern").replace_all(&text, settled).into_owned();
    }
    text
}

/// `UPDATE_GOLDEN=1` writes it anew.
fn is_golden(transcript: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TRANSCRIPT);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return Ok(std::fs::write(path, transcript)?);
    }
    let golden = std::fs::read_to_string(&path)?;
    let differs = golden.lines().zip(transcript.lines()).find(|(was, is)| was != is);
    ensure!(golden == transcript, "{TRANSCRIPT} differs at {differs:?}; it reads now:\n{transcript}");
    Ok(())
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
