//! Live migration: a running guest goes to another host without being stopped.
//!
//! The destination makes a domain that waits, the source sends the guest there, and says when it has handed it over. Only
//! then the instance changes hands, and only then its new host lets the guest go on. Before the source was told where to
//! send it, a migration is ended here; after that the source alone knows whether it has happened.

mod checks;
mod disks;
mod hosts;
mod reports;

use protocol::{HostId, OperationId};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::store::migrations::{self, Migration, Stuck};
use crate::app::App;
use crate::http::{ApiError, violated_constraint};
use crate::operations::store::{self as operations, End};

pub(super) use self::checks::{choose, destination, refuse_now};
pub(super) use self::disks::{
    begin as begin_disks, begin_running, choose as choose_for_disks, destination as destination_of_disks,
    obstacle as obstacle_of_disks,
};
pub(super) use self::hosts::Hosts;
pub(crate) use self::reports::fold;

/// How long it may take. An operation has some minutes more.
pub(super) const DUE: Duration = Duration::minutes(10);

/// Why one is cancelled: a code and words.
type Why = (&'static str, &'static str);
const REQUESTED: Why = ("cancelled", "somebody asked for it; the instance runs on where it was");
const TOO_LATE: Why = (
    "migration_timed_out",
    "the guest was being transferred, and was not sent in time; it runs on where it was. One that changes its memory fast needs \
     more `max_downtime_ms`",
);
const NOT_READY: Why = (
    "migration_timed_out",
    "the host that it was to go to was not ready for the guest in time, so nothing of it was sent; it runs on where it was. The \
     log of the agent there tells why",
);
const NO_DESTINATION: Why =
    ("migration_failed", "the host that it was to go to was declared dead; it runs on where it was");
const OLDER_DESTINATION: Why = (
    "migration_failed",
    "the host that it was to go to has an agent now that takes no running guests; it runs on where it was",
);
const UNHEARD: Why = (
    "migration_failed",
    "nothing is heard of the host that it was to go to, so that it would stand still there; it runs on where it was",
);
const NO_SOURCE: Why = (
    "migration_failed",
    "the host that it runs on was declared dead before it was handed over; move it to start it elsewhere",
);

/// Looks after migrations that cannot go on by themselves. Any number of replicas may run it at once.
pub(crate) async fn look_after(app: &App) -> Result<(), sqlx::Error> {
    let mut conn = app.pool.acquire().await?;
    let stuck = migrations::stuck(&mut conn, None, app.clock.now()).await?;
    drop(conn);
    for one in stuck {
        let mut tx = app.begin().await?;
        match look_after_one(&mut tx, &one, app.clock.now()).await {
            Ok(()) => tx.commit().await?,
            // One that cannot be ended now does not keep the others waiting.
            Err(error) => tracing::info!(instance = %one.instance_id, %error, "trying again"),
        }
    }
    Ok(())
}

/// INVARIANT: what was seen before the locks were taken decides nothing. Meanwhile that migration may have ended and another
/// one begun, of which the source alone knows whether it has happened.
pub(crate) async fn look_after_one(
    conn: &mut PgConnection,
    seen: &Stuck,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    if !migrations::lock_instance(conn, seen.instance_id).await? {
        return Ok(());
    }
    let of = migrations::of_instance(conn, seen.instance_id).await?.filter(|of| of.id == seen.id);
    let Some(of) = of else { return Ok(()) };
    // Neither host comes back before this is decided.
    migrations::hold_hosts(conn, of.source(), of.destination()).await?;
    let Some(one) = migrations::stuck(conn, Some(of.id), now).await?.pop() else { return Ok(()) };
    if of.moves_disks {
        return end(conn, &of, &failed(disks::why_stuck(&one)), now).await;
    }
    if one.source_dead {
        return end(conn, &of, &failed(NO_SOURCE), now).await;
    }
    let why = if one.destination_dead {
        NO_DESTINATION
    } else if one.destination_unable {
        OLDER_DESTINATION
    } else if one.destination_silent {
        UNHEARD
    } else if of.is_sent() {
        TOO_LATE
    } else {
        NOT_READY
    };
    call_off(conn, &of, why, now).await
}

/// Cancels the migration that this operation is about. False when there is none any more.
pub(crate) async fn cancel(
    conn: &mut PgConnection,
    instance: uuid::Uuid,
    operation: OperationId,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    if !migrations::lock_instance(conn, instance).await? {
        return Ok(false);
    }
    let of = migrations::of_instance(conn, instance).await?.filter(|of| of.operation() == operation);
    let Some(of) = of else { return Ok(false) };
    call_off(conn, &of, REQUESTED, now).await?;
    Ok(true)
}

/// Ends it at once if the source does not know of it yet, and asks the source otherwise.
async fn call_off(
    conn: &mut PgConnection,
    of: &Migration,
    why: Why,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    // Of one that is stopped nothing happens at its source: it is here that it is said whose it is.
    if of.moves_disks || !of.is_sent() {
        let end_with = match why {
            REQUESTED if of.moves_disks => cancelled_disks(),
            REQUESTED => cancelled(),
            why => failed(why),
        };
        return end(conn, of, &end_with, now).await;
    }
    migrations::set_cancelled(conn, of, why, now).await?;
    operations::step(conn, of.operation(), "cancelling", now, Some(why.1)).await
}

/// Its guest stays where it is.
async fn end(
    conn: &mut PgConnection,
    of: &Migration,
    how: &End,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    migrations::end(conn, of).await?;
    operations::finish(conn, of.operation(), how, now).await
}

fn failed((code, detail): Why) -> End {
    End::Failed { code, detail: Some(detail.to_owned()) }
}

const fn cancelled_disks() -> End {
    End::Cancelled { code: REQUESTED.0, detail: disks::REQUESTED }
}

const fn cancelled() -> End {
    End::Cancelled { code: REQUESTED.0, detail: REQUESTED.1 }
}

/// Begins one, in the transaction of the call that has chosen the destination.
async fn begin(conn: &mut PgConnection, new: &migrations::New, now: OffsetDateTime) -> Result<(), ApiError> {
    migrations::insert(conn, new).await.map_err(|error| match violated_constraint(&error) {
        Some(name) if name.starts_with("hosts_") => checks::no_room(),
        _ => error.into(),
    })?;
    Ok(operations::step(conn, new.operation, "placed", now, None).await?)
}

/// Both hosts, before either is told.
pub(super) async fn hold(
    conn: &mut PgConnection,
    source: HostId,
    destination: HostId,
) -> Result<(), sqlx::Error> {
    migrations::hold_hosts(conn, source, destination).await
}
