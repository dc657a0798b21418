//! Sessions: begun by a sign-in, prolonged by refresh tokens, ended by signing out or by a stolen token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::PrincipalId;
use rand::Rng;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::sign_in::Proof;
use super::store::{self, Session};
use super::tokens::ACCESS_LIFETIME;
use super::types::TokenResponse;
use super::visit::{Claim, Visit};
use crate::app::App;
use crate::audit::Outcome;
use crate::http::{ApiError, ErrorCode};

/// A session ends this long after its sign-in, refreshed or not.
const SESSION_LIFETIME: Duration = Duration::days(14);

/// What the audit log calls these; policies cannot allow or deny them.
const SIGN_OUT: &str = "iam:SignOut";
const REUSED: &str = "iam:ReuseRefreshToken";

/// Begins a session of the user who has proved to be one.
pub(super) async fn begin(
    app: &App,
    visit: &Visit,
    proof: &mut Proof<'_>,
    second_factor_at: Option<OffsetDateTime>,
) -> Result<TokenResponse, ApiError> {
    let (user, now) = (proof.user, proof.now);
    let session = Session { id: app.clock.new_id(), user, second_factor_at };
    store::insert_session(proof.conn(), &session, &visit.origin(), now, now + SESSION_LIFETIME).await?;
    issue(proof.conn(), app, user, session.id, now).await
}

/// New tokens for a refresh token. One that has been used before ends the whole session, since one of its two
/// users is a thief.
///
/// # Errors
/// `invalid_token`.
pub(super) async fn refresh(
    app: &App,
    visit: &Visit,
    refresh_token: &str,
) -> Result<TokenResponse, ApiError> {
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    let found = store::lock_refresh_token(&mut tx, refresh_token, now).await?;
    let Some(token) = found.filter(|token| token.alive) else {
        return Err(ApiError::because(ErrorCode::InvalidToken, "the session has ended; sign in again"));
    };
    if token.spent {
        store::revoke_session(&mut tx, token.session_id, now).await?;
        let claim = Claim { action: REUSED, user: Some(token.user_id), name: &token.user_name };
        visit.record(&mut tx, app, Outcome::Failed, claim).await?;
        tx.commit().await?;
        return Err(ApiError::because(
            ErrorCode::InvalidToken,
            "this refresh token has been used before, so the session was ended; sign in again",
        ));
    }
    store::spend_refresh_token(&mut tx, refresh_token, now).await?;
    let tokens = issue(&mut tx, app, token.user_id, token.session_id, now).await?;
    tx.commit().await?;
    Ok(tokens)
}

/// Ends the session of a refresh token, if it has one.
pub(super) async fn end(app: &App, visit: &Visit, refresh_token: &str) -> Result<(), ApiError> {
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    if let Some(token) = store::lock_refresh_token(&mut tx, refresh_token, now).await?
        && token.alive
    {
        store::revoke_session(&mut tx, token.session_id, now).await?;
        let claim = Claim { action: SIGN_OUT, user: Some(token.user_id), name: &token.user_name };
        visit.record(&mut tx, app, Outcome::Allowed, claim).await?;
    }
    Ok(tx.commit().await?)
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
        password_change_required: store::passwords::change_required(conn, user).await?,
    })
}
