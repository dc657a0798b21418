//! The wire of signing keys.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SigningKeyState {
    /// Every new access token is signed with it.
    Signing,
    /// Access tokens that it has signed are still accepted.
    Verifying,
}

/// A key that signs access tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct SigningKey {
    /// `kid` of the tokens that it signs.
    pub id: Uuid,
    pub state: SigningKeyState,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it is deleted, since another key signs in its place.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub accepted_until: Option<OffsetDateTime>,
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

/// The public half of an Ed25519 key as a JSON Web Key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
pub struct Jwk {
    /// Always `OKP`.
    pub kty: &'static str,
    /// Always `Ed25519`.
    pub crv: &'static str,
    /// Always `EdDSA`.
    pub alg: &'static str,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: &'static str,
    pub kid: String,
    /// The public key, base64url without padding.
    pub x: String,
}
