//! SQL of API keys. Their owner is the principal of the proof: a service account of its project, or a user.

use protocol::ApiKeyId;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{MAX_KEYS, NewApiKey};
use super::types::ApiKey;
use crate::auth::{Action, Allowed, NewSecret, OfResource};
use crate::http::{ApiError, ErrorCode};

struct Row {
    id: Uuid,
    description: String,
    hint: String,
    policy: Option<Value>,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        let Row { id, description, hint, policy, created_at, expires_at, last_used_at } = row;
        Self { id: id.into(), description, hint, policy, created_at, expires_at, last_used_at }
    }
}

/// The owner of the keys that a proof reaches.
#[derive(Clone, Copy)]
pub(super) struct Owner(Uuid);

/// The principal of the proof: of its project, or, since only users belong to none, a user.
pub(super) async fn owner<A: Action<On: OfResource>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
) -> Result<Option<Owner>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM principals WHERE project_id IS NOT DISTINCT FROM $1 AND (id = $2 OR name = $3)",
        allowed.project_or_cloud().map(protocol::ProjectId::as_uuid),
        allowed.selector().id(),
        allowed.selector().name()
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(Owner))
}

/// Stores a key. The proof of the owner holds its row, so of two at once one counts the other.
pub(super) async fn insert(
    conn: &mut PgConnection,
    owner: Owner,
    id: ApiKeyId,
    secret: &NewSecret,
    new: NewApiKey,
    now: OffsetDateTime,
) -> Result<ApiKey, ApiError> {
    let live = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM api_keys
           WHERE principal_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"#,
        owner.0,
        now
    )
    .fetch_one(&mut *conn)
    .await?;
    if live >= MAX_KEYS {
        let detail =
            format!("there are {live} keys that can be used, and more are not allowed; revoke one first");
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    sqlx::query!(
        "INSERT INTO api_keys (id, principal_id, description, hint, secret_hash, policy, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        id.as_uuid(),
        owner.0,
        new.description,
        secret.hint(),
        &secret.hash()[..],
        new.policy,
        now,
        new.expires_at
    )
    .execute(conn)
    .await?;
    let NewApiKey { description, expires_at, policy } = new;
    let hint = secret.hint();
    Ok(ApiKey { id, description, hint, policy, created_at: now, expires_at, last_used_at: None })
}

/// Those that are not revoked.
pub(super) async fn list(
    conn: &mut PgConnection,
    owner: Owner,
    after: Uuid,
    rows: i64,
) -> Result<Vec<ApiKey>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, description, hint, policy, created_at, expires_at, last_used_at FROM api_keys
         WHERE principal_id = $1 AND revoked_at IS NULL AND id > $2 ORDER BY id LIMIT $3",
        owner.0,
        after,
        rows
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

/// Revokes a key. `None` when the owner has no such key.
pub(super) async fn revoke(
    conn: &mut PgConnection,
    owner: Owner,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<Option<ApiKey>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "UPDATE api_keys SET revoked_at = $3 WHERE id = $1 AND principal_id = $2 AND revoked_at IS NULL
         RETURNING id, description, hint, policy, created_at, expires_at, last_used_at",
        id,
        owner.0,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(ApiKey::from))
}

/// Removes keys that ended before this time.
pub(crate) async fn forget(conn: &mut PgConnection, before: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM api_keys WHERE expires_at < $1 OR revoked_at < $1", before)
        .execute(conn)
        .await?;
    Ok(())
}
