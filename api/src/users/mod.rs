//! Users: the people who use the cloud, how they prove who they are, and where they are signed in.
//!
//! A way to sign in is a table of its own beside `principals`: a password today, the subject of an identity
//! provider one day. A user may have several, or none yet, like somebody who has only been invited.

mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;
