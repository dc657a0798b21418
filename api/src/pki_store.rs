//! The cluster's certificate authority, made once and kept in the database.

use std::sync::Arc;

use anyhow::Context;
use sqlx::PgPool;

use crate::clock::Clock;
use crate::pki::Ca;

/// Loads the authority; the first replica of a new cloud makes it.
pub(crate) async fn load_or_make(pool: &PgPool, clock: &Clock) -> anyhow::Result<Arc<Ca>> {
    let now = clock.now();
    let made = Ca::generate(now)?;
    let mut tx = crate::database::begin(pool).await?;
    // Of two replicas at once, one inserts and the other reads what the first one made.
    sqlx::query!(
        "INSERT INTO certificate_authority (certificate_pem, key_pem, created_at) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
        made.certificate,
        made.key.as_str(),
        now
    )
    .execute(&mut *tx)
    .await?;
    let stored = sqlx::query!("SELECT certificate_pem, key_pem FROM certificate_authority")
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Arc::new(
        Ca::load(&stored.certificate_pem, &stored.key_pem).context("the stored authority is broken")?,
    ))
}
