//! Why an image is refused, in words for the person who uploaded it.

use std::fmt;
use std::io;

use thiserror::Error;

use super::{Container, Format, MAX_VIRTUAL_SIZE_BYTES, VdiError, VhdxError, VmdkError};

/// An image is not accepted. [`InspectError::code`] is for programs, `Display` says what to do.
#[derive(Debug, Error)]
pub enum InspectError {
    #[error("the image's bytes could not be read")]
    Read(#[source] io::Error),
    #[error("the image is empty: upload the file itself")]
    Empty,
    #[error("a raw image has whole sectors of 512 bytes, this one has {length} bytes: upload the whole file")]
    PartialSector { length: u64 },
    #[error("{}", mismatch(*.declared, *.found))]
    FormatMismatch { declared: Format, found: Option<Container> },
    #[error(
        "the image begins like {0} and like {1} at once: convert it with `qemu-img convert -O qcow2` from \
         the format that it has"
    )]
    Ambiguous(Container, Container),
    #[error(transparent)]
    Vmdk(#[from] VmdkError),
    #[error(transparent)]
    Vhdx(#[from] VhdxError),
    #[error(transparent)]
    Vdi(#[from] VdiError),
    #[error(
        "{part} reaches to byte {end}, but the file has only {length} bytes: upload the whole file, and \
         if it is whole, convert it with `qemu-img convert -O qcow2`"
    )]
    Truncated { part: Part, end: u64, length: u64 },
    #[error("the disk has {size} bytes, more than the {MAX_VIRTUAL_SIZE_BYTES} that are possible")]
    TooLarge { size: u64 },
    #[error("the disk's size of {size} bytes is not a positive multiple of 512")]
    VirtualSize { size: u64 },
    #[error("qcow2 version {0} is not supported, 2 and 3 are: convert it with `qemu-img convert -O qcow2`")]
    Version(u32),
    #[error(
        "the image needs a backing file, which is not part of the upload: convert it with \
         `qemu-img convert -O qcow2` to drop the backing file"
    )]
    BackingFile,
    #[error(
        "the image keeps its data in another file, which is not part of the upload: convert it with \
         `qemu-img convert -O qcow2` to have one file"
    )]
    DataFile,
    #[error("the image is encrypted: convert it with `qemu-img convert -O qcow2` and its key to decrypt it")]
    Encrypted,
    #[error("the image was not closed properly: repair it with `qemu-img check -r all`")]
    Dirty,
    #[error("the image is marked as corrupt: repair it with `qemu-img check -r all`")]
    Corrupt,
    #[error(
        "the image uses unknown qcow2 features (bits {bits:#x}): convert it with `qemu-img convert -O qcow2`"
    )]
    UnknownFeatures { bits: u64 },
    #[error("the image uses the unknown compression type {0}: convert it with `qemu-img convert -O qcow2`")]
    CompressionType(u8),
    #[error(
        "the image has {0} internal snapshots, which would be lost: convert it with \
         `qemu-img convert -O qcow2` to keep the current state alone"
    )]
    Snapshots(u32),
    #[error("the qcow2 header is damaged: {field} cannot be {value}")]
    HeaderField { field: &'static str, value: u64 },
    #[error("the qcow2 header is damaged: its extensions do not fit into the first cluster")]
    Extensions,
    #[error(
        "the image has {entries} level 1 entries, more than the {max} that are possible: convert it with \
         `qemu-img convert -O qcow2` to get larger clusters"
    )]
    TooManyTables { entries: u64, max: u64 },
    #[error("{part} begins at byte {offset}, which is not possible: run `qemu-img check` on the image")]
    Misplaced { part: Part, offset: u64 },
    #[error("{part} has bits set that have no meaning ({entry:#018x}): run `qemu-img check` on the image")]
    ReservedBits { part: Part, entry: u64 },
    #[error("{part} at byte {offset} is used twice: run `qemu-img check` on the image")]
    Shared { part: Part, offset: u64 },
    #[error(
        "the image claims {claimed} clusters of data in a file of {length} bytes: run `qemu-img check` on it"
    )]
    Overcommitted { claimed: u64, length: u64 },
}

impl InspectError {
    /// Stable, snake_case, for problem documents and tests.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "image_unreadable",
            Self::Empty => "image_empty",
            Self::PartialSector { .. } => "image_partial_sector",
            Self::FormatMismatch { .. } => "image_format_mismatch",
            Self::Ambiguous(..) => "image_ambiguous",
            Self::Vmdk(error) => error.code(),
            Self::Vhdx(error) => error.code(),
            Self::Vdi(error) => error.code(),
            Self::Truncated { .. } => "image_truncated",
            Self::TooLarge { .. } => "image_too_large",
            Self::VirtualSize { .. } => "image_virtual_size_invalid",
            Self::Version(_) => "qcow2_version_unsupported",
            Self::BackingFile => "qcow2_backing_file",
            Self::DataFile => "qcow2_data_file",
            Self::Encrypted => "qcow2_encrypted",
            Self::Dirty => "qcow2_dirty",
            Self::Corrupt => "qcow2_corrupt",
            Self::UnknownFeatures { .. } => "qcow2_unknown_features",
            Self::CompressionType(_) => "qcow2_compression_unsupported",
            Self::Snapshots(_) => "qcow2_internal_snapshots",
            Self::HeaderField { .. } | Self::Extensions => "qcow2_header_invalid",
            Self::TooManyTables { .. } => "qcow2_too_many_tables",
            Self::Misplaced { .. }
            | Self::ReservedBits { .. }
            | Self::Shared { .. }
            | Self::Overcommitted { .. } => "qcow2_tables_invalid",
        }
    }

    /// Whether the image itself is to blame, and not the place it was read from.
    pub const fn is_refusal(&self) -> bool {
        !matches!(self, Self::Read(_))
    }
}

/// The part of an image that an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Header,
    Footer,
    L1Table,
    L2Table,
    RefcountTable,
    Cluster,
    CompressedCluster,
    Descriptor,
    GrainDirectory,
    GrainTable,
    Grain,
    RegionTable,
    Region,
    Metadata,
    BlockMap,
    Block,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "the image's header",
            Self::Footer => "the image's footer",
            Self::L1Table => "the level 1 table",
            Self::L2Table => "a level 2 table",
            Self::RefcountTable => "the reference count table",
            Self::Cluster => "a cluster of data",
            Self::CompressedCluster => "a compressed cluster",
            Self::Descriptor => "the descriptor",
            Self::GrainDirectory => "the grain directory",
            Self::GrainTable => "a grain table",
            Self::Grain => "a grain of data",
            Self::RegionTable => "the region table",
            Self::Region => "a region",
            Self::Metadata => "the metadata",
            Self::BlockMap => "the map of the blocks",
            Self::Block => "a block of data",
        })
    }
}

fn mismatch(declared: Format, found: Option<Container>) -> String {
    let declared = declared.as_str();
    if let Some((found, format)) = found.and_then(|found| Some((found, found.format()?.as_str()))) {
        return format!(
            "the image was declared {declared} but is {found}: delete this image, make it again with format {format}, and \
             upload the file to that"
        );
    }
    match found {
        Some(found) if found.is_compression() => {
            format!("the image was declared {declared} but is a {found} file: unpack it first")
        }
        Some(found) => format!(
            "the image was declared {declared} but is {found}: convert it with `qemu-img convert -O qcow2`"
        ),
        None => format!(
            "the image was declared {declared} but does not begin like one: if it is a plain disk, delete this image, make it \
             again with format raw, and upload the file to that; else convert it with `qemu-img convert -O qcow2`"
        ),
    }
}
