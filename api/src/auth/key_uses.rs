//! When API keys were last used: gathered in memory and written now and then, so that using a key costs no
//! write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// Uses that are not written yet.
#[derive(Default)]
pub struct KeyUses(Mutex<HashMap<Uuid, OffsetDateTime>>);

impl KeyUses {
    pub(super) fn note(&self, key: Uuid, now: OffsetDateTime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, now);
    }

    /// Writes what has been noted. What cannot be written is forgotten: the next use tells anew.
    pub(crate) async fn flush(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let uses = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if uses.is_empty() {
            return Ok(());
        }
        let (keys, times): (Vec<Uuid>, Vec<OffsetDateTime>) = uses.into_iter().unzip();
        sqlx::query!(
            "UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, u.at)
             FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) WHERE k.id = u.id",
            &keys,
            &times
        )
        .execute(pool)
        .await?;
        Ok(())
    }
}
