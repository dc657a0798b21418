//! Telling the control plane what was seen: the outbox, and the task that empties it.

mod outbox;
pub mod sender;

pub use outbox::Outbox;
