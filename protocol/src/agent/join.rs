//! Joining: from a one-time token to a certificate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{HostId, Name, Sha256};

/// A one-time token that lets one machine join and tells it which certificate authority to trust.
///
/// Wire form: `cumulo-join.<secret, 64 hex digits>.<SHA-256 of the CA certificate's DER, 64 hex digits>`.
/// The secret never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub secret: [u8; 32],
    pub ca_sha256: Sha256,
}

/// A text is not a [`JoinToken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a join token; one looks like cumulo-join.<64 hex digits>.<64 hex digits>")]
pub struct ParseJoinTokenError;

impl JoinToken {
    /// The secret wire form. Call this only to show the token to its owner or to send it.
    pub fn expose(&self) -> String {
        format!("cumulo-join.{}.{}", hex::encode(self.secret), self.ca_sha256)
    }
}

impl FromStr for JoinToken {
    type Err = ParseJoinTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('.');
        let (Some("cumulo-join"), Some(secret), Some(ca), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseJoinTokenError);
        };
        let secret: Sha256 = secret.parse().map_err(|_| ParseJoinTokenError)?;
        let ca_sha256 = ca.parse().map_err(|_| ParseJoinTokenError)?;
        Ok(Self { secret: *secret.as_bytes(), ca_sha256 })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// `POST /agent/v1/join`: a machine asks to become a host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    pub protocol_version: u32,
    /// [`JoinToken::expose`].
    pub token: String,
    /// The host's name in the cloud, unique.
    pub name: Name,
    /// PKCS#10, PEM. Only its public key is used.
    pub csr_pem: String,
    /// The host that it is already, when its certificate has run out and the token is to let it in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<HostId>,
}

/// The host's identity. The certificate's only SAN is `<host id>.host.cumulo.internal`.
#[derive(Debug, Serialize, Deserialize)]
pub struct JoinResponse {
    pub host_id: HostId,
    pub certificate_pem: String,
    pub ca_pem: String,
}

/// `POST /agent/v1/renew`: a new certificate for the identity of the current one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    pub csr_pem: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RenewResponse {
    pub certificate_pem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_wire_form_and_hides_from_debug() {
        let token = JoinToken { secret: [7; 32], ca_sha256: Sha256::from_bytes([9; 32]) };
        assert_eq!(token.expose().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("07"));
        assert!("cumulo-join.aa.bb".parse::<JoinToken>().is_err());
    }
}
