//! Why a VMDK is refused.

use thiserror::Error;

/// See [`crate::image::InspectError`].
#[derive(Debug, Error)]
pub enum VmdkError {
    #[error(
        "the upload is a VMDK descriptor alone, whose data is in other files: make one file of them with \
         `qemu-img convert -O qcow2`"
    )]
    DescriptorAlone,
    #[error("VMDK version {0} is not supported, 1 to 3 are: convert it with `qemu-img convert -O qcow2`")]
    Version(u32),
    #[error("the VMDK header has unknown flags ({0:#x}): convert it with `qemu-img convert -O qcow2`")]
    Flags(u32),
    #[error("the VMDK was not closed properly: shut its machine down, and export it again")]
    Dirty,
    #[error("the VMDK's line ends were changed on the way: transfer it again as a binary file")]
    LineEnds,
    #[error("the VMDK uses the unknown compression {0}: convert it with `qemu-img convert -O qcow2`")]
    Compression(u16),
    #[error("the VMDK header is damaged: {field} cannot be {value}")]
    Field { field: &'static str, value: u64 },
    #[error("the VMDK footer is damaged: {0}; upload the whole file")]
    Footer(&'static str),
    #[error("line {line} of the VMDK descriptor is not understood: {what}")]
    Descriptor { line: usize, what: &'static str },
    #[error("the VMDK descriptor is damaged: {0}")]
    DescriptorText(&'static str),
    #[error(
        "a VMDK of the type {0:?} is not supported, monolithicSparse and streamOptimized are: convert it \
         with `qemu-img convert -O qcow2`"
    )]
    CreateType(String),
    #[error(
        "the VMDK needs a parent disk, which is not part of the upload: convert it with \
         `qemu-img convert -O qcow2` to have one file"
    )]
    Parent,
    #[error(
        "the VMDK descriptor names another file (line {line}): convert it with \
         `qemu-img convert -O qcow2` to have one file"
    )]
    OtherFile { line: usize },
    #[error(
        "the VMDK has an extent of the type {kind:?}, only SPARSE is supported: convert it with \
         `qemu-img convert -O qcow2`"
    )]
    ExtentType { kind: String },
    #[error(
        "the VMDK has {0} extents, exactly one is supported: convert it with `qemu-img convert -O qcow2`"
    )]
    Extents(usize),
    #[error(
        "the VMDK has {tables} grain tables, more than the {max} that are possible: convert it with \
         `qemu-img convert -O qcow2`"
    )]
    TooManyTables { tables: u64, max: u64 },
    #[error("{part} of the VMDK begins at sector {sector}, which is not possible")]
    Misplaced { part: &'static str, sector: u64 },
    #[error("a grain table of the VMDK at sector {sector} is used twice")]
    SharedTable { sector: u64 },
    #[error("the VMDK claims {claimed} grains of data in a file of {length} bytes")]
    Overcommitted { claimed: u64, length: u64 },
}

impl VmdkError {
    pub(in crate::image) const fn code(&self) -> &'static str {
        match self {
            Self::DescriptorAlone => "vmdk_descriptor_alone",
            Self::Version(_) => "vmdk_version_unsupported",
            Self::Flags(_) => "vmdk_unknown_flags",
            Self::Dirty => "vmdk_dirty",
            Self::Compression(_) => "vmdk_compression_unsupported",
            Self::LineEnds | Self::Field { .. } => "vmdk_header_invalid",
            Self::Footer(_) => "vmdk_footer_invalid",
            Self::Descriptor { .. } | Self::DescriptorText(_) => "vmdk_descriptor_invalid",
            Self::CreateType(_) => "vmdk_type_unsupported",
            Self::Parent => "vmdk_parent",
            Self::OtherFile { .. } => "vmdk_other_file",
            Self::ExtentType { .. } | Self::Extents(_) => "vmdk_extents_unsupported",
            Self::TooManyTables { .. } => "vmdk_too_many_tables",
            Self::Misplaced { .. } | Self::SharedTable { .. } | Self::Overcommitted { .. } => {
                "vmdk_tables_invalid"
            }
        }
    }
}
