//! What agents say of the shared pools that they were told of.

use protocol::HostId;
use protocol::agent::{MAX_DETAIL_CHARS, SharedPoolReport, SharedPoolState};
use sqlx::{Acquire, PgConnection};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::agents::clean;
use crate::instances::store::placement;

/// How old what is stored may become while hardly anything changes.
const REFRESH: Duration = Duration::seconds(60);
/// What is hardly anything.
const MUCH_BYTES: i64 = 1 << 30;

/// A shared pool of a host, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    pool_name: String,
    identity: Option<Uuid>,
    total_bytes: Option<i64>,
    free_bytes: Option<i64>,
    fault: Option<String>,
    seen_at: OffsetDateTime,
}

impl Stored {
    fn of(report: SharedPoolReport, now: OffsetDateTime) -> Self {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let pool_name = report.name.as_str().to_owned();
        let nothing = Self {
            pool_name,
            identity: None,
            total_bytes: None,
            free_bytes: None,
            fault: None,
            seen_at: now,
        };
        match report.state {
            SharedPoolState::Ready { identity, total_bytes, free_bytes } => Self {
                identity: Some(identity),
                total_bytes: Some(signed(total_bytes)),
                free_bytes: Some(signed(free_bytes)),
                ..nothing
            },
            SharedPoolState::Unusable { reason } => {
                Self { fault: Some(clean(&reason, MAX_DETAIL_CHARS)), ..nothing }
            }
        }
    }

    /// Whether there is nothing to write.
    fn is_as(&self, before: &Self) -> bool {
        let moved = self.free_bytes.unwrap_or_default().abs_diff(before.free_bytes.unwrap_or_default());
        self.identity == before.identity
            && self.total_bytes == before.total_bytes
            && self.fault == before.fault
            && moved < MUCH_BYTES.unsigned_abs()
            && self.seen_at - before.seen_at < REFRESH
    }
}

/// Stores what has changed. A pool that nobody had until now is the directory that this host has.
pub(crate) async fn fold(
    conn: &mut PgConnection,
    host: HostId,
    reports: Vec<SharedPoolReport>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let before = sqlx::query_as!(
        Stored,
        "SELECT pool_name, identity, total_bytes, free_bytes, fault, seen_at FROM host_pools WHERE host_id = $1",
        host.as_uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    let known = |name: &str| before.iter().find(|one| one.pool_name == name);
    let reports: Vec<_> = reports.into_iter().map(|report| Stored::of(report, now)).collect();
    let is_gone = |one: &&Stored| !reports.iter().any(|report| report.pool_name == one.pool_name);
    let gone: Vec<_> = before.iter().filter(is_gone).map(|one| one.pool_name.clone()).collect();
    let mut changed: Vec<_> = reports
        .iter()
        .filter(|report| !known(&report.pool_name).is_some_and(|before| report.is_as(before)))
        .collect();
    if gone.is_empty() && changed.is_empty() {
        return Ok(());
    }
    // One order for everybody who locks pools.
    changed.sort_by(|one, other| one.pool_name.cmp(&other.pool_name));
    let mut tx = conn.begin().await?;
    sqlx::query!("DELETE FROM host_pools WHERE host_id = $1 AND pool_name = ANY($2)", host.as_uuid(), &gone)
        .execute(&mut *tx)
        .await?;
    let mut has_more = false;
    for report in changed {
        has_more |= report.identity.is_some()
            && known(&report.pool_name).is_none_or(|before| before.identity != report.identity);
        store(&mut tx, host, report).await?;
    }
    if has_more {
        placement::retry_now(&mut tx, now).await?;
    }
    tx.commit().await
}

async fn store(conn: &mut PgConnection, host: HostId, report: &Stored) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO host_pools (host_id, pool_name, identity, total_bytes, free_bytes, fault, seen_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (host_id, pool_name) DO UPDATE
         SET identity = $3, total_bytes = $4, free_bytes = $5, fault = $6, seen_at = $7",
        host.as_uuid(),
        report.pool_name,
        report.identity,
        report.total_bytes,
        report.free_bytes,
        report.fault,
        report.seen_at
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE pools SET identity = $2, updated_at = $4,
                disk_gib_capacity = pool_capacity($3, overcommit_percent, disk_gib_reserved),
                low = pool_is_low($3, $5, low_percent, low)
         WHERE name = $1 AND $2::uuid IS NOT NULL AND coalesce(identity, $2) = $2
           AND (identity, disk_gib_capacity, low) IS DISTINCT FROM
               ($2, pool_capacity($3, overcommit_percent, disk_gib_reserved), pool_is_low($3, $5, low_percent, low))",
        report.pool_name,
        report.identity,
        report.total_bytes,
        report.seen_at,
        report.free_bytes
    )
    .execute(conn)
    .await?;
    Ok(())
}
