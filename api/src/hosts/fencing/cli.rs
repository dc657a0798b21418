//! `cumulo-api fence`: calling the program before it is needed.

use anyhow::Context;

use super::options::FenceOptions;
use super::program::{self, Ended, FenceAction};
use super::store;
use crate::database::{Database, Location};

/// Which host to ask about, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct TryOptions {
    #[command(flatten)]
    pub database: Location,
    #[command(flatten)]
    pub fence: FenceOptions,
    /// Name or id of the host.
    #[arg(value_name = "HOST")]
    pub host: String,
}

/// Calls the program with `status`, exactly as it would be called with `off`, and gives what it said.
///
/// # Errors
/// When there is no such program or host, or it did not end with 0.
pub async fn try_program(options: &TryOptions) -> anyhow::Result<String> {
    let fencer =
        options.fence.open()?.context("no --fence-command is given, so no host is ever switched off")?;
    let Database { pools, keeper } = Database::join(&options.database).await?;
    let found = async { store::subject(&mut *pools.own.acquire().await?, &options.host).await }.await;
    pools.own.close().await;
    keeper.leave().await.context("cannot stop PostgreSQL again")?;
    let subject = found.context("cannot read the host")?;
    let subject = subject.with_context(|| format!("there is no host {}", options.host))?;
    match program::run(&fencer, FenceAction::Status, &subject).await {
        Ended::Well(said) => Ok(said),
        Ended::Badly(why) => anyhow::bail!("the fence command failed: {why}"),
    }
}
