//! Keeping what guests that the cloud does not know have.

use protocol::HostId;

use super::store;
use crate::app::App;

/// Forgets the guests of hosts that are declared dead, where none runs, and of those that do not tell any more, and keeps
/// those addresses of the others that nobody has any more.
pub(crate) async fn look_after(app: &App) -> Result<(), sqlx::Error> {
    let hosts = store::hosts(&mut *app.pool.acquire().await?).await?;
    for host in hosts {
        // The addresses on other hosts do not wait for these.
        if let Err(error) = settle(app, host).await {
            tracing::info!(%host, %error, "the addresses of unknown guests could not be kept; trying again");
        }
    }
    Ok(())
}

async fn settle(app: &App, host: HostId) -> Result<(), sqlx::Error> {
    let mut tx = app.begin().await?;
    store::settle(&mut tx, host).await?;
    tx.commit().await
}
