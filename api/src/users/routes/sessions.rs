//! Handlers of sessions.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::auth::oneself::session_of;
use crate::auth::{self, actions};
use crate::http::{ApiError, Call, MutationQuery, Page, Path, PlainQuery};
use crate::users::store;
use crate::users::types::Session;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_user_sessions, revoke_user_sessions))
        .routes(routes!(revoke_user_session))
}

/// List where a user is signed in, oldest first.
#[utoipa::path(get, path = "/v1/users/{user}/sessions", tag = "users", params(PlainQuery), responses(
    (status = 200, body = Page<Session>),
))]
async fn list_user_sessions(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Session>>, ApiError> {
    let query = call.query::<PlainQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListUserSessions>(&app, &user).await?;
    let current = session_of(&reading.caller);
    let now = app.clock.now();
    let (conn, allowed) = reading.parts();
    let user = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?.id();
    let items = store::sessions::list(conn, allowed, user, current, now, after, query.rows()).await?;
    Ok(axum::Json(query.page(items, |session: &Session| session.id)))
}

/// End one session of a user. Its access token is refused at once.
#[utoipa::path(delete, path = "/v1/users/{user}/sessions/{session}", tag = "users", params(MutationQuery), responses(
    (status = 204),
))]
async fn revoke_user_session(
    State(app): State<App>,
    Path((user, session)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::RevokeUserSession>(&app, &user).await?;
    let session = Uuid::try_parse(&session).map_err(|_| ApiError::not_found())?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let user = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?.id();
    let ended = store::sessions::end(conn, allowed, user, session, now).await?;
    change.note_before(&ended.ok_or_else(ApiError::not_found)?);
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

/// End every session of a user, but for the one that asks.
#[utoipa::path(delete, path = "/v1/users/{user}/sessions", tag = "users", params(MutationQuery), responses(
    (status = 204),
))]
async fn revoke_user_sessions(
    State(app): State<App>,
    Path(user): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::RevokeUserSession>(&app, &user).await?;
    let (now, current) = (change.now, session_of(&change.caller));
    let (conn, allowed) = change.parts();
    let user = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?.id();
    auth::store::end_sessions(conn, user, current, now).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
