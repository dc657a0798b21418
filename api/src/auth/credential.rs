//! What a request shows to prove who sent it: an access token of a session, in a header or a cookie, or an API key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use sha2::{Digest, Sha256};

use super::cookies;
use super::tokens::Claims;
use crate::app::App;
use crate::http::{ApiError, ErrorCode};

/// Easy to recognise, for people and for scanners of leaked secrets.
const API_KEY_PREFIX: &str = "cumulo_key_";
const CHECKSUM_BYTES: usize = 4;

/// A credential of the right form. Whether it still lives, the database says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The claims of a genuine, unexpired access token.
    Session(Claims),
    /// The SHA-256 of an API key.
    ApiKey([u8; 32]),
}

/// What a request shows, read once: for the layer that counts requests, and for the handler that asks.
#[derive(Clone)]
pub(crate) struct Shown(Arc<Mutex<Option<Result<Credential, ApiError>>>>);

impl Shown {
    /// Reads the credential of a request, before anything else of it is read.
    pub(crate) async fn read(method: &Method, headers: &HeaderMap, app: &App) -> Self {
        Self(Arc::new(Mutex::new(Some(read(method, headers, app).await))))
    }

    /// The credential, if it is a good one.
    pub(crate) fn good(&self) -> Option<Credential> {
        self.lock().as_ref().and_then(|found| found.as_ref().ok().cloned())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Result<Credential, ApiError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The credential of a request.
///
/// # Errors
/// `unauthenticated` without one; `invalid_token` or `expired_token` with a bad one; `cross_site_request` with a
/// session in cookies that somebody else's page makes use of.
pub(crate) async fn credential(parts: &Parts, app: &App) -> Result<Credential, ApiError> {
    let found = parts.extensions.get::<Shown>().and_then(|shown| shown.lock().take());
    match found {
        Some(found) => found,
        None => read(&parts.method, &parts.headers, app).await,
    }
}

async fn read(method: &Method, headers: &HeaderMap, app: &App) -> Result<Credential, ApiError> {
    if !headers.contains_key(header::AUTHORIZATION)
        && let Some(token) = cookies::access_token(headers)
    {
        cookies::check_same_origin(method, headers)?;
        return app.tokens.verify(token, &app.pool, app.clock.now()).await.map(Credential::Session);
    }
    let text = bearer(headers)?;
    if let Some(key) = text.strip_prefix(API_KEY_PREFIX) {
        // A typing error costs no look-up.
        let genuine = URL_SAFE_NO_PAD.decode(key).is_ok_and(|bytes| has_checksum(&bytes));
        return match genuine {
            true => Ok(Credential::ApiKey(hash_secret(text))),
            false => Err(ApiError::because(ErrorCode::InvalidToken, "this is not a complete API key")),
        };
    }
    app.tokens.verify(text, &app.pool, app.clock.now()).await.map(Credential::Session)
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let first = all.next().ok_or(ApiError::new(ErrorCode::Unauthenticated))?;
    first
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| {
            ApiError::because(
                ErrorCode::Unauthenticated,
                "send `Authorization: Bearer <access token or API key>`",
            )
        })
}

/// A new API key, for as long as it takes to hand it over.
pub(crate) struct NewSecret(String);

impl NewSecret {
    /// 256 random bits.
    pub(crate) fn generate() -> Self {
        let mut bytes = [0; 32 + CHECKSUM_BYTES];
        rand::rng().fill_bytes(&mut bytes[..32]);
        let checksum = checksum(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum);
        Self(format!("{API_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// What may be shown of it later: enough to tell it from others, too little to guess the rest.
    pub(crate) fn hint(&self) -> String {
        self.0.chars().take(API_KEY_PREFIX.len() + 4).collect()
    }

    /// What is stored of it.
    pub(crate) fn hash(&self) -> [u8; 32] {
        hash_secret(&self.0)
    }

    pub(crate) fn expose(self) -> String {
        self.0
    }
}

/// Random secrets need no slow hash.
pub(super) fn hash_secret(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn has_checksum(bytes: &[u8]) -> bool {
    bytes.len() == 32 + CHECKSUM_BYTES && checksum(&bytes[..32]) == bytes[32..]
}

fn checksum(secret: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut first = [0; CHECKSUM_BYTES];
    first.copy_from_slice(&Sha256::digest(secret)[..CHECKSUM_BYTES]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_a_typing_error_is_no_key() {
        let new = NewSecret::generate();
        let hint = new.hint();
        let key = new.expose();
        let decode = |key: &str| URL_SAFE_NO_PAD.decode(key.strip_prefix(API_KEY_PREFIX).unwrap()).unwrap();
        assert!(has_checksum(&decode(&key)));
        assert_ne!(key, NewSecret::generate().expose());
        let mut wrong = decode(&key);
        wrong[3] ^= 1;
        assert!(!has_checksum(&wrong));
        assert!(!has_checksum(&[]));
        assert!(key.starts_with(&hint) && hint.len() < 20);
    }
}
