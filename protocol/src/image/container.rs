//! Recognises the containers that are passed off as raw disks, or uploaded under the wrong name.
//!
//! A raw image has no header, so it is whatever the others are not. Were a raw upload with a qcow2 header
//! stored as raw, a guest that wrote such a header to its own disk and a tool that probed it later would
//! together reach the host's files.

use std::fmt;
use std::io::{Read, Seek};

use super::source::Source;
use super::{Format, InspectError, Part, SECTOR_BYTES};

/// What the first (or last) bytes of a file say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Any version of qcow.
    Qcow,
    Vmdk,
    Vhdx,
    Vhd,
    Vdi,
    Qed,
    Parallels,
    Bochs,
    Cloop,
    Dmg,
    Luks,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Zip,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qcow => "qcow2",
            Self::Vmdk => "VMDK",
            Self::Vhdx => "VHDX",
            Self::Vhd => "VHD",
            Self::Vdi => "VDI",
            Self::Qed => "QED",
            Self::Parallels => "Parallels",
            Self::Bochs => "Bochs",
            Self::Cloop => "cloop",
            Self::Dmg => "DMG",
            Self::Luks => "LUKS",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Zip => "zip",
        })
    }
}

impl Container {
    /// The format to declare it as, if it is one that is accepted.
    pub(super) const fn format(self) -> Option<Format> {
        match self {
            Self::Qcow => Some(Format::Qcow2),
            Self::Vmdk => Some(Format::Vmdk),
            Self::Vhdx => Some(Format::Vhdx),
            Self::Vdi => Some(Format::Vdi),
            _ => None,
        }
    }

    /// Whether it is a compressed file and no disk image at all.
    pub(super) const fn is_compression(self) -> bool {
        matches!(self, Self::Gzip | Self::Xz | Self::Zstd | Self::Bzip2 | Self::Zip)
    }
}

/// Signatures by their place in the file. The disk formats are those that QEMU's block layer would probe
/// for (each driver's `*_probe` function); the compressors' are of their own file formats.
const HEAD: &[(usize, &[u8], Container)] = &[
    (0, b"QFI\xfb", Container::Qcow),
    (0, b"KDMV", Container::Vmdk),
    (0, b"COWD", Container::Vmdk),
    (0, b"# Disk DescriptorFile", Container::Vmdk),
    (0, b"vhdxfile", Container::Vhdx),
    (0, b"conectix", Container::Vhd),
    (64, b"\x7f\x10\xda\xbe", Container::Vdi),
    (0, b"QED\0", Container::Qed),
    (0, b"WithoutFreeSpace", Container::Parallels),
    (0, b"WithouFreSpacExt", Container::Parallels),
    (0, b"Bochs Virtual HD Image", Container::Bochs),
    (0, b"#!/bin/sh\n#V2.0 Format\n", Container::Cloop),
    (0, b"LUKS\xba\xbe", Container::Luks),
    (0, b"\x1f\x8b\x08", Container::Gzip),
    (0, b"\xfd7zXZ\0", Container::Xz),
    (0, b"\x28\xb5\x2f\xfd", Container::Zstd),
    (0, b"BZh", Container::Bzip2),
    (0, b"PK\x03\x04", Container::Zip),
];

/// Signatures of the last sector: a fixed VHD and a DMG are a raw disk with a footer.
const TAIL: &[(&[u8], Container)] = &[(b"conectix", Container::Vhd), (b"koly", Container::Dmg)];

pub(super) fn recognise<R: Read + Seek>(
    source: &mut Source<'_, R>,
) -> Result<Option<Container>, InspectError> {
    let length = source.length();
    let head = source.bytes(Part::Header, 0, length.min(SECTOR_BYTES))?;
    let mut found = HEAD
        .iter()
        .filter(|(at, magic, _)| head.get(*at..).is_some_and(|bytes| bytes.starts_with(magic)))
        .map(|(_, _, container)| *container);
    if let Some(first) = found.next() {
        // A reader that looks for the other one first would see another disk.
        return match found.find(|other| *other != first) {
            Some(second) => Err(InspectError::Ambiguous(first, second)),
            None => Ok(Some(first)),
        };
    }
    if is_vmdk_descriptor(head) {
        return Ok(Some(Container::Vmdk));
    }
    let Some(last_sector) = length.checked_sub(SECTOR_BYTES) else { return Ok(None) };
    let tail = source.bytes(Part::Footer, last_sector, SECTOR_BYTES)?;
    Ok(TAIL.iter().find(|(magic, _)| tail.starts_with(magic)).map(|(_, container)| *container))
}

/// VMware Workstation writes descriptors that begin with other comment lines. QEMU takes any file for one whose
/// first line, after comments and blanks, is a version.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    const TITLE: &[u8] = b"# Disk DescriptorFile";
    let has_title = head.starts_with(b"#") && head.windows(TITLE.len()).any(|window| window == TITLE);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.find(|line| !line.starts_with(b"#") && !line.trim_ascii().is_empty());
    has_title || first.is_some_and(|line| line.trim_ascii_start().starts_with(b"version="))
}
