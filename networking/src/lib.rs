//! The virtual networks of one host: devices, packet rules and services.
//!
//! Everything is a pure function of [`protocol::agent::HostNetwork`]: it is rendered, compared with what is
//! there, and the difference is applied. Mechanism only: nothing here knows HTTP to the control plane, tenants or
//! the database.

use protocol::agent::NetworkSubject;

pub mod files;
pub mod links;
pub mod names;
mod namespace;
pub mod packets;
pub mod services;

/// Something of a host that is not as its document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub subject: NetworkSubject,
    /// What would be done about it, or what keeps it from being done. For operators.
    pub detail: String,
}
