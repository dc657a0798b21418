//! Calls of `nft`. The arguments never hold anything but our own names; documents go in by standard input.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::PacketsError;
use super::ruleset::{Family, TABLE};
use super::seen::{self, Seen};

/// For one run of `nft`. Far more than the rules of a full host need.
const LIMIT: Duration = Duration::from_secs(60);

/// Where rules live.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Host,
    /// A namespace of ours.
    Namespace(&'a str),
}

impl Place<'_> {
    fn command(self) -> Command {
        match self {
            Self::Host => Command::new("nft"),
            Self::Namespace(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, "nft"]);
                command
            }
        }
    }
}

/// What is in our table, if it is there.
pub(super) async fn list(place: Place<'_>, family: Family) -> Result<Option<Seen>, PacketsError> {
    let mut command = place.command();
    command.args(["-n", "-j", "list", "table", family.as_str(), TABLE]);
    let output = run(command, "list the packet rules", None).await?;
    if output.status.success() {
        let listing: Value = serde_json::from_slice(&output.stdout).map_err(PacketsError::Listing)?;
        return Ok(Some(seen::read(&listing)));
    }
    let detail = String::from_utf8_lossy(&output.stderr);
    // `nft` repeats the command; `ip` says the same of a namespace that is not there.
    if detail.contains("No such file or directory") && detail.contains("list table") {
        return Ok(None);
    }
    Err(refused("list the packet rules", &output))
}

/// Carries all commands out, or none.
pub(super) async fn apply(place: Place<'_>, commands: Vec<Value>) -> Result<(), PacketsError> {
    transact(place.command(), "change the packet rules", commands).await
}

/// Whether all commands could be carried out.
pub(super) async fn check(place: Place<'_>, commands: Vec<Value>) -> Result<(), PacketsError> {
    let mut command = place.command();
    command.arg("-c");
    transact(command, "check the packet rules", commands).await
}

async fn transact(
    mut command: Command,
    what: &'static str,
    commands: Vec<Value>,
) -> Result<(), PacketsError> {
    let document = json!({"nftables": commands}).to_string();
    command.args(["-j", "-f", "-"]);
    let output = run(command, what, Some(document.into_bytes())).await?;
    if output.status.success() { Ok(()) } else { Err(refused(what, &output)) }
}

async fn run(
    mut command: Command,
    what: &'static str,
    input: Option<Vec<u8>>,
) -> Result<Output, PacketsError> {
    let failed = |source| PacketsError::Run { what, source };
    command.env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // It may end before it has read all; its status tells why.
            let _ = stdin.write_all(&input).await;
        }
    };
    let run = async { tokio::join!(feed, child.wait_with_output()).1 };
    // One that is late is killed.
    let output = tokio::time::timeout(LIMIT, run).await;
    output.map_err(|_| PacketsError::Hung { what, limit: LIMIT })?.map_err(failed)
}

/// The first lines of what `nft` complains of.
fn refused(what: &'static str, output: &Output) -> PacketsError {
    let text = String::from_utf8_lossy(&output.stderr);
    let detail = text.chars().take(400).collect::<String>().trim().replace('\n', " ");
    PacketsError::Refused { what, detail }
}
