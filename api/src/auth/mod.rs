//! Who is calling, and what they may do.
//!
//! A person proves to be a user ([`sign_in`]) and gets a short-lived access token and a refresh token
//! ([`sessions`]); a program shows an API key ([`credential`]). For each request [`Caller::enter`] asks the database whether the credential still
//! lives and which policies apply to its owner, and [`Caller::decide`] evaluates them and returns an
//! [`Allowed`]: the proof that every store function demands. It has no other constructor, so a handler that
//! forgot to ask cannot reach any data.

mod action;
pub(crate) mod backoff;
pub mod bootstrap;
pub(crate) mod browser;
mod cache;
mod caller;
pub(crate) mod cookies;
mod credential;
mod deciding;
mod decision;
mod denial;
mod key_uses;
mod kind;
mod listing;
pub(crate) mod me;
pub(crate) mod oneself;
pub(crate) mod passwords;
mod powers;
mod principal;
mod proof;
pub mod recovery;
mod renaming;
mod rights;
pub(crate) mod routes;
pub(crate) mod second_factor;
mod sessions;
mod sign_in;
pub(crate) mod signing_keys;
pub(crate) mod store;
mod subject;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod totp;
mod types;
mod visit;
mod vocabulary;

pub use action::{Action, ActionInfo, Fact, InProject, New, OfResource, Place, ProjectResource, actions};
pub use backoff::Turns;
pub use cache::{PolicyCache, PolicyVersion};
pub use caller::{Caller, ProjectRef};
pub use credential::Credential;
pub(crate) use credential::{NewSecret, Shown, credential};
pub use deciding::DecidingStatement;
pub(crate) use deciding::{Decided, name_policies};
pub use denial::Denial;
pub(crate) use denial::Refusal;
pub use key_uses::KeyUses;
pub use kind::{Identity, Kind};
pub use passwords::Passwords;
pub(crate) use powers::is_decided_in_cloud;
pub(crate) use principal::principal_name;
pub use principal::{CredentialKind, Principal, PrincipalKind};
pub use proof::Allowed;
pub(crate) use rights::Rights;
pub(crate) use store::forget_old;
pub use tokens::{Claims, Tokens};
pub(crate) use vocabulary::keys;
pub use vocabulary::{ACTION_NAMES, vocabulary};
