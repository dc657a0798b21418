//! When each host was last heard, written for all of them in one statement a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::HostId;
use sqlx::PgPool;
use time::OffsetDateTime;

/// Heartbeats since the last write. Losing them costs one interval of freshness.
#[derive(Clone, Default)]
pub struct Heartbeats(Arc<Mutex<HashMap<HostId, OffsetDateTime>>>);

impl Heartbeats {
    pub(crate) fn heard(&self, host: HostId, at: OffsetDateTime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host, at);
    }

    /// Writes what has come in since the last call.
    pub(crate) async fn flush(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let heard = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if heard.is_empty() {
            return Ok(());
        }
        let (ids, times): (Vec<_>, Vec<_>) = heard.iter().map(|(id, at)| (id.as_uuid(), *at)).unzip();
        let written = sqlx::query!(
            // In the order of ids, as whoever else locks several hosts.
            "WITH held AS MATERIALIZED (
                 SELECT id FROM hosts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)
             UPDATE hosts SET last_seen_at = GREATEST(last_seen_at, h.at)
             FROM unnest($1::uuid[], $2::timestamptz[]) AS h (id, at) JOIN held ON held.id = h.id
             WHERE hosts.id = h.id",
            &ids,
            &times
        )
        .execute(pool)
        .await;
        if written.is_err() {
            // Nothing is lost but a second; what has come in meanwhile is newer.
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (host, at) in heard {
                waiting.entry(host).or_insert(at);
            }
        }
        written.map(drop)
    }
}
