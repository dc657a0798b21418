//! Handlers of passwords.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::backoff::{self, Admission, Attempt};
use crate::auth::oneself::{is_oneself, require_oneself};
use crate::auth::{self, actions};
use crate::http::{ApiError, Call, FieldError, Mutation, MutationQuery, Path};
use crate::users::store;
use crate::users::types::{ChangePassword, PasswordReset};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(reset_user_password)).routes(routes!(change_user_password))
}

/// Take a user's password away and sign them out everywhere. The answer holds a one-time code with which the
/// user sets a new password. API keys and the second factor stay.
#[utoipa::path(post, path = "/v1/users/{user}/reset_password", tag = "users", params(MutationQuery), responses(
    (status = 200, body = PasswordReset),
))]
async fn reset_user_password(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::ResetUserPassword>(&app, &user).await?;
    // Otherwise a stolen session would be worth a password.
    if is_oneself(&change) {
        return Err(change.deny("change your own password instead, or ask another administrator").await);
    }
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let code = auth::store::passwords::reset(conn, row.id(), now).await?;
    auth::store::end_sessions(conn, row.id(), None, now).await?;
    let answer = PasswordReset { password_code: Some(code.code), expires_at: code.expires_at };
    let recorded = PasswordReset { password_code: None, expires_at: code.expires_at };
    change.commit_secret(StatusCode::OK, &answer, &recorded).await
}

/// Change one's own password. It lifts `password_change_required`, and every other session of the user ends. Wrong guesses
/// of the current one make the next attempt wait, as when signing in.
#[utoipa::path(post, path = "/v1/users/{user}/password", tag = "users", params(MutationQuery),
    request_body = ChangePassword, responses(
        (status = 204),
        (status = 429, description = "`sign_in_delayed`: too many wrong guesses of the current password"),
))]
async fn change_user_password(
    State(app): State<App>,
    Path(user): Path<String>,
    mut call: Call,
) -> Result<Response, ApiError> {
    let request: ChangePassword = call.json_with_secrets(&["current_password", "new_password"])?;
    // Hashing takes a while and no transaction waits for it: look, hash, and look again.
    let change = call.changing::<actions::ChangeUserPassword>(&app, &user).await?;
    let (mut change, _) = require_oneself(change).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    auth::passwords::check_new("/new_password", &request.new_password, &row.name)?;
    if request.new_password == request.current_password {
        return Err(ApiError::invalid(vec![FieldError::new(
            "/new_password",
            "unchanged",
            "not the current password",
        )]));
    }
    let stored = auth::store::passwords::hash_of(change.conn(), row.id()).await?;
    let attempt = admit(change, &row.name).await?;
    let genuine = app.passwords.verify(request.current_password, stored.clone()).await?;
    if genuine {
        // Now, since a dry run leaves nothing of what follows.
        attempt.succeeded(&mut *app.pool.acquire().await?, app.clock.now()).await?;
    }
    let hash = app.passwords.hash(request.new_password).await?;

    let change = call.changing::<actions::ChangeUserPassword>(&app, &user).await?;
    let (mut change, session) = require_oneself(change).await?;
    let now = change.now;
    if !genuine || auth::store::passwords::hash_of(change.conn(), row.id()).await? != stored {
        return Err(change.fail(ApiError::wrong("/current_password", "not the current password")).await);
    }
    auth::store::passwords::set(change.conn(), row.id(), &hash, now).await?;
    auth::store::end_sessions(change.conn(), row.id(), Some(session), now).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

/// Counts a guess at one's own password like a sign-in: otherwise a stolen session would be worth as many as it
/// likes.
async fn admit(mut change: Mutation<actions::ChangeUserPassword>, name: &str) -> Result<Attempt, ApiError> {
    let (now, address) = (change.now, change.caller.client.address);
    match backoff::admit(change.conn(), name, address, now).await? {
        Admission::Open(attempt) => {
            change.pause().await?;
            Ok(attempt)
        }
        Admission::Delayed(delay) if delay.first => Err(change.fail(delay.refusal(now)).await),
        Admission::Delayed(delay) => {
            change.abandon().await?;
            Err(delay.refusal(now))
        }
    }
}
