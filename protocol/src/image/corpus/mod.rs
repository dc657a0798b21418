//! Hostile images, each with one lie, and what has to become of it.
//!
//! The tests of the parser and those of the pool go through the same table. A case either is refused before
//! any other program opens it, or is harmless behind the walls of the sandbox.

mod builder;
mod polyglots;
mod qcow2;
mod vdi;
mod vhdx;
mod vmdk;
mod vmdk_descriptors;

use builder::{Image, Qcow2};
#[cfg(test)]
pub(super) use builder::{
    qcow2 as qcow2_layout, vdi as vdi_layout, vhdx as vhdx_layout, vmdk as vmdk_layout,
};

use super::Format;

/// What has to become of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The parser refuses it with this code.
    Refused(&'static str),
    /// The parser has nothing against it, as the format allows it. A conversion of it ends, well or not, and
    /// has no effect but its own output.
    Contained,
}

/// One hostile image.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// What it is declared as.
    pub format: Format,
    pub fate: Fate,
    make: fn(&str) -> Vec<u8>,
}

impl Case {
    /// The image. Where it names a file of the host, that is the absolute path `target`.
    pub fn bytes(&self, target: &str) -> Vec<u8> {
        (self.make)(target)
    }

    const fn refused(
        name: &'static str,
        format: Format,
        code: &'static str,
        make: fn(&str) -> Vec<u8>,
    ) -> Self {
        Self { name, format, fate: Fate::Refused(code), make }
    }

    const fn contained(name: &'static str, format: Format, make: fn(&str) -> Vec<u8>) -> Self {
        Self { name, format, fate: Fate::Contained, make }
    }
}

/// All of them. No two have one name.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [qcow2::CASES, polyglots::CASES, vmdk::CASES, vmdk_descriptors::CASES, vhdx::CASES, vdi::CASES]
        .into_iter()
        .flatten()
}

/// Small images without a fault, as they are declared.
pub fn honest() -> Vec<(&'static str, Format, Vec<u8>)> {
    vec![
        ("qcow2, version 2", Format::Qcow2, Qcow2::v2().bytes),
        ("qcow2, version 3", Format::Qcow2, Qcow2::v3().bytes),
        ("qcow2, extended L2 entries", Format::Qcow2, Qcow2::extended().bytes),
        ("raw", Format::Raw, vec![0x5a; 4096]),
        ("vmdk, monolithicSparse", Format::Vmdk, builder::vmdk::sparse().bytes),
        ("vmdk, streamOptimized", Format::Vmdk, builder::vmdk::stream().bytes),
        ("vmdk, streamOptimized with a footer", Format::Vmdk, builder::vmdk::stream_with_footer().bytes),
        ("vhdx", Format::Vhdx, builder::vhdx::dynamic().bytes),
        ("vdi", Format::Vdi, builder::vdi::dynamic().bytes),
    ]
}
