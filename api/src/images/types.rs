//! The wire of images.

use protocol::agent::{Architecture, Firmware};
use protocol::image::Format;
use protocol::{ImageId, MemoryMib, Name, OperationId, ProjectId, Sha256, SizeGib, UploadId};
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::http::{
    FieldError, LabelledPageQuery, Labels, LabelsPatch, not_null, validate_description, validate_labels,
};
use crate::operations::OperationError;

const MAX_DISK_GIB: u32 = 16_384;
const MAX_MEMORY_MIB: u32 = 8 << 20;
const MAX_USER_CHARS: usize = 32;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImage {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// The format of the file that will be uploaded. It is never guessed. Left out with a `source`, which makes a qcow2
    /// file.
    pub format: Option<Format>,
    /// Digest of the file that will be uploaded; another file is refused. Left out with a `source`.
    pub sha256: Option<Sha256>,
    /// A disk to make it of, instead of a file. What is left out below is then as in the image that the disk was made
    /// from.
    pub source: Option<ImageFrom>,
    /// `x86_64` unless given.
    pub architecture: Option<Architecture>,
    /// What starts its boot loader. Unless given `bios`, and `uefi` for `aarch64` and `riscv64`, which have nothing else.
    pub firmware: Option<Firmware>,
    /// The smallest root disk for it, in GiB; `0`, the default, asks for nothing.
    #[schema(value_type = Option<u32>, maximum = 16384)]
    pub min_disk_gib: Option<SizeGib>,
    /// The least memory for it, in MiB; `0`, the default, asks for nothing.
    #[schema(value_type = Option<u32>, maximum = 8388608)]
    pub min_memory_mib: Option<MemoryMib>,
    /// Whom to sign in as over SSH: the user to whom its cloud-init gives the keys.
    #[schema(pattern = "^[a-z_][a-z0-9_-]{0,31}$", example = "debian")]
    pub default_user: Option<String>,
    #[serde(default)]
    pub labels: Labels,
}

/// The disk that becomes an image: a snapshot's, a volume's or an instance's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFrom {
    /// Name or id of a snapshot of a volume, or of an instance: the volume that it boots from, unless `volume` names
    /// another one in the snapshot.
    pub snapshot: Option<String>,
    /// Name or id of a volume that is attached to nothing or to an instance that is stopped.
    pub volume: Option<String>,
    /// Name or id of an instance that is stopped: the volume that it boots from.
    pub instance: Option<String>,
}

/// An image without a source gets these, unless they are given.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    pub architecture: String,
    pub firmware: String,
    pub min_disk_gib: i32,
    pub min_memory_mib: i32,
    pub default_user: Option<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            architecture: Architecture::X86_64.as_str().to_owned(),
            firmware: Firmware::default().as_str().to_owned(),
            min_disk_gib: 0,
            min_memory_mib: 0,
            default_user: None,
        }
    }
}

impl CreateImage {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let checked = Checked {
            description: &self.description,
            labels: &self.labels,
            min_disk_gib: self.min_disk_gib.map_or(0, |size| size.0),
            min_memory_mib: self.min_memory_mib.map_or(0, |size| size.0),
            default_user: self.default_user.as_deref(),
        };
        let mut errors = checked.validate();
        if let Some((architecture, firmware)) = self.architecture.zip(self.firmware) {
            errors.extend(no_bios(architecture.as_str(), firmware.as_str()));
        }
        match &self.source {
            None if self.format.is_none() => {
                errors.push(FieldError::new("/format", "required", "the format of the file, or a `source`"));
            }
            None => {}
            Some(source) => {
                if self.format.is_some_and(|format| format != Format::Qcow2) {
                    errors.push(FieldError::new("/format", "invalid", "a disk becomes a qcow2 file"));
                }
                if self.sha256.is_some() {
                    let message = "nobody knows the digest of a file that is still to be made";
                    errors.push(FieldError::new("/sha256", "invalid", message));
                }
                let chosen = (&source.snapshot, &source.volume, &source.instance);
                if !matches!(chosen, (Some(_), _, None) | (None, Some(_), None) | (None, None, Some(_))) {
                    let message = "one of a snapshot, maybe with a volume of it, a volume and an instance";
                    errors.push(FieldError::new("/source", "invalid", message));
                }
            }
        }
        errors
    }
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are. Instances that exist keep what they were made
/// with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateImage {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_length = 1000)]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub architecture: Option<Architecture>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub firmware: Option<Firmware>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = u32, nullable = false, maximum = 16384)]
    pub min_disk_gib: Option<SizeGib>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = u32, nullable = false, maximum = 8388608)]
    pub min_memory_mib: Option<MemoryMib>,
    /// `null` removes it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, pattern = "^[a-z_][a-z0-9_-]{0,31}$")]
    pub default_user: Option<Option<String>>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

/// Tells `null` from absence.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeprecateImage {
    /// Name or id of the image of this project to use instead.
    pub replacement: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingUpload => "awaiting_upload",
            Self::Importing => "importing",
            Self::Available => "available",
            Self::Failed => "failed",
        }
    }

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
    /// Whose it is.
    pub project: ImageOwner,
    pub description: String,
    /// Empty for an image of another project.
    pub labels: Labels,
    pub state: ImageState,
    /// Who may use it: `private`, its project alone; `shared`, some others, too; `public`, everybody.
    #[schema(example = "private")]
    pub visibility: String,
    /// Why the import failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<OperationError>,
    /// The newest import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    pub architecture: String,
    #[schema(example = "bios")]
    pub firmware: String,
    /// The smallest root disk for it; the disk in its file may ask for more.
    pub min_disk_gib: i32,
    pub min_memory_mib: i32,
    /// Whom to sign in as over SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
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
    /// Since when its owner advises against it. It can still be used.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub deprecated_at: Option<OffsetDateTime>,
    /// What to use instead, if you may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<ImageReplacement>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The project that owns an image.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageOwner {
    pub id: ProjectId,
    pub name: String,
}

/// The image that takes the place of a deprecated one.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageReplacement {
    pub id: ImageId,
    pub name: String,
}

/// Another project that may use an image.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageShare {
    pub project_id: ProjectId,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Which images a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those of the project.
    #[default]
    Own,
    /// Those of the project that no other may use.
    Private,
    /// Those of the project that some others may use, and those that others share with it.
    Shared,
    /// Those that everybody may use.
    Public,
    /// All that the project may use.
    All,
}

/// Whether a list has deprecated images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deprecated {
    #[default]
    Exclude,
    Include,
    Only,
}

/// The query of a list of images.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImageQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
    /// Only images of this name.
    name: Option<String>,
    /// Only images with these labels: `tier=web,stage!=test,owner`. Those of other projects have none here.
    #[param(
        pattern = "^((!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63})(,(!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63}))*)?$"
    )]
    label_selector: Option<String>,
    /// Which ones: `own` unless given.
    #[serde(default)]
    #[param(inline)]
    pub visibility: Scope,
    /// Whether deprecated ones are among them: `exclude` unless given.
    #[serde(default)]
    #[param(inline)]
    pub deprecated: Deprecated,
    /// Only images in this state.
    #[param(inline)]
    pub state: Option<ImageState>,
}

impl ImageQuery {
    /// The part that all lists have.
    pub(super) fn page(self) -> LabelledPageQuery {
        LabelledPageQuery::new(self.limit, self.cursor, self.name, self.label_selector)
    }
}

/// What of an image is text or number of the caller's.
pub(super) struct Checked<'a> {
    pub description: &'a str,
    pub labels: &'a Labels,
    pub min_disk_gib: u32,
    pub min_memory_mib: u32,
    pub default_user: Option<&'a str>,
}

impl Checked<'_> {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_description(self.description, &mut errors);
        validate_labels(self.labels, &mut errors);
        for (pointer, value, high) in [
            ("/min_disk_gib", self.min_disk_gib, MAX_DISK_GIB),
            ("/min_memory_mib", self.min_memory_mib, MAX_MEMORY_MIB),
        ] {
            if value > high {
                errors.push(FieldError::new(pointer, "out_of_range", format!("from 0 to {high}")));
            }
        }
        if self.default_user.is_some_and(|user| !is_user_name(user)) {
            let message = "a user name of at most 32 characters: a-z, 0-9, - and _, and no digit or - first";
            errors.push(FieldError::new("/default_user", "invalid", message));
        }
        errors
    }
}

/// The error of an image that cannot boot.
pub(crate) fn no_bios(architecture: &str, firmware: &str) -> Option<FieldError> {
    let has_bios = Architecture::from_name(architecture).is_none_or(Architecture::has_bios);
    let message = || format!("guests for {architecture} boot with uefi only");
    (firmware == Firmware::Bios.as_str() && !has_bios)
        .then(|| FieldError::new("/firmware", "no_bios", message()))
}

/// As useradd(8) recommends names.
fn is_user_name(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let goes_on = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    starts && text.len() <= MAX_USER_CHARS && text.chars().all(goes_on)
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
