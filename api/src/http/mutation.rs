//! One mutating call, one transaction.
//!
//! ```text
//! begin:   BEGIN · who and what may they · Idempotency-Key: new, replayed, in flight or misused
//! handler: checks and writes through the store, in the same transaction
//! commit:  the answer is stored under the Idempotency-Key · COMMIT       (a dry run: ROLLBACK)
//! ```
//!
//! Whatever fails before COMMIT leaves nothing behind, so there is nothing to undo.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;

use super::call::{Call, MutationQuery};
use super::etag::{ETag, Version};
use super::idempotency::{self, Answer, Claim};
use super::problem::{ApiError, ErrorCode};
use crate::app::App;
use crate::auth::{Action, Allowed, Scope, authorize};

const CUMULO_DRY_RUN: HeaderName = HeaderName::from_static("cumulo-dry-run");
const MAX_WAIT_SECONDS: u16 = 300;

/// The transaction of a mutating call, and the right to make the change.
pub struct Mutation<A: Action> {
    tx: Transaction<'static, Postgres>,
    pub allowed: Allowed<A>,
    pub query: MutationQuery,
    pub now: OffsetDateTime,
    claim: Option<Claim>,
    if_match: axum::http::HeaderMap,
}

impl<A: Action> Mutation<A> {
    pub(super) async fn begin(
        call: &Call,
        app: &App,
        scope: <A::Scope as Scope>::Key<'_>,
    ) -> Result<Self, ApiError> {
        let query: MutationQuery = call.query()?;
        if query.wait > MAX_WAIT_SECONDS {
            return Err(ApiError::because(ErrorCode::InvalidQuery, "wait: at most 300 seconds"));
        }
        let mut tx = app.pool.begin().await?;
        let allowed = authorize(&mut tx, app, &call.claims, scope).await?;
        let claim = match idempotency::claim(&mut tx, call).await {
            Ok(claim) => claim,
            Err(answer) => {
                // Before the answer, so that whoever repeats the request at once meets no lock of ours.
                tx.rollback().await?;
                return Err(answer);
            }
        };
        Ok(Self { tx, allowed, query, now: app.clock.now(), claim, if_match: call.headers.clone() })
    }

    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// The connection and the proof at once, for a store function.
    pub fn parts(&mut self) -> (&mut PgConnection, &Allowed<A>) {
        (&mut self.tx, &self.allowed)
    }

    /// Refuses the change when the caller's `If-Match` has been overtaken.
    pub fn check_if_match(&self, version: Version) -> Result<(), ApiError> {
        version.check_if_match(&self.if_match)
    }

    /// Ends the call with this answer: stored and committed, or, for a dry run, rolled back.
    pub async fn commit(
        mut self,
        status: StatusCode,
        version: Option<Version>,
        body: &impl Serialize,
    ) -> Result<Response, ApiError> {
        let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
        let answer =
            Answer { status, etag: version.map(|version| ETag::of(version, &body).to_string()), body };
        if self.query.dry_run {
            self.tx.rollback().await?;
            return Ok(dry(answer.body));
        }
        if let Some(claim) = &self.claim {
            idempotency::record(&mut self.tx, claim, &answer, self.now).await?;
        }
        self.tx.commit().await?;
        Ok(answer.into_response())
    }
}

/// The answer to a dry run.
pub(crate) fn dry_answer(body: &impl Serialize) -> Result<Response, ApiError> {
    Ok(dry(serde_json::to_vec(body).map_err(ApiError::internal)?))
}

fn dry(body: Vec<u8>) -> Response {
    let answer = Answer { status: StatusCode::OK, etag: None, body };
    ([(CUMULO_DRY_RUN, HeaderValue::from_static("true"))], answer).into_response()
}

/// An answer with its ETag, after the transaction.
pub(crate) fn tagged(
    status: StatusCode,
    version: Version,
    body: &impl Serialize,
) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
    let etag = Some(ETag::of(version, &body).to_string());
    Ok(Answer { status, etag, body }.into_response())
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NO_CONTENT {
            return self.status.into_response();
        }
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}
