//! What hosts say of migrations, which is believed as far as their part in them goes.

use std::net::SocketAddr;

use protocol::HostId;
use protocol::agent::{MAX_DETAIL_CHARS, MigrationReport, MigrationState};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::disks;
use super::{Migration, REQUESTED, TOO_LATE, call_off, cancelled, end, failed, migrations};
use crate::agents::clean;
use crate::operations::store::{self as operations, End};

/// A port below that is a service of the host's own.
const FIRST_PORT: u16 = 1024;

/// Folds one report in; its instance is locked. What the host has no part in, or is over, is ignored.
pub(crate) async fn fold(
    conn: &mut PgConnection,
    host: HostId,
    report: &MigrationReport,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let Some(of) = migrations::of_host(conn, host, report.id, report.instance_id).await? else {
        return Ok(());
    };
    if of.moves_disks {
        return disks::fold(conn, host, &of, &report.state, now).await;
    }
    let is_source = host == of.source();
    match &report.state {
        MigrationState::Ready { address } if !is_source && of.cancel_code.is_none() => {
            // One that was put back to an earlier release may still have heard of it.
            if !is_own(conn, host, *address).await? || !migrations::is_taken(conn, &of).await? {
                return Ok(());
            }
            if migrations::set_ready(conn, &of, *address).await? {
                operations::step(conn, of.operation(), "destination_ready", now, None).await?;
            }
            Ok(())
        }
        MigrationState::Refused { detail } if !is_source && !of.is_sent() => {
            end(conn, &of, &failed_because(detail), now).await
        }
        MigrationState::Refused { .. } if !is_source => call_off(conn, &of, REFUSED, now).await,
        MigrationState::Mirroring { done_bytes, total_bytes } if is_source && of.is_sent() => {
            tell_progress(conn, &of, "mirroring", (*done_bytes, *total_bytes), now).await
        }
        MigrationState::Transferring { done_bytes, total_bytes } if is_source && of.is_sent() => {
            tell_progress(conn, &of, "transferring", (*done_bytes, *total_bytes), now).await
        }
        MigrationState::HandedOver if is_source && of.is_sent() => {
            migrations::change_hands(conn, &of, now).await?;
            operations::step(conn, of.operation(), "handed_over", now, None).await
        }
        MigrationState::Ended { detail } if is_source && of.is_sent() => {
            end(conn, &of, &why_ended(&of, detail), now).await
        }
        _ => Ok(()),
    }
}

/// How far its files are, its disks, or its memory.
pub(super) async fn tell_progress(
    conn: &mut PgConnection,
    of: &Migration,
    step: &'static str,
    (done, total): (u64, u64),
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (done, total) = (counted(done), counted(total));
    operations::step(conn, of.operation(), step, now, None).await?;
    operations::set_progress(conn, of.operation(), done.min(total), Some(total)).await.map(drop)
}

/// Whether a host may be reached there, as it says.
pub(super) async fn is_own(
    conn: &mut PgConnection,
    host: HostId,
    address: SocketAddr,
) -> Result<bool, sqlx::Error> {
    let own = migrations::underlay_of(conn, host).await?;
    let is_own = own == Some(address.ip()) && address.port() >= FIRST_PORT;
    if !is_own {
        tracing::warn!(%host, "a host names an address that is not its own: ignored");
    }
    Ok(is_own)
}

const REFUSED: super::Why =
    ("migration_failed", "the host that it was to go to cannot take it any more; it runs on where it was");

fn why_ended(of: &Migration, detail: &str) -> End {
    match of.cancel_code.as_deref() {
        None => failed_because(detail),
        Some(code) if code == REQUESTED.0 => cancelled(),
        Some(code) if code == TOO_LATE.0 => failed(TOO_LATE),
        Some(_) => failed_because(of.cancel_detail.as_deref().unwrap_or(detail)),
    }
}

pub(super) fn failed_because(detail: &str) -> End {
    End::Failed { code: "migration_failed", detail: Some(clean(detail, MAX_DETAIL_CHARS)) }
}

fn counted(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
