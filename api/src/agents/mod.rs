//! The control plane's side of the agent protocol, on a listener of its own with mutual TLS.
//!
//! The certificate is the identity: whatever a message says, it reads and writes only what belongs to the
//! host in the certificate. A message is a stranger's until it has been validated and bounded, and counts
//! only on the host's newest session.

pub(crate) mod asking;
mod consoles;
mod desired;
mod drift;
mod heartbeat;
mod images;
mod insight;
mod join;
pub(crate) mod lost_nudges;
mod observed;
mod peer;
mod router;
mod session;
#[cfg(test)]
mod tests;
pub(crate) mod transfers;

pub(crate) use observed::{clean, is_harmless};
pub(crate) use router::agent_router;
