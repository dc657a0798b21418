//! When each host was last heard, written for all of them in one statement a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::HostId;
use protocol::agent::PoolUsage;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::leases::{self, Leases};

/// Heartbeats since the last write. Losing them costs one interval of freshness.
#[derive(Clone, Default)]
pub struct Heartbeats(Arc<Mutex<HashMap<HostId, Beat>>>);

#[derive(Debug, Clone)]
struct Beat {
    at: OffsetDateTime,
    pool: Option<PoolUsage>,
    leases: Leases,
}

impl Heartbeats {
    pub(crate) fn heard(&self, host: HostId, at: OffsetDateTime, pool: Option<PoolUsage>, leases: Leases) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host, Beat { at, pool, leases });
    }

    /// Writes what has come in since the last call. A host that somebody holds waits for the next one: whoever places
    /// instances holds hosts in an order of its own, and would wait for this one.
    pub(crate) async fn flush(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let heard = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if heard.is_empty() {
            return Ok(());
        }
        let (ids, times): (Vec<_>, Vec<_>) = heard.iter().map(|(id, beat)| (id.as_uuid(), beat.at)).unzip();
        let bytes = |of: fn(&PoolUsage) -> u64| -> Vec<Option<i64>> {
            heard.values().map(|beat| beat.pool.as_ref().map(|pool| believable(of(pool)))).collect()
        };
        let passed_over = sqlx::query_scalar!(
            r#"WITH held AS MATERIALIZED (
                 SELECT id FROM hosts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED),
             written AS (
             UPDATE hosts SET last_seen_at = GREATEST(last_seen_at, h.at),
                    pool_total_bytes = coalesce(h.total, pool_total_bytes),
                    pool_free_bytes = coalesce(h.free, pool_free_bytes),
                    pool_image_cache_bytes = coalesce(h.image_cache, pool_image_cache_bytes),
                    pool_low = coalesce(pool_is_low(h.total, h.free, pool_low_percent, pool_low), pool_low),
                    disk_gib_capacity = GREATEST(disk_gib_offered, disk_gib_reserved),
                    vcpus_capacity = GREATEST(vcpus_offered, vcpus_reserved),
                    memory_mib_capacity = GREATEST(memory_mib_offered, memory_mib_reserved)
             FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[])
                  AS h (id, at, total, free, image_cache) JOIN held ON held.id = h.id
             WHERE hosts.id = h.id)
             SELECT id FROM hosts WHERE id = ANY($1) AND id NOT IN (SELECT id FROM held)"#,
            &ids,
            &times,
            &bytes(|pool| pool.total_bytes) as _,
            &bytes(|pool| pool.free_bytes) as _,
            &bytes(|pool| pool.image_cache_bytes) as _
        )
        .fetch_all(pool)
        .await;
        let written = match passed_over {
            Ok(passed_over) => {
                let told = heard.iter().map(|(id, beat)| (*id, beat.at, &beat.leases));
                leases::store(pool, told).await.map(|()| passed_over)
            }
            Err(error) => Err(error),
        };
        // Nothing is lost but a second; what has come in meanwhile is newer.
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (host, beat) in heard {
            if written.as_ref().is_ok_and(|passed_over| !passed_over.contains(&host.as_uuid())) {
                continue;
            }
            waiting.entry(host).or_insert(beat);
        }
        written.map(drop)
    }
}

/// No file system is larger, and a hundred times as much is a number to the database.
fn believable(bytes: u64) -> i64 {
    const MOST: i64 = 1 << 56;
    i64::try_from(bytes).unwrap_or(MOST).min(MOST)
}
