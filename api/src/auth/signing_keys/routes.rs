//! Handlers of signing keys.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store;
use super::types::{Jwk, Jwks, SigningKey, SigningKeyState};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, MutationQuery, Page, PlainQuery};

/// A new key may be unknown to those who verify for themselves for so long, if they do not ask again for a
/// `kid` that they do not know.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_jwks)).routes(routes!(list_signing_keys, rotate_signing_key))
}

/// The public keys with which anybody can verify access tokens. Whether the session of a token still lives,
/// only the API itself knows.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()), responses(
    (status = 200, body = Jwks),
))]
async fn get_jwks(State(app): State<App>) -> Result<Response, ApiError> {
    let keys = store::public(&mut *app.pool.acquire().await?).await?;
    let keys = keys.into_iter().map(|key| Jwk {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        usage: "sig",
        kid: key.id.to_string(),
        x: URL_SAFE_NO_PAD.encode(&key.public_key),
    });
    Ok(([(header::CACHE_CONTROL, CACHE)], axum::Json(Jwks { keys: keys.collect() })).into_response())
}

/// List the keys that sign access tokens, oldest first.
#[utoipa::path(get, path = "/v1/signing_keys", tag = "auth", params(PlainQuery), responses(
    (status = 200, body = Page<SigningKey>),
))]
async fn list_signing_keys(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<Page<SigningKey>>, ApiError> {
    let query = call.query::<PlainQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListSigningKeys>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let keys = store::list(conn, allowed, after, query.rows()).await?;
    Ok(axum::Json(query.page(keys, |key: &SigningKey| key.id)))
}

/// Make a new key that signs from now on. The one before verifies for another half an hour, so nobody is
/// signed out.
#[utoipa::path(post, path = "/v1/signing_keys", tag = "auth", params(MutationQuery), responses(
    (status = 201, body = SigningKey),
))]
async fn rotate_signing_key(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::RotateSigningKey>(&app, ()).await?;
    let key = super::generate(&app.clock)?;
    let now = change.now;
    let created_at = store::insert(change.conn(), &key, now).await?;
    let answer = SigningKey { id: key.id, state: SigningKeyState::Signing, created_at, accepted_until: None };
    change.commit(StatusCode::CREATED, None, &answer).await
}
