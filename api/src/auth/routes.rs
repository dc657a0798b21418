//! Sign in, stay signed in, sign out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::UserId;
use rand::Rng;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store;
use super::tokens::ACCESS_LIFETIME;
use super::types::{LoginRequest, RefreshRequest, TokenResponse};
use crate::app::App;
use crate::http::{ApiError, ErrorCode, JsonBody};

/// A session ends this long after its sign-in, refreshed or not.
const SESSION_LIFETIME: Duration = Duration::days(14);

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(refresh)).routes(routes!(logout))
}

/// Signs in with user name and password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", security(()), request_body = LoginRequest, responses(
    (status = 200, body = TokenResponse),
    (status = 401, description = "`invalid_credentials`, whichever of the two is wrong"),
))]
async fn login(
    State(app): State<App>,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<Response, ApiError> {
    // An unknown name and a wrong password take as long and look the same. A text that PostgreSQL would
    // refuse names nobody.
    let user = match request.username.parse::<protocol::Name>() {
        Ok(name) => store::password_user(&mut *app.pool.acquire().await?, name.as_str()).await?,
        Err(_) => None,
    };
    let (id, hash) = user.map_or((None, None), |user| (Some(user.id), Some(user.password_hash)));
    let genuine = app.passwords.verify(request.password, hash).await?;
    let Some(user) = id.filter(|_| genuine) else { return Err(ApiError::new(ErrorCode::InvalidCredentials)) };

    let now = app.clock.now();
    let mut tx = app.pool.begin().await?;
    let session = app.clock.new_id();
    store::insert_session(&mut tx, session, user, now, now + SESSION_LIFETIME).await?;
    let tokens = issue(&mut tx, &app, user, session, now).await?;
    tx.commit().await?;
    Ok(axum::Json(tokens).into_response())
}

/// Exchanges a refresh token for new tokens. A token that has been used before ends the whole session, since
/// one of its two users is a thief. Two uses at once are no different: of those, too, one comes second.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", security(()), request_body = RefreshRequest, responses(
    (status = 200, body = TokenResponse),
    (status = 401, description = "`invalid_token`"),
))]
async fn refresh(
    State(app): State<App>,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let mut tx = app.pool.begin().await?;
    let found = store::lock_refresh_token(&mut tx, &request.refresh_token, now).await?;
    let Some(token) = found.filter(|token| token.alive) else {
        return Err(ApiError::because(ErrorCode::InvalidToken, "the session has ended; sign in again"));
    };
    if token.spent {
        store::revoke_session(&mut tx, token.session_id, now).await?;
        tx.commit().await?;
        return Err(ApiError::because(
            ErrorCode::InvalidToken,
            "this refresh token has been used before, so the session was ended; sign in again",
        ));
    }
    store::spend_refresh_token(&mut tx, &request.refresh_token, now).await?;
    let tokens = issue(&mut tx, &app, token.user_id, token.session_id, now).await?;
    tx.commit().await?;
    Ok(axum::Json(tokens).into_response())
}

/// Ends the session of a refresh token. Says the same for an unknown one.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", security(()), request_body = RefreshRequest, responses(
    (status = 204),
))]
async fn logout(
    State(app): State<App>,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let mut tx = app.pool.begin().await?;
    if let Some(token) = store::lock_refresh_token(&mut tx, &request.refresh_token, now).await? {
        store::revoke_session(&mut tx, token.session_id, now).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn issue(
    conn: &mut PgConnection,
    app: &App,
    user: UserId,
    session: Uuid,
    now: OffsetDateTime,
) -> Result<TokenResponse, ApiError> {
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    let refresh_token = format!("cumulo_refresh_{}", URL_SAFE_NO_PAD.encode(secret));
    store::insert_refresh_token(conn, &refresh_token, session, now).await?;
    Ok(TokenResponse {
        access_token: app.tokens.issue(user, session, now)?,
        refresh_token,
        token_type: "Bearer",
        expires_in: ACCESS_LIFETIME.whole_seconds(),
    })
}
