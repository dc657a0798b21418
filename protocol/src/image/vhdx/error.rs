//! Why a VHDX is refused.

use thiserror::Error;

/// See [`crate::image::InspectError`].
#[derive(Debug, Error)]
pub enum VhdxError {
    #[error(
        "the checksum of {0} of the VHDX is wrong: upload the file again, or convert it with `qemu-img convert -O qcow2`"
    )]
    Checksum(&'static str),
    #[error("VHDX version {0} is not supported, 1 is: convert it with `qemu-img convert -O qcow2`")]
    Version(u16),
    #[error(
        "the VHDX was not closed properly: mount it once (`Mount-VHD`) or repair it with `qemu-img check -r all`"
    )]
    DirtyLog,
    #[error("the VHDX has a region of the unknown kind {0}: convert it with `qemu-img convert -O qcow2`")]
    UnknownRegion(String),
    #[error("the VHDX has metadata of the unknown kind {0}: convert it with `qemu-img convert -O qcow2`")]
    UnknownMetadata(String),
    #[error(
        "the VHDX needs a parent disk, which is not part of the upload: merge the two (`Merge-VHD`), or \
         convert it with `qemu-img convert -O qcow2`"
    )]
    Parent,
    #[error(
        "the VHDX has sectors of {0} bytes, 512 is supported: convert it with `qemu-img convert -O qcow2`"
    )]
    SectorSize(u32),
    #[error("the VHDX is damaged: {0}")]
    Damaged(&'static str),
    #[error("the VHDX is damaged: {field} cannot be {value}")]
    Field { field: &'static str, value: u64 },
    #[error("two regions of the VHDX overlap at byte {offset}")]
    Overlap { offset: u64 },
    #[error(
        "block {block} of the VHDX has the entry {entry:#018x}, which is not possible, or a place that is taken"
    )]
    Block { block: u64, entry: u64 },
}

impl VhdxError {
    pub(in crate::image) const fn code(&self) -> &'static str {
        match self {
            Self::Checksum(_) => "vhdx_checksum_wrong",
            Self::Version(_) => "vhdx_version_unsupported",
            Self::DirtyLog => "vhdx_dirty",
            Self::UnknownRegion(_) => "vhdx_unknown_region",
            Self::UnknownMetadata(_) => "vhdx_unknown_metadata",
            Self::Parent => "vhdx_parent",
            Self::SectorSize(_) => "vhdx_sector_size_unsupported",
            Self::Damaged(_) | Self::Field { .. } => "vhdx_header_invalid",
            Self::Overlap { .. } => "vhdx_regions_overlap",
            Self::Block { .. } => "vhdx_blocks_invalid",
        }
    }
}
