//! What hosts say of leases in shared pools: their own, and those of others. Whether a host that is silent can still do
//! harm follows from that alone.

use std::collections::{BTreeMap, BTreeSet};

use protocol::agent::{Heartbeat, SharedPoolState, TAKEOVER_SECONDS};
use protocol::{HostId, PoolId};
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{UNREACHABLE_AFTER, WITNESS_FRESH};

/// The word of one heartbeat, without what the host cannot know.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Leases {
    guarded: BTreeMap<String, i64>,
    seen: Vec<Seen>,
}

#[derive(Debug, Clone, Serialize)]
struct Seen {
    pool: String,
    host: Uuid,
    counter: i64,
    unchanged_seconds: i32,
}

impl Leases {
    /// INVARIANT: a host speaks of pools that it can use now, as it says in the same heartbeat, and as a witness of others
    /// only. Whether a host of that id is there is asked when it matters.
    pub(crate) fn of(host: HostId, beat: &Heartbeat) -> Self {
        let usable: BTreeSet<_> = beat
            .shared_pools
            .iter()
            .filter(|pool| matches!(pool.state, SharedPoolState::Ready { .. }))
            .map(|pool| pool.name.as_str())
            .collect();
        let guarded = beat.guarded_pools.iter().filter(|one| usable.contains(one.pool.as_str()));
        let seen =
            beat.seen_leases.iter().filter(|one| usable.contains(one.pool.as_str()) && one.host != host);
        Self {
            // What no honest host says proves nothing.
            guarded: guarded
                .filter_map(|one| Some((one.pool.as_str().to_owned(), i64::try_from(one.counter).ok()?)))
                .collect(),
            seen: seen
                .filter_map(|one| {
                    Some(Seen {
                        pool: one.pool.as_str().to_owned(),
                        host: one.host.as_uuid(),
                        counter: i64::try_from(one.counter).ok()?,
                        unchanged_seconds: i32::try_from(one.unchanged_seconds).unwrap_or(i32::MAX),
                    })
                })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct Word<'a> {
    host: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    #[serde(flatten)]
    leases: &'a Leases,
}

/// Stores the last words of these hosts, in one statement. An older one never takes the place of a newer one.
pub(super) async fn store(
    pool: &PgPool,
    words: impl Iterator<Item = (HostId, OffsetDateTime, &Leases)>,
) -> Result<(), sqlx::Error> {
    let words: Vec<_> = words.map(|(host, at, leases)| Word { host: host.as_uuid(), at, leases }).collect();
    sqlx::query!(
        "INSERT INTO host_leases (host_id, seen_at, guarded, seen)
         SELECT w.host, w.at, w.guarded, w.seen
         FROM jsonb_to_recordset($1) AS w (host uuid, at timestamptz, guarded jsonb, seen jsonb)
         JOIN hosts h ON h.id = w.host ORDER BY w.host
         ON CONFLICT (host_id) DO UPDATE SET seen_at = excluded.seen_at, guarded = excluded.guarded, seen = excluded.seen
         WHERE host_leases.seen_at <= excluded.seen_at
           AND (host_leases.guarded <> '{}' OR host_leases.seen <> '[]'
                OR excluded.guarded <> '{}' OR excluded.seen <> '[]')",
        Json(&words) as _
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A new session begins: what its host said before counts no more, neither of itself nor of others.
pub(super) async fn forget(
    conn: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO host_leases (host_id, seen_at) VALUES ($1, $2)
         ON CONFLICT (host_id) DO UPDATE SET seen_at = $2, guarded = '{}', seen = '[]'",
        host.as_uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A host whose guests with disks in that pool are proven not to run any more.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Lapsed {
    #[serde(skip)]
    pub host: HostId,
    #[serde(skip)]
    pub pool_id: PoolId,
    pub pool: String,
    /// As the host itself last said.
    pub counter: i64,
    /// How many others have seen it unchanged for so long, and the longest time of those.
    pub witnesses: i64,
    pub unchanged_seconds: i32,
}

/// Leases that are proven to have lapsed, of all hosts or of one. Whoever acts on it holds that host's row and asks anew.
pub(crate) async fn lapsed(
    conn: &mut PgConnection,
    host: Option<HostId>,
    now: OffsetDateTime,
) -> Result<Vec<Lapsed>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT host_id AS "host!", pool_id AS "pool_id!", pool AS "pool!", counter AS "counter!",
                  witnesses AS "witnesses!", unchanged_seconds AS "unchanged_seconds!"
           FROM lapsed_leases($1, $2, $3, $4) ORDER BY host_id, pool_id"#,
        host.map(HostId::as_uuid),
        now - UNREACHABLE_AFTER,
        now - WITNESS_FRESH,
        TAKEOVER_SECONDS.cast_signed()
    )
    .fetch_all(conn)
    .await?;
    let lapsed = rows.into_iter().map(|row| Lapsed {
        host: row.host.into(),
        pool_id: row.pool_id.into(),
        pool: row.pool,
        counter: row.counter,
        witnesses: row.witnesses,
        unchanged_seconds: row.unchanged_seconds,
    });
    Ok(lapsed.collect())
}

/// Whether a guard on the host keeps its lease in all shared pools of the instance, as was just heard.
pub(crate) async fn guards(
    conn: &mut PgConnection,
    host: HostId,
    instance: Uuid,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM volumes v WHERE v.instance_id = $2 AND v.pool_id IS NOT NULL
                 AND v.pool_id NOT IN (SELECT pool_id FROM guarded_pools_since($3) WHERE host_id = $1)) AS "guards!""#,
        host.as_uuid(),
        instance,
        now - WITNESS_FRESH
    )
    .fetch_one(conn)
    .await
}
