//! Files that are two things at once, or something else than was declared.

use super::builder::qcow2::Qcow2;
use super::builder::vmdk::{descriptor, sparse};
use super::builder::{Image, vdi, vhdx};
use super::{Case, Format};

const MISMATCH: &str = "image_format_mismatch";
const DISK_BYTES: u64 = 64 * 1024;

/// A raw disk that begins, or ends, like this.
fn raw(at: u64, bytes: &[u8]) -> Vec<u8> {
    Image::zeros(DISK_BYTES).put(at, bytes).bytes
}

/// A qcow2 header that names a backing file.
fn leading_to(target: &str) -> Vec<u8> {
    let mut image = Qcow2::v3();
    image.u64(8, 1024);
    image.u32(16, target.len() as u32);
    image.put(1024, target.as_bytes());
    image.bytes
}

fn flat(target: &str) -> String {
    descriptor("monolithicFlat", &format!("RW 8 FLAT \"{target}\" 0"))
}

const fn refused(name: &'static str, format: Format, make: fn(&str) -> Vec<u8>) -> Case {
    Case::refused(name, format, MISMATCH, make)
}

pub(super) const CASES: &[Case] = &[
    refused("raw: a qcow2 with a backing file", Format::Raw, leading_to),
    refused("raw: a VMDK descriptor", Format::Raw, |target| raw(0, flat(target).as_bytes())),
    refused("raw: a VMDK descriptor without its title", Format::Raw, |target| {
        raw(0, format!(" \n# x\nversion=1\n{}", flat(target)).as_bytes())
    }),
    refused("raw: a VMDK", Format::Raw, |_| sparse().bytes),
    refused("raw: a VHDX", Format::Raw, |_| vhdx::dynamic().bytes),
    refused("raw: a VDI", Format::Raw, |_| vdi::dynamic().bytes),
    refused("raw: the footer of a VHD", Format::Raw, |_| raw(DISK_BYTES - 512, b"conectix")),
    refused("raw: the footer of a DMG", Format::Raw, |_| raw(DISK_BYTES - 512, b"koly")),
    refused("raw: a LUKS header", Format::Raw, |_| raw(0, b"LUKS\xba\xbe")),
    refused("raw: a Parallels header", Format::Raw, |_| raw(0, b"WithouFreSpacExt")),
    refused("raw: gzip", Format::Raw, |_| raw(0, b"\x1f\x8b\x08")),
    Case::contained("raw: a qcow2 header in the second sector", Format::Raw, |target| {
        raw(512, &leading_to(target)[..4096])
    }),
    refused("vmdk: a qcow2 with a backing file", Format::Vmdk, leading_to),
    refused("vhdx: a qcow2 with a backing file", Format::Vhdx, leading_to),
    refused("vdi: a qcow2 with a backing file", Format::Vdi, leading_to),
    refused("qcow2: a VMDK", Format::Qcow2, |_| sparse().bytes),
    refused("qcow2: a VMDK descriptor", Format::Qcow2, |target| flat(target).into_bytes()),
    refused("vhdx: a VDI", Format::Vhdx, |_| vdi::dynamic().bytes),
    refused("vdi: a VHDX", Format::Vdi, |_| vhdx::dynamic().bytes),
    refused("vmdk: zeros", Format::Vmdk, |_| raw(0, &[])),
    refused("vhdx: zeros", Format::Vhdx, |_| raw(0, &[])),
    refused("vdi: zeros", Format::Vdi, |_| raw(0, &[])),
    Case::refused("qcow2: a VDI too", Format::Qcow2, "image_ambiguous", |_| {
        let mut image = Qcow2::v3();
        image.put(64, b"\x7f\x10\xda\xbe");
        image.bytes
    }),
    Case::refused("vdi: a VMDK too", Format::Vdi, "image_ambiguous", |_| {
        vdi::dynamic().put(0, b"KDMV").bytes
    }),
    Case::refused("vdi: a VMDK descriptor too", Format::Vdi, "image_ambiguous", |_| {
        vdi::dynamic().put(0, b"# Disk DescriptorFile\nversion=1\n").bytes
    }),
    Case::refused("vhdx: a VDI too", Format::Vhdx, "image_ambiguous", |_| {
        vhdx::dynamic().put(64, b"\x7f\x10\xda\xbe").bytes
    }),
];
