//! SQL of signing keys.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::VERIFIES_FOR;
use super::types::{SigningKey as Wire, SigningKeyState};
use crate::auth::{Allowed, actions};

/// A key with both halves.
pub(in crate::auth) struct SigningKey {
    pub id: Uuid,
    pub private_pkcs8: Vec<u8>,
    pub public_key: Vec<u8>,
}

/// The half that anybody may know.
pub(super) struct PublicKey {
    pub id: Uuid,
    pub public_key: Vec<u8>,
}

/// Newest first.
pub(in crate::auth) async fn all(conn: &mut PgConnection) -> Result<Vec<SigningKey>, sqlx::Error> {
    sqlx::query_as!(
        SigningKey,
        "SELECT id, private_pkcs8, public_key FROM signing_keys ORDER BY created_at DESC, id DESC"
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn public(conn: &mut PgConnection) -> Result<Vec<PublicKey>, sqlx::Error> {
    sqlx::query_as!(PublicKey, "SELECT id, public_key FROM signing_keys ORDER BY created_at DESC, id DESC")
        .fetch_all(conn)
        .await
}

/// The one that signs.
pub(in crate::auth) async fn newest(conn: &mut PgConnection) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar!("SELECT id FROM signing_keys ORDER BY created_at DESC, id DESC LIMIT 1")
        .fetch_one(conn)
        .await
}

/// Whether there is such a key.
pub(in crate::auth) async fn verifies(conn: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM signing_keys WHERE id = $1) AS "exists!""#, id)
        .fetch_one(conn)
        .await
}

/// Makes this the newest key, whatever the clocks of replicas say, and tells since when.
pub(in crate::auth) async fn insert(
    conn: &mut PgConnection,
    key: &SigningKey,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, sqlx::Error> {
    sqlx::query_scalar!(
        "INSERT INTO signing_keys (id, private_pkcs8, public_key, created_at)
         VALUES ($1, $2, $3, greatest($4, (SELECT max(created_at) + interval '1 microsecond' FROM signing_keys)))
         RETURNING created_at",
        key.id,
        key.private_pkcs8,
        key.public_key,
        now
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListSigningKeys>,
    after: Uuid,
    rows: i64,
) -> Result<Vec<Wire>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, created_at, replaced_at AS "replaced_at?" FROM (
               SELECT id, created_at, lead(created_at) OVER (ORDER BY created_at, id) AS replaced_at
               FROM signing_keys) k
           WHERE id > $1 ORDER BY id LIMIT $2"#,
        after,
        rows
    )
    .fetch_all(conn)
    .await?;
    let keys = rows.into_iter().map(|row| Wire {
        id: row.id,
        state: match row.replaced_at {
            None => SigningKeyState::Signing,
            Some(_) => SigningKeyState::Verifying,
        },
        created_at: row.created_at,
        accepted_until: row.replaced_at.map(|at| at + VERIFIES_FOR),
    });
    Ok(keys.collect())
}

/// Deletes the keys that stopped signing before this time.
pub(super) async fn retire(conn: &mut PgConnection, before: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM signing_keys k USING signing_keys n
         WHERE (n.created_at, n.id) > (k.created_at, k.id) AND n.created_at < $1",
        before
    )
    .execute(conn)
    .await?;
    Ok(())
}
