//! Key pairs: SSH keys of a project by name, for instances that are made with them.
//!
//! Only public halves are stored. One that is generated here shows its private half once, in the answer to the call that
//! made it.

mod model;
mod named;
mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use named::look_up;
pub(crate) use routes::router;
