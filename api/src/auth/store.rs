//! SQL of users and sessions.

pub(super) mod me;
pub(crate) mod passwords;
pub(super) mod recovery;
pub(super) mod second_factor;

use protocol::PrincipalId;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// A refresh token as it was found.
pub(super) struct RefreshToken {
    pub session_id: Uuid,
    pub user_id: PrincipalId,
    pub user_name: String,
    pub spent: bool,
    pub alive: bool,
}

/// Sessions that ended are kept this long, for whoever asks what happened.
const KEEP_SESSIONS: Duration = Duration::days(7);

/// A sign-in.
pub(super) struct Session {
    pub id: Uuid,
    pub user: PrincipalId,
    /// When the second factor was shown, if it was.
    pub second_factor_at: Option<OffsetDateTime>,
}

/// The password with which a user is made.
#[derive(Clone, Copy)]
pub(crate) struct FirstPassword<'a> {
    pub hash: &'a str,
    /// Whether the user has to choose another one first.
    pub change_required: bool,
}

/// Where a sign-in came from, so that people recognise their sessions.
pub(super) struct Origin<'a> {
    pub address: std::net::IpAddr,
    pub user_agent: Option<&'a str>,
}

/// Refresh tokens are stored as hashes; they are random, so a plain hash is enough.
pub(super) fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

pub(super) async fn any_user(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM principals WHERE kind = 'user') AS "exists!""#)
        .fetch_one(conn)
        .await
}

pub(crate) async fn insert_user(
    conn: &mut PgConnection,
    id: PrincipalId,
    name: &str,
    description: &str,
    password: Option<FirstPassword<'_>>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH u AS (INSERT INTO principals (id, kind, name, description, generation, created_at, updated_at)
                    VALUES ($1, 'user', $2, $3, 1, $6, $6) RETURNING id)
         INSERT INTO user_passwords (user_id, password_hash, change_required, changed_at)
         SELECT id, $4::text, $5, $6 FROM u WHERE $4::text IS NOT NULL",
        id.as_uuid(),
        name,
        description,
        password.map(|password| password.hash),
        password.is_some_and(|password| password.change_required),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn insert_session(
    conn: &mut PgConnection,
    session: &Session,
    origin: &Origin<'_>,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO sessions (id, user_id, created_at, expires_at, source_address, user_agent, second_factor_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        session.id,
        session.user.as_uuid(),
        now,
        expires_at,
        origin.address.to_canonical().to_string(),
        origin.user_agent,
        session.second_factor_at
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
        r#"SELECT t.session_id, s.user_id, p.name AS user_name, t.spent_at IS NOT NULL AS "spent!",
                  (s.revoked_at IS NULL AND s.expires_at > $2 AND p.disabled_at IS NULL) AS "alive!"
           FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id JOIN principals p ON p.id = s.user_id
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
        "WITH t AS (UPDATE refresh_tokens SET spent_at = $2 WHERE token_hash = $1 RETURNING session_id)
         UPDATE sessions SET refreshed_at = $2 FROM t WHERE id = t.session_id",
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

/// Ends all sessions of a user, but for the one that is named.
pub(crate) async fn end_sessions(
    conn: &mut PgConnection,
    user: PrincipalId,
    except: Option<Uuid>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sessions SET revoked_at = $3
         WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND revoked_at IS NULL",
        user.as_uuid(),
        except,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the second factor was shown in this session.
pub(crate) async fn note_second_factor(
    conn: &mut PgConnection,
    session: Uuid,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE sessions SET second_factor_at = $2 WHERE id = $1", session, now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes what has served its time: one-time codes, and sessions with their tokens.
pub(crate) async fn forget_old(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    passwords::forget_codes(conn, now).await?;
    let before = now - KEEP_SESSIONS;
    sqlx::query!("DELETE FROM sessions WHERE expires_at < $1 OR revoked_at < $1", before)
        .execute(conn)
        .await?;
    Ok(())
}
