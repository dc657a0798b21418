//! Running the program of the operator: no shell, nothing of our environment, and an end in any case.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::options::Fencer;
use crate::agents::is_harmless;
use crate::http::Labels;

/// What of its output is kept: the end, where programs say what went wrong.
const KEPT_BYTES: usize = 4096;
const SHOWN_CHARS: usize = 300;
/// Whoever holds its pipes open after its end is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the program is to do.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FenceAction {
    /// Switch it off, and end with 0 once it certainly is.
    Off,
    /// Say whether it is on; end with 0 if it could be asked.
    Status,
}

impl FenceAction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Status => "status",
        }
    }
}

/// The host, as the program reads it on its standard input.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Subject {
    pub id: Uuid,
    pub name: String,
    pub rack: Option<String>,
    pub zone: Option<String>,
    pub labels: Labels,
    /// Where other hosts reach it, as its agent told last.
    pub address: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
}

/// How it ended, with the end of what it wrote.
#[derive(Debug)]
pub(super) enum Ended {
    Well(String),
    Badly(String),
}

/// Runs it to its end or its time limit, and ends whatever it has started. A caller that gives up kills it.
pub(super) async fn run(fencer: &Fencer, action: FenceAction, subject: &Subject) -> Ended {
    let started = match fencer.checked() {
        Ok(program) => command(&program, action, subject).spawn(),
        Err(error) => return Ended::Badly(shown(&chain(&error))),
    };
    match started {
        Ok(child) => attend(child, fencer.limit, input(action, subject)).await,
        Err(error) => Ended::Badly(shown(&format!("it cannot be started: {error}"))),
    }
}

fn command(program: &std::path::Path, action: FenceAction, subject: &Subject) -> Command {
    let mut command = Command::new(program);
    command
        .args([action.as_str(), &subject.id.to_string(), &subject.name])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

fn input(action: FenceAction, subject: &Subject) -> Vec<u8> {
    let mut line = serde_json::json!({"action": action, "host": subject}).to_string();
    line.push('\n');
    line.into_bytes()
}

/// Ends the group of the program when it goes, however that comes.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // There is none any more as a rule.
            killpg(leader, Signal::SIGKILL).ok();
        }
    }
}

async fn attend(mut child: Child, limit: Duration, input: Vec<u8>) -> Ended {
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let tail = Arc::new(Mutex::new(Vec::new()));
    let mut readers = tokio::task::JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        readers.spawn(read(stdout, Arc::clone(&tail)));
    }
    if let Some(stderr) = child.stderr.take() {
        readers.spawn(read(stderr, Arc::clone(&tail)));
    }
    let stdin = child.stdin.take();
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn(async move {
        if let Some(mut stdin) = stdin {
            // Who does not read it does not need it.
            stdin.write_all(&input).await.ok();
        }
    });
    let status = tokio::time::timeout(limit, child.wait()).await;
    drop(group);
    if status.is_err() {
        child.wait().await.ok();
    }
    tokio::time::timeout(LAST_WORDS, async { while readers.join_next().await.is_some() {} }).await.ok();
    let said = shown(&String::from_utf8_lossy(&tail.lock().unwrap_or_else(PoisonError::into_inner)));
    match status {
        Ok(Ok(status)) if status.success() => Ended::Well(said),
        Ok(Ok(status)) => Ended::Badly(with(&of(status), &said)),
        Ok(Err(error)) => Ended::Badly(shown(&format!("it could not be waited for: {error}"))),
        Err(_) => Ended::Badly(with(&format!("it took longer than {} s", limit.as_secs()), &said)),
    }
}

/// Reads to the end, so that the program never waits for us, and keeps the last of it.
async fn read(mut from: impl AsyncRead + Unpin, tail: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
    {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..count]);
        let surplus = tail.len().saturating_sub(KEPT_BYTES);
        tail.drain(..surplus);
    }
}

fn of(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended in an unknown way".to_owned(),
    }
}

fn with(how: &str, said: &str) -> String {
    if said.is_empty() { how.to_owned() } else { format!("{how}: {said}") }
}

fn chain(error: &super::options::UnfitProgram) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

/// The last of it in one line, with nothing that moves a cursor or turns text round.
fn shown(text: &str) -> String {
    let text: String = text.chars().map(|c| if is_harmless(c) { c } else { ' ' }).collect();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let surplus = line.chars().count().saturating_sub(SHOWN_CHARS);
    line.chars().skip(surplus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_shown_as_one_harmless_line_of_bounded_length() {
        assert_eq!(shown("a\n\x1b[31mb\0\u{202e}c\r\n"), "a [31mb c");
        let long = shown(&format!("{}end", "x".repeat(5000)));
        assert!(long.ends_with("xend") && long.chars().count() == SHOWN_CHARS);
        assert_eq!(with("it ended with 1", ""), "it ended with 1");
    }
}
