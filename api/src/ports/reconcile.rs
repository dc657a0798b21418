//! Cards whose host cannot say any more that they are gone.

use protocol::HostId;

use crate::app::App;
use crate::hosts;
use crate::operations::store::{self as operations, End};

use super::store::leaving;

/// Lets go of the cards that were to leave instances of hosts that the operator has declared dead: no guest has them.
pub(crate) async fn release_of_lost_hosts(app: &App) -> Result<(), sqlx::Error> {
    let lost = leaving::lost_hosts(&mut *app.pool.acquire().await?).await?;
    for host in lost {
        // The cards of other hosts do not wait for these.
        if let Err(error) = release(app, host).await {
            tracing::info!(%host, %error, "cards of a lost host could not be let go of; trying again");
        }
    }
    Ok(())
}

async fn release(app: &App, host: HostId) -> Result<(), sqlx::Error> {
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    let operations = leaving::release_of_lost(&mut tx, host, now).await?;
    for operation in operations {
        operations::finish(&mut tx, operation, &End::Succeeded, now).await?;
    }
    // Last, because everybody locks hosts last. It may be heard of again by now.
    if hosts::store::is_declared_dead(&mut tx, host).await? {
        tx.commit().await?;
    }
    Ok(())
}
