//! SQL of the counts.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::rule::{FORGOTTEN, Tries};
use super::{FAMILIAR, Key};

/// A row, locked until the transaction ends.
pub(super) struct Record {
    pub tries: Tries,
    pub succeeded_at: Option<OffsetDateTime>,
    /// When an attempt was first refused since the last one that was let in.
    pub refused_at: Option<OffsetDateTime>,
}

/// Locks the row of this key; makes it when there is none.
pub(super) async fn lock(
    conn: &mut PgConnection,
    key: &Key,
    now: OffsetDateTime,
) -> Result<Record, sqlx::Error> {
    // The update of nothing locks a row that is there.
    let row = sqlx::query!(
        "INSERT INTO sign_in_backoff AS b (key, failures, last_attempt_at, open_at) VALUES ($1, 0, $2, $2)
         ON CONFLICT (key) DO UPDATE SET failures = b.failures
         RETURNING b.failures, b.last_attempt_at, b.open_at, b.succeeded_at, b.refused_at",
        &key[..],
        now
    )
    .fetch_one(conn)
    .await?;
    let tries = Tries { failures: row.failures, last_attempt_at: row.last_attempt_at, open_at: row.open_at };
    Ok(Record { tries, succeeded_at: row.succeeded_at, refused_at: row.refused_at })
}

/// Counts an attempt that is let in.
pub(super) async fn update(conn: &mut PgConnection, key: &Key, tries: Tries) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sign_in_backoff SET failures = $2, last_attempt_at = $3, open_at = $4, refused_at = NULL
         WHERE key = $1",
        &key[..],
        tries.failures,
        tries.last_attempt_at,
        tries.open_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that an attempt came too early.
pub(super) async fn note_refusal(
    conn: &mut PgConnection,
    key: &Key,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE sign_in_backoff SET refused_at = $2 WHERE key = $1", &key[..], now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets the failures, and remembers the success.
pub(super) async fn clear(
    conn: &mut PgConnection,
    key: &Key,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sign_in_backoff SET failures = 0, open_at = $2, succeeded_at = $2 WHERE key = $1",
        &key[..],
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes back the one failure that was none.
pub(super) async fn take_back(
    conn: &mut PgConnection,
    key: &Key,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sign_in_backoff SET failures = greatest(failures - 1, 0), open_at = $2 WHERE key = $1",
        &key[..],
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes what makes no difference any more.
pub(crate) async fn forget_old(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM sign_in_backoff
         WHERE last_attempt_at < $1 AND (succeeded_at IS NULL OR succeeded_at < $2)",
        now - FORGOTTEN,
        now - FAMILIAR
    )
    .execute(conn)
    .await?;
    Ok(())
}
