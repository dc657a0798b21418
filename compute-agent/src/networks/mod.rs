//! The virtual networks of this host: the last document on disk, and the host kept as it says.
//!
//! ```text
//! feed ──► store ──► keeper ──► HostNetworking (devices, packet rules, services)
//!                      │
//!                      ├──► outbox: what could not be made
//!                      └──► workers: instances whose cards have become ready, or not
//! ```

mod faults;
pub mod keeper;
mod look;
mod real;
pub mod simulated;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use async_trait::async_trait;
use protocol::NetworkId;
use protocol::agent::{HostNetwork, NetworkFault};

pub use keeper::Keeper;
pub use look::{Found, LookError, Part, look};
pub use real::RealNetworking;
pub(crate) use real::devices;
pub use store::NetworkStore;

/// Where the files of the networks' services are, in the state folder.
pub const FOLDER: &str = "networks";

/// The seam between the keeper and whatever makes networks.
#[async_trait]
pub trait HostNetworking: Send + Sync + 'static {
    /// Makes the host match the document, whatever is there. Never called twice at once.
    async fn converge(&self, wanted: &HostNetwork) -> Outcome;

    /// What [`Self::converge`] would change, without changing anything. Never called while it runs.
    async fn look(&self, wanted: &HostNetwork) -> Result<Vec<Found>, LookError>;
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// What could not be made. A port with a fault is not ready for use.
    pub faults: Vec<NetworkFault>,
    /// Networks in which no card can be used; `faults` say why. One that only does not reach another host is not
    /// among them.
    pub unusable: HashSet<NetworkId>,
}

/// Whether the network card of an instance can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// The document does not name the port (yet).
    Unnamed,
    /// The document names it, and the host has not been made to match.
    Pending,
    /// It could not be made; the reported faults say why.
    Faulty,
}
