//! SQL of passwords, and of the one-time codes with which people set them.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::auth::credential::hash_secret;
use crate::auth::passwords;

/// How long a one-time code can be used.
const CODE_LIFETIME: Duration = Duration::hours(72);

/// What a password check needs.
pub(in crate::auth) struct PasswordUser {
    pub id: PrincipalId,
    pub password_hash: String,
}

/// A one-time code, shown once.
pub(crate) struct PasswordCode {
    pub code: String,
    pub expires_at: OffsetDateTime,
}

pub(in crate::auth) async fn find(
    conn: &mut PgConnection,
    name: &str,
) -> Result<Option<PasswordUser>, sqlx::Error> {
    sqlx::query_as!(
        PasswordUser,
        "SELECT u.id, p.password_hash FROM principals u JOIN user_passwords p ON p.user_id = u.id
         WHERE u.kind = 'user' AND u.name = $1 AND u.disabled_at IS NULL",
        name
    )
    .fetch_optional(conn)
    .await
}

/// The hash of a user's password, if there is one.
pub(crate) async fn hash_of(
    conn: &mut PgConnection,
    user: PrincipalId,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("SELECT password_hash FROM user_passwords WHERE user_id = $1", user.as_uuid())
        .fetch_optional(conn)
        .await
}

/// Whether this is still the password of a user who may sign in. Until the transaction ends nobody changes
/// that, so no session begins after its password has gone.
pub(in crate::auth) async fn still_holds(
    conn: &mut PgConnection,
    user: &PasswordUser,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT p.password_hash FROM principals u JOIN user_passwords p ON p.user_id = u.id
         WHERE u.id = $1 AND u.disabled_at IS NULL FOR SHARE OF u, p",
        user.id.as_uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.as_deref() == Some(user.password_hash.as_str()))
}

/// Sets a password that its user has chosen; a one-time code that waited is worth nothing any more.
pub(crate) async fn set(
    conn: &mut PgConnection,
    user: PrincipalId,
    hash: &str,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO user_passwords (user_id, password_hash, change_required, changed_at)
         VALUES ($1, $2, false, $3)
         ON CONFLICT (user_id) DO UPDATE SET password_hash = $2, change_required = false, changed_at = $3",
        user.as_uuid(),
        hash,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM password_codes WHERE user_id = $1", user.as_uuid()).execute(conn).await?;
    Ok(())
}

/// Whether the user has to choose another password first.
pub(in crate::auth) async fn change_required(
    conn: &mut PgConnection,
    user: PrincipalId,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM user_passwords WHERE user_id = $1 AND change_required) AS "required!""#,
        user.as_uuid()
    )
    .fetch_one(conn)
    .await
}

/// Says whether the user has to choose another password first; false when there is none to change.
pub(crate) async fn require_change(
    conn: &mut PgConnection,
    user: PrincipalId,
    required: bool,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query!(
        "UPDATE user_passwords SET change_required = $2 WHERE user_id = $1",
        user.as_uuid(),
        required
    )
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Takes the password away and gives a one-time code with which the user sets a new one.
pub(crate) async fn reset(
    conn: &mut PgConnection,
    user: PrincipalId,
    now: OffsetDateTime,
) -> Result<PasswordCode, sqlx::Error> {
    sqlx::query!("DELETE FROM user_passwords WHERE user_id = $1", user.as_uuid()).execute(&mut *conn).await?;
    let code = PasswordCode { code: passwords::generate(), expires_at: now + CODE_LIFETIME };
    sqlx::query!(
        "INSERT INTO password_codes (user_id, code_hash, created_at, expires_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id) DO UPDATE SET code_hash = $2, created_at = $3, expires_at = $4",
        user.as_uuid(),
        &hash_secret(&code.code)[..],
        now,
        code.expires_at
    )
    .execute(conn)
    .await?;
    Ok(code)
}

/// Spends a one-time code. `None` when the user is unknown or disabled, or the code is wrong, spent or too
/// old: the visitor learns no more.
pub(in crate::auth) async fn spend_code(
    conn: &mut PgConnection,
    name: &str,
    code: &str,
    now: OffsetDateTime,
) -> Result<Option<PrincipalId>, sqlx::Error> {
    let spent = sqlx::query_scalar!(
        "DELETE FROM password_codes c USING principals u
         WHERE u.id = c.user_id AND u.kind = 'user' AND u.name = $1 AND u.disabled_at IS NULL
           AND c.code_hash = $2 AND c.expires_at > $3
         RETURNING u.id",
        name,
        &hash_secret(code)[..],
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(spent.map(PrincipalId::from))
}

/// Removes codes that have expired.
pub(in crate::auth) async fn forget_codes(
    conn: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM password_codes WHERE expires_at <= $1", now).execute(conn).await?;
    Ok(())
}
