//! Why a VDI is refused.

use thiserror::Error;

/// See [`crate::image::InspectError`].
#[derive(Debug, Error)]
pub enum VdiError {
    #[error("VDI version {}.{} is not supported, 1.1 is: convert it with `qemu-img convert -O qcow2`", .0 >> 16, .0 & 0xffff)]
    Version(u32),
    #[error(
        "a VDI of the type {0} is not supported, dynamic (1) and static (2) are: convert it with \
         `qemu-img convert -O qcow2`"
    )]
    Type(u32),
    #[error("the VDI header has unknown flags ({0:#x}): convert it with `qemu-img convert -O qcow2`")]
    Flags(u32),
    #[error(
        "the VDI needs a parent disk, which is not part of the upload: make a full clone of it in \
         VirtualBox, or convert it with `qemu-img convert -O qcow2`"
    )]
    Parent,
    #[error("the VDI header is damaged: {field} cannot be {value}")]
    Field { field: &'static str, value: u64 },
    #[error("block {block} of the VDI's disk is at place {place} of the file, which is taken or not there")]
    Block { block: u64, place: u32 },
}

impl VdiError {
    pub(in crate::image) const fn code(&self) -> &'static str {
        match self {
            Self::Version(_) => "vdi_version_unsupported",
            Self::Type(_) => "vdi_type_unsupported",
            Self::Flags(_) => "vdi_unknown_flags",
            Self::Parent => "vdi_parent",
            Self::Field { .. } => "vdi_header_invalid",
            Self::Block { .. } => "vdi_blocks_invalid",
        }
    }
}
