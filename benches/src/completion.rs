//! B19: a name that the shell completes, beside one bare curl that lists the same.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::compare::{Series, report};
use crate::site::Site;

const LIST: &str = "/v1/projects/demo/instances?limit=500";

pub(crate) async fn run(site: &Site, rounds: usize) -> Result<()> {
    let user = User::sign_in(site).await?;
    let mut ours = Series::new("cumulo instance get h<TAB>");
    let mut peer = Series::new("curl of the list of instances");
    for _ in 0..rounds {
        ours.values.push(took(&mut user.completion()?, "hello")?);
        peer.values.push(took(&mut user.curl(), "hello")?);
    }
    report("b19", "ms", &ours, &peer)
}

struct User {
    /// Its configuration, with the session.
    folder: TempDir,
    url: String,
    token: String,
}

impl User {
    async fn sign_in(site: &Site) -> Result<Self> {
        let credentials = std::fs::read(format!("{}/credentials.json", site.state))?;
        let credentials: Value = serde_json::from_slice(&credentials)?;
        let answer = site.cloud.post("/v1/auth/login", credentials.clone()).await?.success()?;
        let token = answer["access_token"].as_str().context("no token")?.to_owned();
        let user = Self { folder: tempfile::tempdir()?, url: site.cloud.url().to_owned(), token };
        let text = |field: &str| credentials[field].as_str().map(str::to_owned).context("no credentials");
        let mut login = user.cumulo()?;
        login.args(["login", "--url", &user.url, "--username", &text("username")?]);
        let status = login.env("CUMULO_PASSWORD", text("password")?).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "cumulo login ended with {status}");
        Ok(user)
    }

    fn cumulo(&self) -> Result<Command> {
        let mut command = Command::new(lab::binaries::find("cumulo")?);
        command.env("XDG_CONFIG_HOME", self.folder.path()).env("CUMULO_PROJECT", "demo").stdin(Stdio::null());
        Ok(command)
    }

    /// What the shell runs when the tabulator is pressed.
    fn completion(&self) -> Result<Command> {
        let mut command = self.cumulo()?;
        command.args(["--", "cumulo", "instance", "get", "h"]);
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "3").env("_CLAP_COMPLETE_COMP_TYPE", "9");
        command.env("_CLAP_COMPLETE_SPACE", "false").env("_CLAP_IFS", "\n");
        Ok(command)
    }

    fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--header", &format!("authorization: Bearer {}", self.token)]);
        command.arg(format!("{}{LIST}", self.url));
        command
    }
}

/// Milliseconds until it has said this.
fn took(command: &mut Command, expected: &str) -> Result<f64> {
    let started = Instant::now();
    let output = command.output().context("start it")?;
    let took = started.elapsed();
    ensure!(
        String::from_utf8_lossy(&output.stdout).contains(expected),
        "{command:?} does not say {expected}"
    );
    Ok(took.as_secs_f64() * 1000.0)
}
