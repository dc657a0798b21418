//! Images: operating systems as files.
//!
//! An image is made first and filled by an upload. The upload streams into the image store while it is
//! hashed, is inspected without trust, and only then becomes available. Bytes are stored once per content:
//! images of equal content share a blob, found by its digest.
//!
//! An image belongs to a project, which may share it with others; one that is public is everybody's to use. A
//! deleted image belongs to nobody, and its row stays for as long as an instance is made from it.

mod blob_reader;
mod blob_store;
mod import;
mod pieces;
mod receiver;
mod reconcile;
mod routes;
mod store;
mod store_options;
mod types;
mod verify;

#[cfg(test)]
mod tests;

pub use blob_store::{ImageStore, ImageStoreError};
#[cfg(test)]
pub(crate) use import::Resolver;
pub use import::{ImportOptions, Importer};
pub(crate) use import::{delivery, run_imports};
pub(crate) use reconcile::sweep;
pub(crate) use routes::router;
pub(crate) use store::disks::orders_after;
pub(crate) use store::imports::cancel_import;
pub(crate) use store::usable::hold;
pub(crate) use store::{ImageRow, blob_for_host};
pub use store_options::ImageStoreOptions;
pub(crate) use types::no_bios;
pub(crate) use verify::{Broken, verify_files, verify_rows};
