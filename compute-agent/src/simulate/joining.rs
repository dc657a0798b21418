//! Joining those hosts that have not joined yet, with a token each.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8Path;
use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::Name;
use protocol::agent::JoinToken;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::options::Options;
use crate::agent::StateDir;
use crate::clock::SystemClock;
use crate::control_plane::ControlPlaneError;
use crate::identity::join::{JoinError, join};
use crate::identity::{Endpoint, Identity, IdentityError};

/// Each waits for the disk and for the control plane.
const AT_ONCE: usize = 8;
const PROGRESS: Duration = Duration::from_secs(2);
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// Far above a token; what is longer is some other file.
const MAX_LINE_BYTES: u64 = 4096;

/// Joins all hosts with these names and folders that have no identity.
pub(super) async fn join_all(options: &Options, hosts: &[(Name, StateDir)]) -> Result<()> {
    let mut new = Vec::new();
    for (name, folder) in hosts {
        if !has_joined(options, name, folder.path())? {
            new.push((name, folder.path()));
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    let file = options.token_file.as_deref();
    let file = file.with_context(|| {
        format!(
            "{} of {} hosts have not joined: name a --token-file with a token for each",
            new.len(),
            hosts.len()
        )
    })?;
    tracing::info!(hosts = new.len(), "joining");
    let tokens = Tokens::open(file).await?;
    let (done, begun) = (AtomicUsize::new(0), Instant::now());
    let (total, endpoint, tokens, counted) = (new.len(), &options.control_plane, &tokens, &done);
    let joined = stream::iter(new).map(Ok).try_for_each_concurrent(AT_ONCE, async |(name, folder)| {
        join_one(endpoint, tokens, folder, name)
            .await
            .with_context(|| format!("{name} did not join; {} of {total} did", counted.load(Relaxed)))?;
        counted.fetch_add(1, Relaxed);
        Ok::<_, anyhow::Error>(())
    });
    tokio::select! {
        joined = joined => joined?,
        () = tell(&done, total) => {}
    }
    tracing::info!(hosts = total, seconds = begun.elapsed().as_secs(), "joined");
    Ok(())
}

async fn tell(done: &AtomicUsize, of: usize) {
    let mut tick = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        tracing::info!(joined = done.load(Relaxed), of, "joining");
    }
}

/// Whether the host is one of this cloud already. A folder of another host is left alone.
fn has_joined(options: &Options, name: &Name, folder: &Utf8Path) -> Result<bool> {
    let membership = match Identity::load(folder) {
        Ok(identity) => identity.membership,
        Err(IdentityError::NotJoined { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    ensure!(
        membership.name == *name && membership.control_plane == options.control_plane,
        "{folder} is of {}, which has joined {}: choose another --state-dir, or remove the folder",
        membership.name,
        membership.control_plane
    );
    Ok(true)
}

/// Takes tokens until one is good: a file may begin with some that were used before.
async fn join_one(endpoint: &Endpoint, tokens: &Tokens, folder: &Utf8Path, name: &Name) -> Result<()> {
    let mut token = tokens.next().await?;
    loop {
        match join(endpoint, &token, folder, name, &SystemClock).await {
            Err(JoinError::Refused(ControlPlaneError::Refused { status: 401, .. })) => {
                tracing::info!("a token was used before, or is too old: taking the next");
                token = tokens.next().await?;
            }
            // All hosts have one address, which may not join as fast as it can.
            Err(JoinError::Refused(ControlPlaneError::Refused { status: 429, .. })) => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            joined => return Ok(joined.map(drop)?),
        }
    }
}

/// The lines of a file, each given out once.
struct Tokens {
    lines: Mutex<Box<dyn AsyncBufRead + Send + Unpin>>,
}

impl Tokens {
    async fn open(file: &Utf8Path) -> Result<Self> {
        let lines: Box<dyn AsyncBufRead + Send + Unpin> = if file == "-" {
            Box::new(BufReader::new(tokio::io::stdin()))
        } else {
            let opened = tokio::fs::File::open(file).await;
            Box::new(BufReader::new(opened.with_context(|| format!("{file} cannot be opened"))?))
        };
        Ok(Self { lines: Mutex::new(lines) })
    }

    async fn next(&self) -> Result<JoinToken> {
        let mut lines = self.lines.lock().await;
        loop {
            let mut line = String::new();
            let read = (&mut *lines).take(MAX_LINE_BYTES).read_line(&mut line).await;
            if read.context("the join tokens cannot be read")? == 0 {
                bail!("there is no join token left: add more, and start again");
            }
            if !line.trim().is_empty() {
                return Ok(line.parse()?);
            }
        }
    }
}
