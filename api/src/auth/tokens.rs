//! Access tokens: JWTs (RFC 7519) signed with Ed25519, 15 minutes, algorithm and key pinned.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::UserId;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::store::SigningKey;
use crate::http::{ApiError, ErrorCode};

/// How long an access token is valid.
pub(super) const ACCESS_LIFETIME: Duration = Duration::minutes(15);
const ISSUER: &str = "cumulo";

/// What an access token says of its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(rename = "sub")]
    pub user_id: UserId,
    #[serde(rename = "sid")]
    pub session_id: Uuid,
    /// Expiry, in seconds since 1970.
    pub exp: i64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    iss: String,
    iat: i64,
    #[serde(flatten)]
    claims: Claims,
}

/// The keys: the newest signs, all verify.
#[derive(Clone)]
pub struct Tokens(Arc<Keys>);

struct Keys {
    signing_id: String,
    signing: EncodingKey,
    verifying: HashMap<String, DecodingKey>,
}

impl Tokens {
    /// `keys` newest first, at least one.
    pub(super) fn new(keys: &[SigningKey]) -> Result<Self, ApiError> {
        let newest = keys.first().ok_or_else(|| ApiError::internal("there is no signing key"))?;
        let verifying =
            keys.iter().map(|key| (key.id.to_string(), DecodingKey::from_ed_der(&key.public_key))).collect();
        Ok(Self(Arc::new(Keys {
            signing_id: newest.id.to_string(),
            signing: EncodingKey::from_ed_der(&newest.private_pkcs8),
            verifying,
        })))
    }

    pub(super) fn issue(
        &self,
        user_id: UserId,
        session_id: Uuid,
        now: OffsetDateTime,
    ) -> Result<String, ApiError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.0.signing_id.clone());
        let claims = Claims { user_id, session_id, exp: (now + ACCESS_LIFETIME).unix_timestamp() };
        let wire = Wire { iss: ISSUER.to_owned(), iat: now.unix_timestamp(), claims };
        jsonwebtoken::encode(&header, &wire, &self.0.signing).map_err(ApiError::internal)
    }

    /// The claims of a genuine token that has not expired.
    pub fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Claims, ApiError> {
        let invalid = |_| ApiError::new(ErrorCode::InvalidToken);
        let header = jsonwebtoken::decode_header(token).map_err(invalid)?;
        let key = header.kid.as_deref().and_then(|kid| self.0.verifying.get(kid));
        let key = key.ok_or(ApiError::new(ErrorCode::InvalidToken))?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        // Our clock decides, below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Wire>(token, key, &validation).map_err(invalid)?.claims.claims;
        if claims.expired(now) {
            return Err(ApiError::because(ErrorCode::ExpiredToken, "sign in again or use the refresh token"));
        }
        Ok(claims)
    }
}

impl Claims {
    const fn expired(&self, now: OffsetDateTime) -> bool {
        self.exp <= now.unix_timestamp()
    }
}
