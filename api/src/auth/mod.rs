//! Who is calling, and what they may do.
//!
//! A user signs in with a password and gets a short-lived access token and a refresh token ([`routes`]). Each
//! request carries the access token; [`authorize`] then asks the database whether the session still lives and
//! what its user may do, and returns an [`Allowed`]: the proof that every store function demands. It has no
//! other constructor, so a handler that forgot to ask cannot reach any data.

mod action;
pub(crate) mod bootstrap;
mod decision;
mod passwords;
pub(crate) mod routes;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod types;

pub use action::{Action, Allowed, Cloud, InProject, Scope, actions};
pub use decision::authorize;
pub use passwords::Passwords;
pub(crate) use store::forget_sessions;
pub use tokens::{Claims, Tokens};
