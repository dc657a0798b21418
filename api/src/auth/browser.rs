//! Signing in from a browser: the same as with tokens, but they stay in cookies that no script can read.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::sign_in;
use super::types::{BrowserSession, LoginRequest, TokenResponse};
use super::visit::Visit;
use super::{cookies, sessions};
use crate::app::App;
use crate::http::{ApiError, ErrorCode, JsonBody};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(begin_browser_session, end_browser_session))
        .routes(routes!(prolong_browser_session))
}

/// Signs in like `POST /v1/auth/login`, for a web page of this very address: the tokens come as cookies that no
/// script can read. Requests with them are refused unless the browser says that they are such a page's.
#[utoipa::path(post, path = "/v1/auth/browser_session", tag = "auth", security(()), request_body = LoginRequest,
    responses(
    (status = 200, body = BrowserSession),
    (status = 401, description = "as for `POST /v1/auth/login`"),
    (status = 403, description = "`cross_site_request`"),
    (status = 429, description = "`sign_in_delayed`"),
))]
async fn begin_browser_session(
    State(app): State<App>,
    visit: Visit,
    method: Method,
    headers: HeaderMap,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<Response, ApiError> {
    cookies::check_same_origin(&method, &headers)?;
    answer(&sign_in(&app, &visit, request).await?)
}

/// Exchanges the refresh token in the cookies for new tokens, as `POST /v1/auth/refresh` does. Pages that share
/// the cookies take turns: of two uses of one token, the second ends the session.
#[utoipa::path(post, path = "/v1/auth/browser_session/prolong", tag = "auth", security(()), responses(
    (status = 200, body = BrowserSession),
    (status = 401, description = "`unauthenticated` without the cookie, `invalid_token` with one that is over"),
    (status = 403, description = "`cross_site_request`"),
))]
async fn prolong_browser_session(
    State(app): State<App>,
    visit: Visit,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    cookies::check_same_origin(&method, &headers)?;
    let token = cookies::refresh_token(&headers).ok_or(ApiError::new(ErrorCode::Unauthenticated))?;
    answer(&sessions::refresh(&app, &visit, token).await?)
}

/// Ends the session in the cookies, and takes them away. Says the same without any.
#[utoipa::path(delete, path = "/v1/auth/browser_session", tag = "auth", security(()), responses(
    (status = 204),
    (status = 403, description = "`cross_site_request`"),
))]
async fn end_browser_session(
    State(app): State<App>,
    visit: Visit,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    cookies::check_same_origin(&method, &headers)?;
    if let Some(token) = cookies::refresh_token(&headers) {
        sessions::end(&app, &visit, token).await?;
    }
    Ok((StatusCode::NO_CONTENT, cookies::clear()?).into_response())
}

fn answer(tokens: &TokenResponse) -> Result<Response, ApiError> {
    let session = BrowserSession {
        expires_in: tokens.expires_in,
        password_change_required: tokens.password_change_required,
    };
    Ok((cookies::set(tokens)?, Json(session)).into_response())
}
