//! Handlers of the second factor.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::PrincipalId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::oneself::{is_oneself, require_oneself, session_of};
use crate::auth::second_factor::{self, Verdict};
use crate::auth::{self, Action, actions};
use crate::http::{ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Path};
use crate::users::store;
use crate::users::types::{RecoveryCodes, RemoveTotp, SecondFactorCode, TotpEnrolment};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enrol_user_totp, remove_user_totp))
        .routes(routes!(confirm_user_totp))
        .routes(routes!(renew_user_recovery_codes))
}

/// Begin to set up one's own second factor: a secret for an authenticator app (RFC 6238: SHA-1, six digits, 30
/// seconds). Nothing changes until a first code confirms it.
#[utoipa::path(post, path = "/v1/users/{user}/totp", tag = "users", params(MutationQuery), responses(
    (status = 201, body = TotpEnrolment),
))]
async fn enrol_user_totp(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let change = call.changing::<actions::EnrolUserTotp>(&app, &user).await?;
    let (mut change, _) = require_oneself(change).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let enrolment = second_factor::enrol(conn, row.id(), &row.name, now).await?;
    let answer = TotpEnrolment { secret: Some(enrolment.secret), url: Some(enrolment.url) };
    let recorded = TotpEnrolment { secret: None, url: None };
    change.commit_secret(StatusCode::CREATED, &answer, &recorded).await
}

/// Confirm one's second factor with a first code of the app. From now on every sign-in needs one; this session
/// counts as having shown it. The answer holds recovery codes.
#[utoipa::path(post, path = "/v1/users/{user}/totp/confirm", tag = "users", params(MutationQuery),
    request_body = SecondFactorCode, responses(
        (status = 200, body = RecoveryCodes),
))]
async fn confirm_user_totp(
    State(app): State<App>,
    Path(user): Path<String>,
    mut call: Call,
) -> Result<Response, ApiError> {
    let request: SecondFactorCode = call.json_with_secrets(&["code"])?;
    let change = call.changing::<actions::EnrolUserTotp>(&app, &user).await?;
    let (mut change, session) = require_oneself(change).await?;
    let (user, now) = (change.caller.principal.id, change.now);
    if request.code.trim().is_empty() {
        return Err(missing());
    }
    let Some(codes) = second_factor::confirm(change.conn(), user, &request.code, now).await? else {
        return Err(change.fail(ApiError::wrong("/code", "not a code of the app for the new secret")).await);
    };
    auth::store::note_second_factor(change.conn(), session, now).await?;
    let answer = RecoveryCodes { recovery_codes: codes };
    let recorded = RecoveryCodes { recovery_codes: Vec::new() };
    change.commit_secret(StatusCode::OK, &answer, &recorded).await
}

/// Remove a second factor. For one's own, a code of it is needed; an administrator needs none for somebody
/// else's, who is then signed out everywhere.
#[utoipa::path(delete, path = "/v1/users/{user}/totp", tag = "users", params(MutationQuery),
    request_body = RemoveTotp, responses(
        (status = 204),
))]
async fn remove_user_totp(
    State(app): State<App>,
    Path(user): Path<String>,
    mut call: Call,
) -> Result<Response, ApiError> {
    let request: RemoveTotp = call.json_with_secrets(&["code"])?;
    let mut change = call.changing::<actions::RemoveUserTotp>(&app, &user).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    if !row.has_second_factor {
        return Err(none_set_up());
    }
    if is_oneself(&change) {
        if session_of(&change.caller).is_none() {
            return Err(change.deny("sign in to do this: an API key is not enough").await);
        }
        change = prove(change, row.id(), &request.code.unwrap_or_default()).await?;
    } else {
        auth::store::end_sessions(change.conn(), row.id(), None, now).await?;
    }
    let id = row.id();
    change.note_before(&row.into_wire());
    second_factor::remove(change.conn(), id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

/// Get new recovery codes for one's own second factor. The old ones cannot be used any more.
#[utoipa::path(post, path = "/v1/users/{user}/recovery_codes", tag = "users", params(MutationQuery),
    request_body = SecondFactorCode, responses(
        (status = 200, body = RecoveryCodes),
))]
async fn renew_user_recovery_codes(
    State(app): State<App>,
    Path(user): Path<String>,
    mut call: Call,
) -> Result<Response, ApiError> {
    let request: SecondFactorCode = call.json_with_secrets(&["code"])?;
    let change = call.changing::<actions::EnrolUserTotp>(&app, &user).await?;
    let (mut change, _) = require_oneself(change).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    if !row.has_second_factor {
        return Err(none_set_up());
    }
    let mut change = prove(change, row.id(), &request.code).await?;
    let codes = second_factor::renew_recovery_codes(change.conn(), row.id()).await?;
    let answer = RecoveryCodes { recovery_codes: codes };
    let recorded = RecoveryCodes { recovery_codes: Vec::new() };
    change.commit_secret(StatusCode::OK, &answer, &recorded).await
}

/// Goes on when the code is one of the user's second factor. After too many wrong ones no more is written down.
async fn prove<A: Action>(
    mut change: Mutation<A>,
    user: PrincipalId,
    code: &str,
) -> Result<Mutation<A>, ApiError> {
    let now = change.now;
    match second_factor::check(change.conn(), user, code, now).await? {
        Verdict::Accepted => Ok(change),
        Verdict::Missing => Err(missing()),
        Verdict::Wrong => Err(change.fail(ApiError::wrong("/code", second_factor::WRONG)).await),
        Verdict::Closed { until } => Err(second_factor::closed(until, now)),
    }
}

fn missing() -> ApiError {
    let message = "send the code of your authenticator app, or a recovery code where one is set up";
    ApiError::invalid(vec![FieldError::new("/code", "invalid", message)])
}

fn none_set_up() -> ApiError {
    ApiError::because(ErrorCode::WrongState, "no second factor is set up")
}
