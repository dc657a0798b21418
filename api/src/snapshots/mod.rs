//! Snapshots: volumes and whole instances as they were at one moment.
//!
//! A snapshot holds layers, see `migrations/0022_snapshots.sql`: what a volume wrote until then is sealed, and the volume
//! writes to a new layer over it. Where no guest runs that is all there is to do. Where one does, its host changes all disks
//! at one instant, and the snapshot is there when a report says so ([`store::hosts`]).
//!
//! Going back, and making new volumes, is a new layer over the one that the snapshot holds.

mod hold;
pub(crate) mod model;
mod reconcile;
mod routes;
pub(crate) mod store;
mod types;
mod verify;

#[cfg(test)]
mod tests;

pub(crate) use hold::hold;
pub(crate) use reconcile::expire;
pub(crate) use routes::router;
pub(crate) use verify::verify;
