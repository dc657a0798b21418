//! SQL of second factors.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// An authenticator app, as far as it is set up.
pub(in crate::auth) struct AuthenticatorApp {
    pub secret: Vec<u8>,
    pub confirmed: bool,
    pub last_step: i64,
    pub wrong_codes: i32,
    pub wrong_at: Option<OffsetDateTime>,
}

pub(in crate::auth) async fn is_enrolled(
    conn: &mut PgConnection,
    user: PrincipalId,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM user_totp WHERE user_id = $1 AND confirmed_at IS NOT NULL) AS "exists!""#,
        user.as_uuid()
    )
    .fetch_one(conn)
    .await
}

/// Locked until the transaction ends, so that of two uses of a code at once one comes second.
pub(in crate::auth) async fn lock(
    conn: &mut PgConnection,
    user: PrincipalId,
) -> Result<Option<AuthenticatorApp>, sqlx::Error> {
    sqlx::query_as!(
        AuthenticatorApp,
        r#"SELECT secret, confirmed_at IS NOT NULL AS "confirmed!", last_step, wrong_codes, wrong_at
           FROM user_totp WHERE user_id = $1 FOR UPDATE"#,
        user.as_uuid()
    )
    .fetch_optional(conn)
    .await
}

/// False when the user has a confirmed secret, which stays.
pub(in crate::auth) async fn put_secret(
    conn: &mut PgConnection,
    user: PrincipalId,
    secret: &[u8],
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let put = sqlx::query!(
        "INSERT INTO user_totp (user_id, secret, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, created_at = excluded.created_at
         WHERE user_totp.confirmed_at IS NULL",
        user.as_uuid(),
        secret,
        now
    )
    .execute(conn)
    .await?;
    Ok(put.rows_affected() == 1)
}

pub(in crate::auth) async fn confirm(
    conn: &mut PgConnection,
    user: PrincipalId,
    step: i64,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE user_totp SET confirmed_at = $3, last_step = $2 WHERE user_id = $1",
        user.as_uuid(),
        step,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(in crate::auth) async fn accept_step(
    conn: &mut PgConnection,
    user: PrincipalId,
    step: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE user_totp SET last_step = $2, wrong_codes = 0, wrong_at = NULL WHERE user_id = $1",
        user.as_uuid(),
        step
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(in crate::auth) async fn count_wrong_code(
    conn: &mut PgConnection,
    user: PrincipalId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE user_totp SET wrong_codes = wrong_codes + 1, wrong_at = $2 WHERE user_id = $1",
        user.as_uuid(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// False when there is no such code, or it has been used.
pub(in crate::auth) async fn spend_recovery_code(
    conn: &mut PgConnection,
    user: PrincipalId,
    hash: [u8; 32],
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    let spent = sqlx::query!(
        "UPDATE recovery_codes SET used_at = $3 WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL",
        user.as_uuid(),
        &hash[..],
        now
    )
    .execute(conn)
    .await?;
    Ok(spent.rows_affected() == 1)
}

pub(in crate::auth) async fn replace_recovery_codes(
    conn: &mut PgConnection,
    user: PrincipalId,
    hashes: &[Vec<u8>],
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM recovery_codes WHERE user_id = $1", user.as_uuid()).execute(&mut *conn).await?;
    sqlx::query!(
        "INSERT INTO recovery_codes (user_id, code_hash) SELECT $1, hash FROM unnest($2::bytea[]) AS t (hash)",
        user.as_uuid(),
        hashes
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(in crate::auth) async fn remove(conn: &mut PgConnection, user: PrincipalId) -> Result<bool, sqlx::Error> {
    let removed = sqlx::query!("DELETE FROM user_totp WHERE user_id = $1", user.as_uuid())
        .execute(&mut *conn)
        .await?
        .rows_affected()
        == 1;
    sqlx::query!("DELETE FROM recovery_codes WHERE user_id = $1", user.as_uuid()).execute(&mut *conn).await?;
    sqlx::query!("UPDATE sessions SET second_factor_at = NULL WHERE user_id = $1", user.as_uuid())
        .execute(conn)
        .await?;
    Ok(removed)
}
