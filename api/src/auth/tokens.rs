//! Access tokens: JWTs (RFC 7519) signed with Ed25519, 15 minutes, algorithm and key pinned.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::PrincipalId;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::signing_keys::store::{self, SigningKey};
use crate::http::{ApiError, ErrorCode};

/// How long an access token is valid.
pub(super) const ACCESS_LIFETIME: Duration = Duration::minutes(15);
const ISSUER: &str = "cumulo";

/// What an access token says of its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(rename = "sub")]
    pub principal_id: PrincipalId,
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

/// The signing keys as this replica knows them: the newest signs, all verify. It looks again when a token is
/// of a key that it does not know, or shall be of one, so keys may change while replicas run.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Arc<Keys>>>);

struct Keys {
    signing_id: Uuid,
    signing: EncodingKey,
    verifying: HashMap<Uuid, DecodingKey>,
}

impl Tokens {
    /// Reads the keys.
    pub(super) async fn load(conn: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Ok(Self(Arc::new(RwLock::new(Keys::load(conn).await?))))
    }

    /// Reads them again.
    pub(super) async fn refresh(&self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let keys = Keys::load(conn).await?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// A new token, signed with the key that is the newest in this transaction.
    pub(super) async fn issue(
        &self,
        conn: &mut PgConnection,
        principal_id: PrincipalId,
        session_id: Uuid,
        now: OffsetDateTime,
    ) -> Result<String, ApiError> {
        if store::newest(conn).await? != self.known().signing_id {
            self.refresh(conn).await?;
        }
        let keys = self.known();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(keys.signing_id.to_string());
        let claims = Claims { principal_id, session_id, exp: (now + ACCESS_LIFETIME).unix_timestamp() };
        let wire = Wire { iss: ISSUER.to_owned(), iat: now.unix_timestamp(), claims };
        jsonwebtoken::encode(&header, &wire, &keys.signing).map_err(ApiError::internal)
    }

    /// The claims of a genuine token that has not expired.
    pub async fn verify(&self, token: &str, pool: &PgPool, now: OffsetDateTime) -> Result<Claims, ApiError> {
        let invalid = |_| ApiError::new(ErrorCode::InvalidToken);
        let unknown = || ApiError::new(ErrorCode::InvalidToken);
        let kid = jsonwebtoken::decode_header(token).map_err(invalid)?.kid;
        let kid = kid.and_then(|kid| Uuid::try_parse(&kid).ok()).ok_or_else(unknown)?;
        let mut keys = self.known();
        if !keys.verifying.contains_key(&kid) {
            // A forged id costs the look-up of one row, like a forged API key.
            let mut conn = pool.acquire().await?;
            if store::verifies(&mut conn, kid).await? {
                self.refresh(&mut conn).await?;
                keys = self.known();
            }
        }
        let key = keys.verifying.get(&kid).ok_or_else(unknown)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        // Our clock decides, below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Wire>(token, key, &validation).map_err(invalid)?.claims.claims;
        claims.check_unexpired(now)?;
        Ok(claims)
    }

    fn known(&self) -> Arc<Keys> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Keys {
    async fn load(conn: &mut PgConnection) -> Result<Arc<Self>, sqlx::Error> {
        let keys: Vec<SigningKey> = store::all(conn).await?;
        let newest = keys.first().ok_or(sqlx::Error::RowNotFound)?;
        let verifying = keys.iter().map(|key| (key.id, DecodingKey::from_ed_der(&key.public_key))).collect();
        Ok(Arc::new(Self {
            signing_id: newest.id,
            signing: EncodingKey::from_ed_der(&newest.private_pkcs8),
            verifying,
        }))
    }
}

impl Claims {
    pub(crate) fn check_unexpired(&self, now: OffsetDateTime) -> Result<(), ApiError> {
        if self.exp > now.unix_timestamp() {
            return Ok(());
        }
        Err(ApiError::because(ErrorCode::ExpiredToken, "sign in again or use the refresh token"))
    }
}
