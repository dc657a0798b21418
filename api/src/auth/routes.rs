//! Sign in, stay signed in, sign out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{Name, PrincipalId};
use rand::Rng;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::second_factor::{self, Demand};
use super::store::{self, Session};
use super::tokens::ACCESS_LIFETIME;
use super::types::{LoginRequest, RedeemPasswordCode, RefreshRequest, TokenResponse};
use super::visit::{Claim, Visit};
use super::{backoff, passwords};
use crate::app::App;
use crate::audit::Outcome;
use crate::http::{ApiError, ErrorCode, JsonBody};

/// A session ends this long after its sign-in, refreshed or not.
const SESSION_LIFETIME: Duration = Duration::days(14);

/// What the audit log calls these; policies cannot allow or deny them.
const SIGN_IN: &str = "iam:SignIn";
const SIGN_OUT: &str = "iam:SignOut";
const REUSED: &str = "iam:ReuseRefreshToken";
const REDEEM: &str = "iam:RedeemPasswordCode";

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(redeem_password_code))
}

/// Signs in with user name and password, and with a code of the second factor where the user has one: first
/// without `otp`, and after `second_factor_required` once more with it.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", security(()), request_body = LoginRequest, responses(
    (status = 200, body = TokenResponse),
    (status = 401, description = "`invalid_credentials`, whichever of the two is wrong; with the right password, \
        `second_factor_required` or `invalid_second_factor`"),
    (status = 429, description = "`sign_in_delayed`: too many failures, for names that do not exist, too"),
))]
async fn login(
    State(app): State<App>,
    visit: Visit,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<Response, ApiError> {
    // An unknown name and a wrong password take as long and look the same. A text that PostgreSQL would
    // refuse names nobody.
    let name = request.username.parse::<Name>().ok();
    let attempt = admit(&app, &visit, SIGN_IN, &request.username, name.as_ref()).await?;
    let user = match &name {
        Some(name) => store::passwords::find(&mut *app.pool.acquire().await?, name.as_str()).await?,
        None => None,
    };
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let genuine = app.passwords.verify(request.password, hash).await?;
    let claim = Claim {
        action: SIGN_IN,
        user: user.as_ref().map(|user| user.id),
        name: name.as_ref().map_or("", Name::as_str),
    };
    let mut tx = app.pool.begin().await?;
    let Some(user) = user.filter(|_| genuine) else {
        return Err(visit.fail(tx, &app, claim, ErrorCode::InvalidCredentials).await);
    };
    if !store::passwords::still_holds(&mut tx, &user).await? {
        return Err(visit.fail(tx, &app, claim, ErrorCode::InvalidCredentials).await);
    }
    let now = app.clock.now();
    let second_factor_at = match second_factor::demand(&mut tx, user.id, request.otp.as_deref(), now).await? {
        Demand::None => None,
        Demand::Met => Some(now),
        Demand::Missing => return Err(visit.fail(tx, &app, claim, ErrorCode::SecondFactorRequired).await),
        Demand::Wrong => return Err(visit.fail(tx, &app, claim, ErrorCode::InvalidSecondFactor).await),
    };
    attempt.succeeded(&mut tx, now).await?;
    let session = Session { id: app.clock.new_id(), user: user.id, second_factor_at };
    store::insert_session(&mut tx, &session, &visit.origin(), now, now + SESSION_LIFETIME).await?;
    let tokens = issue(&mut tx, &app, user.id, session.id, now).await?;
    visit.record(&mut tx, &app, Outcome::Allowed, claim).await?;
    tx.commit().await?;
    Ok(axum::Json(tokens).into_response())
}

/// Lets an attempt go on, or writes down that it has to wait.
async fn admit(
    app: &App,
    visit: &Visit,
    action: &'static str,
    username: &str,
    name: Option<&Name>,
) -> Result<backoff::Attempt, ApiError> {
    let admitted = backoff::admit(&app.pool, username, visit.client.address, app.clock.now()).await;
    if let Err(refusal) = &admitted
        && refusal.code() == Some(ErrorCode::SignInDelayed)
    {
        let claim = Claim { action, user: None, name: name.map_or("", Name::as_str) };
        let tx = app.pool.begin().await?;
        // The refusal with the time to wait is the answer; this is its record.
        visit.fail(tx, app, claim, ErrorCode::SignInDelayed).await;
    }
    admitted
}

/// Sets a password with a one-time code: that of an invitation, or of a reset by an administrator. A second
/// factor stays as it is.
#[utoipa::path(post, path = "/v1/auth/reset_password", tag = "auth", security(()),
    request_body = RedeemPasswordCode, responses(
    (status = 204),
    (status = 401, description = "`invalid_credentials`: user name or code is wrong, or the code is spent or too old"),
    (status = 429, description = "`sign_in_delayed`: too many failures"),
))]
async fn redeem_password_code(
    State(app): State<App>,
    visit: Visit,
    JsonBody(request): JsonBody<RedeemPasswordCode>,
) -> Result<Response, ApiError> {
    passwords::check_new("/new_password", &request.new_password, &request.username)?;
    let name = request.username.parse::<Name>().ok();
    let attempt = admit(&app, &visit, REDEEM, &request.username, name.as_ref()).await?;
    let name = name.as_ref().map_or("", Name::as_str);
    // The hash is made in any case, so that the time it takes tells nothing.
    let hash = app.passwords.hash(request.new_password).await?;
    let now = app.clock.now();
    let mut tx = app.pool.begin().await?;
    let user = store::passwords::spend_code(&mut tx, name, &request.code, now).await?;
    let claim = Claim { action: REDEEM, user, name };
    let Some(user) = user else {
        return Err(visit.fail(tx, &app, claim, ErrorCode::InvalidCredentials).await);
    };
    attempt.succeeded(&mut tx, now).await?;
    store::passwords::set(&mut tx, user, &hash, now).await?;
    store::end_sessions(&mut tx, user, None, now).await?;
    visit.record(&mut tx, &app, Outcome::Allowed, claim).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Exchanges a refresh token for new tokens. A token that has been used before ends the whole session, since
/// one of its two users is a thief. Two uses at once are no different: of those, too, one comes second.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", security(()), request_body = RefreshRequest, responses(
    (status = 200, body = TokenResponse),
    (status = 401, description = "`invalid_token`"),
))]
async fn refresh(
    State(app): State<App>,
    visit: Visit,
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
        let claim = Claim { action: REUSED, user: Some(token.user_id), name: &token.user_name };
        visit.record(&mut tx, &app, Outcome::Failed, claim).await?;
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
    visit: Visit,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let mut tx = app.pool.begin().await?;
    if let Some(token) = store::lock_refresh_token(&mut tx, &request.refresh_token, now).await?
        && token.alive
    {
        store::revoke_session(&mut tx, token.session_id, now).await?;
        let claim = Claim { action: SIGN_OUT, user: Some(token.user_id), name: &token.user_name };
        visit.record(&mut tx, &app, Outcome::Allowed, claim).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn issue(
    conn: &mut PgConnection,
    app: &App,
    user: PrincipalId,
    session: Uuid,
    now: OffsetDateTime,
) -> Result<TokenResponse, ApiError> {
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    let refresh_token = format!("cumulo_refresh_{}", URL_SAFE_NO_PAD.encode(secret));
    store::insert_refresh_token(conn, &refresh_token, session, now).await?;
    Ok(TokenResponse {
        access_token: app.tokens.issue(conn, user, session, now).await?,
        refresh_token,
        token_type: "Bearer",
        expires_in: ACCESS_LIFETIME.whole_seconds(),
    })
}
