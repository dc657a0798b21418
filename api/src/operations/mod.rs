//! Operations: what became of a mutating call, step by step.
//!
//! Every call whose work goes on after the answer makes one, in its own transaction. Its trail names each
//! step with its time, whether the step was done here or on a host; its end is a success or a reason.

mod reconcile;
mod routes;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;
mod verify;

pub(crate) use reconcile::{expire, forget_old};
pub(crate) use routes::{check_wait, router, wait_for_end};
pub use types::{Operation, OperationError, OperationStatus, TrailStep};
pub(crate) use verify::verify;
