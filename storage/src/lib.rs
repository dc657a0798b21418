//! The pools of one host, its own and those that it shares: cached images, volumes, seeds and serial logs.
//!
//! ```text
//! <root>/images/<sha256>.qcow2             an image of our own making, never written again
//!        layers/<uuid>.qcow2               a layer of a volume, over an image, another layer or nothing
//!              /<uuid>.memory              the memory of a guest that a snapshot holds, written by libvirt
//!        instances/<uuid>/seed.img         the NoCloud disk for cloud-init
//!                        /serial.log(.0…)  written and rotated by virtlogd
//!                        /uefi_variables.fd  written by libvirt and the guest, with UEFI
//!        incoming/                         unfinished work of this process, emptied when the pool opens
//!        made/                             which layers there are, unless that is kept elsewhere: see [`Options::record`]
//!        cumulo-local-pool.json            the identity of a pool that a host has alone
//! ```
//!
//! Mechanism only: it knows qcow2 and directories, nothing of HTTP, tenants or libvirt. Two rules carry it.
//! *A name means a finished file*: everything is made under `incoming/`, flushed, and renamed into place, so
//! a process killed at any point leaves either nothing or the whole, and the next call goes on. *An image is
//! hostile until it is ours*: what was fetched is read by [`protocol::image`] alone, then rewritten once by
//! [`sandbox`], and only the rewritten file is ever seen by a hypervisor.

mod base;
mod cache;
mod chain;
mod copied;
mod durable;
mod error;
mod export;
mod flight;
mod header;
mod inventory;
mod layout;
mod made;
mod memory;
pub mod patience;
mod pool;
mod qemu_img;
pub mod sandbox;
mod seed;
mod serial;
mod shared;
mod volume;
mod walls;

pub use cache::{Needed, Usage};
pub use copied::{LentLayer, NewLayer, Users};
pub use error::{Blame, PoolError};
pub use export::Export;
pub use inventory::{InstanceFiles, Inventory, SharedInventory};
pub use layout::InstancePaths;
pub use memory::NewMemory;
pub use pool::{Found, Options, Pool, Space};
pub use shared::{SharedRoot, Unusable, Usable, identity as shared_identity};
pub use volume::VolumeFound;
pub use walls::shown_with_programs;

/// Whether a call made the file or found it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    Now,
    Before,
}

#[cfg(test)]
mod tests;
