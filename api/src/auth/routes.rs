//! Sign in, stay signed in, sign out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sign_in::Trial;
use super::types::{LoginRequest, RedeemPasswordCode, RefreshRequest, TokenResponse};
use super::visit::Visit;
use super::{passwords, sessions, store};
use crate::app::App;
use crate::http::{ApiError, JsonBody};

/// What the audit log calls these; policies cannot allow or deny them.
const SIGN_IN: &str = "iam:SignIn";
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
    (status = 429, description = "`sign_in_delayed`: too many failures, for names that do not exist, too; with the \
        right password, too many wrong codes of the app"),
))]
async fn login(
    State(app): State<App>,
    visit: Visit,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<Json<TokenResponse>, ApiError> {
    sign_in(&app, &visit, request).await.map(Json)
}

/// The tokens of a new session, for whoever proves to be this user.
pub(super) async fn sign_in(
    app: &App,
    visit: &Visit,
    request: LoginRequest,
) -> Result<TokenResponse, ApiError> {
    let trial = Trial::begin(app, visit, SIGN_IN, &request.username).await?;
    let proof = trial.by_password(request.password).await?;
    let (mut proof, second_factor_at) = proof.with_second_factor(request.otp.as_deref()).await?;
    let tokens = sessions::begin(app, visit, &mut proof, second_factor_at).await?;
    proof.accept().await?;
    Ok(tokens)
}

/// Sets a password with a one-time code: that of an invitation, or of a reset by an administrator. A second
/// factor stays as it is.
#[utoipa::path(post, path = "/v1/auth/reset_password", tag = "auth", security(()),
    request_body = RedeemPasswordCode, responses(
    (status = 204),
    (status = 401, description = "`invalid_password_code`: the code is wrong, spent or too old, or not this user's"),
    (status = 429, description = "`sign_in_delayed`: too many failures"),
))]
async fn redeem_password_code(
    State(app): State<App>,
    visit: Visit,
    JsonBody(request): JsonBody<RedeemPasswordCode>,
) -> Result<StatusCode, ApiError> {
    passwords::check_new("/new_password", &request.new_password, &request.username)?;
    let trial = Trial::begin(&app, &visit, REDEEM, &request.username).await?;
    // The hash is made in any case, so that the time it takes tells nothing.
    let hash = app.passwords.hash(request.new_password).await?;
    let mut proof = trial.by_code(&request.code).await?;
    let (user, now) = (proof.user, proof.now);
    store::passwords::set(proof.conn(), user, &hash, now).await?;
    store::end_sessions(proof.conn(), user, None, now).await?;
    proof.accept().await?;
    Ok(StatusCode::NO_CONTENT)
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
) -> Result<Json<TokenResponse>, ApiError> {
    Ok(Json(sessions::refresh(&app, &visit, &request.refresh_token).await?))
}

/// Ends the session of a refresh token. Says the same for an unknown one.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", security(()), request_body = RefreshRequest, responses(
    (status = 204),
))]
async fn logout(
    State(app): State<App>,
    visit: Visit,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<StatusCode, ApiError> {
    sessions::end(&app, &visit, &request.refresh_token).await?;
    Ok(StatusCode::NO_CONTENT)
}
