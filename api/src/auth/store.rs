//! SQL of users, sessions and keys.

use protocol::UserId;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A key that signs access tokens.
pub(super) struct SigningKey {
    pub id: Uuid,
    pub private_pkcs8: Vec<u8>,
    pub public_key: Vec<u8>,
}

/// What a password check needs.
pub(super) struct PasswordUser {
    pub id: UserId,
    pub password_hash: String,
}

/// A refresh token as it was found.
pub(super) struct RefreshToken {
    pub session_id: Uuid,
    pub user_id: UserId,
    pub spent: bool,
    pub alive: bool,
}

/// Refresh tokens are stored as hashes; they are random, so a plain hash is enough.
pub(super) fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Newest first.
pub(super) async fn signing_keys(conn: &mut PgConnection) -> Result<Vec<SigningKey>, sqlx::Error> {
    sqlx::query_as!(
        SigningKey,
        "SELECT id, private_pkcs8, public_key FROM signing_keys ORDER BY created_at DESC, id DESC"
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn insert_signing_key(
    conn: &mut PgConnection,
    key: &SigningKey,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO signing_keys (id, private_pkcs8, public_key, created_at) VALUES ($1, $2, $3, $4)",
        key.id,
        key.private_pkcs8,
        key.public_key,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn any_user(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM users) AS "exists!""#).fetch_one(conn).await
}

pub(super) async fn insert_user(
    conn: &mut PgConnection,
    id: UserId,
    name: &str,
    administrator: bool,
    password_hash: &str,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH u AS (INSERT INTO users (id, name, administrator, created_at) VALUES ($1, $2, $3, $5) RETURNING id)
         INSERT INTO user_passwords (user_id, password_hash, changed_at) SELECT id, $4, $5 FROM u",
        id.as_uuid(),
        name,
        administrator,
        password_hash,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn password_user(
    conn: &mut PgConnection,
    name: &str,
) -> Result<Option<PasswordUser>, sqlx::Error> {
    sqlx::query_as!(
        PasswordUser,
        "SELECT u.id, p.password_hash FROM users u JOIN user_passwords p ON p.user_id = u.id WHERE u.name = $1",
        name
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn insert_session(
    conn: &mut PgConnection,
    id: Uuid,
    user: UserId,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        id,
        user.as_uuid(),
        now,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn insert_refresh_token(
    conn: &mut PgConnection,
    token: &str,
    session: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO refresh_tokens (token_hash, session_id, created_at) VALUES ($1, $2, $3)",
        &hash_token(token)[..],
        session,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks the token until the transaction ends, so that of two uses at once one comes second.
pub(super) async fn lock_refresh_token(
    conn: &mut PgConnection,
    token: &str,
    now: OffsetDateTime,
) -> Result<Option<RefreshToken>, sqlx::Error> {
    sqlx::query_as!(
        RefreshToken,
        r#"SELECT t.session_id, s.user_id, t.spent_at IS NOT NULL AS "spent!",
                  (s.revoked_at IS NULL AND s.expires_at > $2) AS "alive!"
           FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
           WHERE t.token_hash = $1 FOR UPDATE OF t"#,
        &hash_token(token)[..],
        now
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn spend_refresh_token(
    conn: &mut PgConnection,
    token: &str,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE refresh_tokens SET spent_at = $2 WHERE token_hash = $1",
        &hash_token(token)[..],
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn revoke_session(
    conn: &mut PgConnection,
    session: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", session, now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes sessions that ended before this time, with their tokens.
pub(crate) async fn forget_sessions(
    conn: &mut PgConnection,
    before: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM sessions WHERE expires_at < $1 OR revoked_at < $1", before)
        .execute(conn)
        .await?;
    Ok(())
}
