//! `Idempotency-Key`: a repeated request has one effect and one answer.
//!
//! The stored answer is written in the transaction of the effect itself, so there is no moment at which one
//! exists without the other. A second request with the same key meets an advisory lock that lasts as long as
//! the first one's transaction.

use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::IntoResponse;
use hmac::{Hmac, KeyInit, Mac};
use protocol::PrincipalId;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::call::Call;
use super::problem::{ApiError, ErrorCode};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// PostgreSQL's code for a lock that did not come in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const MAX_KEY_CHARS: usize = 255;
/// How long an answer is kept.
const KEEP: Duration = Duration::hours(24);

/// A key that this transaction holds.
pub(super) struct Claim {
    principal: Uuid,
    key: String,
    request_hash: [u8; 32],
}

/// An answer as it is stored.
pub(super) struct Answer {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub body: Vec<u8>,
}

/// Takes the key of this request for this transaction. The request is known by a hash, in which its secrets are
/// under `secrets_key`.
///
/// # Errors
/// The earlier answer when the request is a repetition; `idempotency_key_reused` when the key belongs to
/// another request; `request_in_flight` while the first one is being worked on.
pub(super) async fn claim(
    conn: &mut PgConnection,
    call: &Call,
    principal: PrincipalId,
    secrets_key: &[u8; 32],
) -> Result<Option<Claim>, ApiError> {
    let Some(value) = call.headers.get(IDEMPOTENCY_KEY).filter(|_| call.method == Method::POST) else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > MAX_KEY_CHARS {
        return Err(ApiError::because(
            ErrorCode::InvalidHeader,
            "Idempotency-Key: 1 to 255 visible ASCII characters",
        ));
    }
    let request_hash = hash_request(call, secrets_key)?;
    let claim = Claim { principal: principal.as_uuid(), key: key.to_owned(), request_hash };
    lock(conn, &claim).await?;
    let stored = sqlx::query!(
        "SELECT request_hash, status, etag, body FROM idempotency_keys WHERE principal_id = $1 AND key = $2",
        claim.principal,
        claim.key
    )
    .fetch_optional(conn)
    .await?;
    let Some(stored) = stored else { return Ok(Some(claim)) };
    if stored.request_hash != claim.request_hash {
        return Err(ApiError::because(
            ErrorCode::IdempotencyKeyReused,
            "this key was used for a request with another path, query or body; choose a new one",
        ));
    }
    let status = u16::try_from(stored.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let answer = Answer { status: status.unwrap_or(StatusCode::OK), etag: stored.etag, body: stored.body };
    let replayed = [(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))];
    Err(ApiError::replay((replayed, answer).into_response()))
}

/// Stores the answer beside the effect.
pub(super) async fn record(
    conn: &mut PgConnection,
    claim: &Claim,
    answer: &Answer,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO idempotency_keys (principal_id, key, request_hash, status, etag, body, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        claim.principal,
        claim.key,
        &claim.request_hash[..],
        i16::try_from(answer.status.as_u16()).unwrap_or_default(),
        answer.etag,
        answer.body,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets answers older than a day.
pub(crate) async fn forget_old(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM idempotency_keys WHERE created_at < $1", now - KEEP).execute(conn).await?;
    Ok(())
}

/// Held until the transaction ends, whichever way. Waits for a moment, in which a request that has just been
/// answered lets go of it.
async fn lock(conn: &mut PgConnection, claim: &Claim) -> Result<(), ApiError> {
    let mut hasher = Sha256::new();
    hasher.update(claim.principal.as_bytes());
    hasher.update(claim.key.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    sqlx::query!("SET LOCAL lock_timeout = '300ms'").execute(&mut *conn).await?;
    let locked =
        sqlx::query!("SELECT pg_advisory_xact_lock($1)", i64::from_be_bytes(id)).execute(&mut *conn).await;
    locked.map_err(|error| match error.as_database_error().and_then(|error| error.code()).as_deref() {
        Some(LOCK_NOT_AVAILABLE) => ApiError::new(ErrorCode::RequestInFlight).retry_after(1),
        _ => error.into(),
    })?;
    sqlx::query!("SET LOCAL lock_timeout = '5s'").execute(conn).await?;
    Ok(())
}

/// Method, path with query, and body; the caller is part of the key itself. Secrets are in it under a key, so that
/// whoever reads the stored hash cannot try passwords against it.
fn hash_request(call: &Call, secrets_key: &[u8; 32]) -> Result<[u8; 32], ApiError> {
    let mut hasher = Sha256::new();
    hasher.update(call.method.as_str());
    hasher.update([0]);
    hasher.update(call.uri.path_and_query().map_or("", |path| path.as_str()));
    hasher.update([0]);
    if !call.secrets.is_empty() {
        let secrets = serde_json::to_vec(&call.secrets).map_err(ApiError::internal)?;
        let mut keyed = Hmac::<Sha256>::new_from_slice(secrets_key).map_err(ApiError::internal)?;
        keyed.update(&secrets);
        hasher.update(keyed.finalize().into_bytes());
    }
    hasher.update(&call.body);
    Ok(hasher.finalize().into())
}
