//! Volumes: the disks of instances, which may outlive them.
//!
//! A volume is a chain of layers on one host, see `migrations/0018_volumes.sql`; all of that structure is decided
//! here, and a host only makes what the specification of an instance names. A volume that is attached to nothing
//! therefore needs no host: making it, growing it and naming it is done with the transaction. It has a host from the
//! moment at which an instance with it is placed, and stays there.
//!
//! [`disks`] puts volumes into instances and takes them out; [`store::hosts`] folds in what hosts say of them.

mod detail;
pub(crate) mod disks;
mod model;
mod reconcile;
mod routes;
pub(crate) mod store;
mod types;
mod verify;

#[cfg(test)]
mod tests;

pub(crate) use disks::WantedVolume;
pub(crate) use model::{AttachmentState, gib_for};
pub(crate) use reconcile::merge;
pub(crate) use routes::router;
pub(crate) use verify::verify;
