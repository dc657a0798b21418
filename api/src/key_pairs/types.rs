//! The wire of key pairs.

use protocol::{KeyPairId, Name};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::{Labels, LabelsPatch, not_null};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyPair {
    /// Unique in the project.
    pub name: Name,
    #[serde(default)]
    pub labels: Labels,
    /// An OpenSSH public key of the kind ed25519, ecdsa or rsa (2048 bits or more), on one line. Unless given, a key is
    /// generated, and the answer has its private half.
    #[schema(
        max_length = 8192,
        example = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@here"
    )]
    pub public_key: Option<String>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are. A key itself never changes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateKeyPair {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

/// An SSH key of a project.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct KeyPair {
    pub id: KeyPairId,
    pub name: String,
    pub labels: Labels,
    /// As OpenSSH calls it.
    #[schema(example = "ssh-ed25519")]
    pub algorithm: String,
    /// One line of an authorized_keys file.
    pub public_key: String,
    /// As `ssh-keygen -l` shows it.
    #[schema(example = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ")]
    pub fingerprint: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A key pair that was just made.
#[derive(Serialize, ToSchema)]
pub struct CreatedKeyPair<'a> {
    #[serde(flatten)]
    pub key_pair: KeyPair,
    /// Of a generated key: the private half, as OpenSSH reads it from a file. It is shown this once and kept nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<&'a str>,
    /// Why a generated key comes without its private half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_detail: Option<&'static str>,
}
