//! The wire of images.

use protocol::agent::Architecture;
use protocol::image::Format;
use protocol::{ImageId, Name, OperationId, Sha256, UploadId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::Labels;
use crate::operations::OperationError;

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
    /// The file is on its way; the operation tells how far it is.
    Importing,
    Available,
    /// The import has failed, for the reason in `failure`. Import or upload again.
    Failed,
}

impl ImageState {
    pub(super) fn of(filled: bool, import_state: Option<&str>) -> Self {
        match import_state {
            _ if filled => Self::Available,
            Some("importing") => Self::Importing,
            Some("failed") => Self::Failed,
            _ => Self::AwaitingUpload,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Image {
    pub id: ImageId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    pub state: ImageState,
    /// Why the import failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<OperationError>,
    /// The newest import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
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

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportImage {
    /// Where the file is: `https` on a public address, without user and password. It is deleted when the import ends.
    #[schema(
        max_length = 2048,
        example = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-generic-amd64.qcow2"
    )]
    pub url: String,
    /// Digest of the file; another file is refused.
    pub sha256: Option<Sha256>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUpload {
    /// Length of the file, at most 256 GiB.
    #[schema(minimum = 1, maximum = 274_877_906_944_i64)]
    pub size_bytes: i64,
    /// Digest of the file; another file is refused.
    pub sha256: Option<Sha256>,
}

/// A file that is sent in parts.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageUpload {
    pub id: UploadId,
    pub image_id: ImageId,
    /// Length of the file.
    pub size_bytes: i64,
    /// How much has arrived: the next bytes begin here.
    pub offset_bytes: i64,
    /// Digest of the file, if it was announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// It is deleted then; each part moves this on.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}
