//! Waits for a PostgreSQL that is not there yet, and tells that from one that refuses us.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Error, PgConnection};
use tokio::time::{Instant, sleep};

use super::servers::Servers;

/// After this a service manager should hear of it.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Connects, and tries again for a minute while PostgreSQL is unavailable.
pub(super) async fn patiently(servers: &Servers) -> Result<(PgConnectOptions, PgConnection), Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        match servers.connect().await {
            Err(error) if is_unavailable(&error) && Instant::now() + pause < deadline => {
                tracing::warn!(%error, retry_in = ?pause, "waiting for PostgreSQL");
            }
            answer => return answer,
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether an error says that PostgreSQL cannot be reached now, rather than that it does not like what it
/// was asked. Trying again later may help.
pub fn is_unavailable(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => true,
        Error::Database(error) => error.code().is_some_and(|code| {
            // Class 08: connection exceptions; too many connections; shut down by an administrator, by a
            // crash, or still starting. (PostgreSQL, appendix A)
            code.starts_with("08") || matches!(&*code, "53300" | "57P01" | "57P02" | "57P03")
        }),
        _ => false,
    }
}
