//! The wire of images.

use protocol::agent::Architecture;
use protocol::image::Format;
use protocol::{ImageId, Name, Sha256};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::Labels;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImage {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// The format of the file that will be uploaded. It is never guessed.
    pub format: Format,
    /// Digest of the file that will be uploaded; another file is refused.
    pub sha256: Option<Sha256>,
    /// `x86_64` unless given.
    #[serde(default = "x86_64")]
    pub architecture: Architecture,
    #[serde(default)]
    pub labels: Labels,
}

const fn x86_64() -> Architecture {
    Architecture::X86_64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Send the file to `…/content`.
    AwaitingUpload,
    Available,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Image {
    pub id: ImageId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub state: ImageState,
    pub architecture: String,
    pub format: String,
    /// Digest of the uploaded file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Length of the uploaded file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Size of the disk that a guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size_bytes: Option<i64>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}
