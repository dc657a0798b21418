//! One mutating call, one transaction.
//!
//! ```text
//! begin:   BEGIN · who is it · may they · Idempotency-Key: new, replayed, in flight or misused
//! handler: checks and writes through the store, in the same transaction
//! commit:  audit record · the answer is stored under the Idempotency-Key · COMMIT    (a dry run: ROLLBACK)
//! ```
//!
//! Whatever fails before COMMIT leaves nothing behind, so there is nothing to undo.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::{ProjectId, RequestId};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::call::{Call, MutationQuery};
use super::etag::{ETag, Version};
use super::idempotency::{self, Answer, Claim};
use super::labels::Labels;
use super::problem::{ApiError, ErrorCode};
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};
use crate::auth::{Action, Allowed, Caller, Place, Refusal};

const CUMULO_DRY_RUN: HeaderName = HeaderName::from_static("cumulo-dry-run");
const MAX_WAIT_SECONDS: u16 = 300;
const SECRETS_OF_REQUESTS: &str = "secrets of requests with an Idempotency-Key";

/// A transaction whose caller is known, and in which nothing is decided yet.
pub(crate) struct Entry<'a> {
    call: &'a Call,
    app: App,
    tx: Transaction<'static, Postgres>,
    caller: Caller,
    query: MutationQuery,
}

/// The transaction of a mutating call, and the right to make the change.
pub struct Mutation<A: Action> {
    app: App,
    tx: Transaction<'static, Postgres>,
    pub caller: Caller,
    pub allowed: Allowed<A>,
    pub query: MutationQuery,
    pub now: OffsetDateTime,
    request_id: RequestId,
    claim: Option<Claim>,
    if_match: HeaderMap,
    before: Option<Value>,
}

impl<'a> Entry<'a> {
    pub(super) async fn begin(call: &'a Call, app: &App, project: Option<&str>) -> Result<Self, ApiError> {
        let query: MutationQuery = call.query()?;
        if query.wait > MAX_WAIT_SECONDS {
            return Err(ApiError::because(ErrorCode::InvalidQuery, "wait: at most 300 seconds"));
        }
        let mut tx = app.begin().await?;
        let caller = Caller::enter(&mut tx, app, &call.credential, call.client, project).await?;
        Ok(Self { call, app: app.clone(), tx, caller, query })
    }

    /// The project that the request names, if it exists. Whether the caller may know of it is not decided yet.
    pub(crate) fn project(&self) -> Option<ProjectId> {
        self.caller.project.as_ref().map(|project| project.id)
    }

    /// For looking up what the decision depends on, like the size of an instance type.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Whether the caller may do something further that the body asks for. For looking up what the decision depends on
    /// beside what the body says: of what the caller may not use they learn nothing. Locks and records nothing; the right
    /// is asked for again with [`Mutation::also`].
    ///
    /// # Errors
    /// Only those of the database.
    pub(crate) async fn foresee<B: Action>(
        &mut self,
        path: <B::On as Place>::Path<'_>,
    ) -> Result<Option<Allowed<B>>, ApiError> {
        match self.caller.decide::<B>(&mut self.tx, path, false).await {
            Ok(allowed) => Ok(Some(allowed)),
            Err(Refusal { error, .. }) => match error.code() {
                // The last one is said, and recorded, when the call itself is decided.
                Some(ErrorCode::NotFound | ErrorCode::Forbidden | ErrorCode::PasswordChangeRequired) => {
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// Decides, and takes the Idempotency-Key. A refusal is recorded.
    pub(crate) async fn decide<A: Action>(
        mut self,
        path: <A::On as Place>::Path<'_>,
    ) -> Result<Mutation<A>, ApiError> {
        let allowed = match self.caller.decide::<A>(&mut self.tx, path, true).await {
            Ok(allowed) => allowed,
            Err(refusal) => {
                let Self { call, app, tx, caller, .. } = self;
                return Err(refuse(&app, tx, &caller, call.request_id, refusal).await?);
            }
        };
        let Self { call, app, mut tx, caller, query } = self;
        let secrets_key = app.ca.derive_key(SECRETS_OF_REQUESTS);
        let claim = match idempotency::claim(&mut tx, call, caller.principal.id, &secrets_key).await {
            Ok(claim) => claim,
            Err(answer) => {
                // Before the answer, so that whoever repeats the request at once meets no lock of ours.
                tx.rollback().await?;
                return Err(answer);
            }
        };
        let (now, if_match) = (app.clock.now(), call.headers.clone());
        let request_id = call.request_id;
        Ok(Mutation { app, tx, caller, allowed, query, now, request_id, claim, if_match, before: None })
    }
}

/// Ends the transaction and writes the refusal down.
async fn refuse(
    app: &App,
    tx: Transaction<'static, Postgres>,
    caller: &Caller,
    request_id: RequestId,
    refusal: Refusal,
) -> Result<ApiError, ApiError> {
    tx.rollback().await?;
    if let Some(decided) = &refusal.decided {
        audit::write_refusal(app, caller, request_id, decided).await;
    }
    Ok(refusal.error)
}

impl<A: Action> Mutation<A> {
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

    /// The same where the header must be there.
    pub fn require_if_match(&self, version: Version) -> Result<(), ApiError> {
        version.require_if_match(&self.if_match)
    }

    /// Keeps the resource as it was, for the audit log.
    pub fn note_before(&mut self, resource: &impl Serialize) {
        self.before = serde_json::to_value(resource).ok();
    }

    /// Asks for the same right on the resource under its new name and labels.
    ///
    /// # Errors
    /// `forbidden`; the refusal is recorded.
    pub async fn check_renamed(mut self, id: Uuid, name: &str, labels: &Labels) -> Result<Self, ApiError> {
        let decided = self.caller.decide_renamed::<A>(&mut self.tx, id, name, labels).await;
        match decided {
            Ok(()) => Ok(self),
            Err(refusal) => {
                let Self { app, tx, caller, request_id, .. } = self;
                Err(refuse(&app, tx, &caller, request_id, refusal).await?)
            }
        }
    }

    /// Asks for a further right, on something that the body names, and locks that.
    ///
    /// # Errors
    /// `missing` when there is no such thing or the caller may not know of it, `forbidden` otherwise; the refusal is
    /// recorded.
    pub(crate) async fn also<B: Action>(
        self,
        path: <B::On as Place>::Path<'_>,
        missing: impl FnOnce() -> ApiError,
    ) -> Result<Self, ApiError> {
        Ok(self.also_proven::<B>(path, missing).await?.0)
    }

    /// The same with the proof, for a call that does something to several things.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn also_proven<B: Action>(
        mut self,
        path: <B::On as Place>::Path<'_>,
        missing: impl FnOnce() -> ApiError,
    ) -> Result<(Self, Allowed<B>), ApiError> {
        let refusal = match self.caller.decide::<B>(&mut self.tx, path, true).await {
            Ok(allowed) => return Ok((self, allowed)),
            Err(refusal) => refusal,
        };
        let Self { app, tx, caller, request_id, .. } = self;
        let error = refuse(&app, tx, &caller, request_id, refusal).await?;
        Err(if error.code() == Some(ErrorCode::NotFound) { missing() } else { error })
    }

    /// Whether the caller may know that there is such a thing, or may even do that to it. Records nothing; the right is
    /// asked for with [`Mutation::also`].
    ///
    /// # Errors
    /// Only those of the database.
    pub(crate) async fn knows_of<B: Action>(
        &mut self,
        path: <B::On as Place>::Path<'_>,
    ) -> Result<bool, ApiError> {
        match self.caller.decide::<B>(&mut self.tx, path, false).await {
            Ok(_) => Ok(true),
            Err(Refusal { error, .. }) => match error.code() {
                Some(ErrorCode::NotFound) => Ok(false),
                Some(ErrorCode::Forbidden) => Ok(true),
                _ => Err(error),
            },
        }
    }

    /// Writes a record of its own about one of the things that the call changes.
    pub(crate) async fn record<B: Action>(
        &mut self,
        allowed: &Allowed<B>,
        before: &impl Serialize,
        after: &impl Serialize,
    ) -> Result<(), ApiError> {
        let mut deed = Deed::of(allowed.decided());
        deed.before = serde_json::to_value(before).ok();
        deed.after = serde_json::to_value(after).ok();
        let actor = Actor::of(&self.caller);
        audit::write(&mut self.tx, &self.app, &actor, self.request_id, Outcome::Allowed, deed).await?;
        Ok(())
    }

    /// Ends the transaction without a trace, for work that nothing should wait for.
    pub(crate) async fn abandon(self) -> Result<(), ApiError> {
        Ok(self.tx.rollback().await?)
    }

    /// Ends the transaction and keeps what has been written, a dry run or not: a count of guesses, while nothing
    /// waits for a slow hash.
    pub(crate) async fn pause(self) -> Result<(), ApiError> {
        Ok(self.tx.commit().await?)
    }

    /// Ends the call with `forbidden`, for a reason that no policy can change.
    pub(crate) async fn deny(self, why: &'static str) -> ApiError {
        self.refuse(Outcome::Denied, ApiError::because(ErrorCode::Forbidden, why)).await
    }

    /// Ends the call because the caller has not proved something, like their own password. Guessing is slowed
    /// down before it comes to this: passwords by `auth::backoff`, codes by `auth::second_factor`.
    pub(crate) async fn fail(self, refusal: ApiError) -> ApiError {
        self.refuse(Outcome::Failed, refusal).await
    }

    /// Writes the refusal down. What has been written so far stays, a dry run or not: that is a count of wrong
    /// guesses.
    async fn refuse(mut self, outcome: Outcome, error: ApiError) -> ApiError {
        let deed = Deed::of(self.allowed.decided());
        let actor = Actor::of(&self.caller);
        let written = audit::write(&mut self.tx, &self.app, &actor, self.request_id, outcome, deed).await;
        let committed = match written {
            Ok(()) => self.tx.commit().await,
            Err(failed) => Err(failed),
        };
        committed.map_or_else(ApiError::from, |()| error)
    }

    /// Ends the call with this answer: stored and committed, or, for a dry run, rolled back.
    pub async fn commit(
        self,
        status: StatusCode,
        version: Option<Version>,
        body: &impl Serialize,
    ) -> Result<Response, ApiError> {
        let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
        self.finish(status, version, body.clone(), body).await
    }

    /// The same for an answer that holds a secret: neither the audit log nor a repetition of the request shows
    /// more than `recorded`.
    pub async fn commit_secret(
        self,
        status: StatusCode,
        body: &impl Serialize,
        recorded: &impl Serialize,
    ) -> Result<Response, ApiError> {
        let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
        let recorded = serde_json::to_vec(recorded).map_err(ApiError::internal)?;
        self.finish(status, None, body, recorded).await
    }

    async fn finish(
        mut self,
        status: StatusCode,
        version: Option<Version>,
        body: Vec<u8>,
        recorded: Vec<u8>,
    ) -> Result<Response, ApiError> {
        if self.query.dry_run {
            self.tx.rollback().await?;
            return Ok(dry(body));
        }
        let mut deed = Deed::of(self.allowed.decided());
        let after: Value = serde_json::from_slice(&recorded).map_err(ApiError::internal)?;
        let made = after.get("id").and_then(Value::as_str).and_then(|id| Uuid::try_parse(id).ok());
        deed.resource_id = deed.resource_id.or(made);
        deed.before = self.before.take();
        deed.after = Some(after).filter(|after| !after.is_null());
        let actor = Actor::of(&self.caller);
        audit::write(&mut self.tx, &self.app, &actor, self.request_id, Outcome::Allowed, deed).await?;
        if let Some(claim) = &self.claim {
            idempotency::record(&mut self.tx, claim, &answer(status, version, recorded), self.now).await?;
        }
        self.tx.commit().await?;
        Ok(answer(status, version, body).into_response())
    }
}

fn answer(status: StatusCode, version: Option<Version>, body: Vec<u8>) -> Answer {
    Answer { status, etag: version.map(|version| ETag::of(version, &body).to_string()), body }
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

/// An answer without an ETag, after the transaction.
pub(crate) fn untagged(status: StatusCode, body: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
    Ok(Answer { status, etag: None, body }.into_response())
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
