//! Every resource: the operations that make, read, change and delete it, and where the OpenAPI document does not say all.
//!
//! Attributes come from the bodies and answers of those operations. `resource.rs` says by which rules.

#[cfg(test)]
mod covered;
mod looks;
mod rows;

use serde_json::Value as Json;

pub use rows::{SHOWN, TABLE};

use crate::value::{Object, Value};

pub struct Entry {
    /// `network` becomes `cumulo_network`.
    pub name: &'static str,
    pub about: &'static str,
    pub create: &'static str,
    pub read: Read,
    /// None where another value means another resource.
    pub update: Option<&'static str>,
    pub delete: Delete,
    /// The parameter of paths that is the resource's own `id`; none where the others say which it is.
    pub own: Option<&'static str>,
    pub notes: &'static [(&'static str, Note)],
    /// Whether its work may take minutes.
    pub slow: bool,
}

pub enum Read {
    /// The answer is the resource.
    Get(&'static str),
    /// It is in a list, page by page.
    List(&'static str, Look),
    /// It is within another resource.
    Within(&'static str, Look),
}

/// Finds the resource in an answer, or the item of a list, as if the API showed it alone; `None` where it is not there.
pub type Look = fn(&Json, &Object) -> Option<Json>;

pub enum Delete {
    Call(&'static str),
    /// There always is one; everything is unset.
    Unset(&'static str),
}

#[derive(Clone, Copy)]
pub enum Note {
    /// Not of Terraform, or shown by another resource.
    Hidden,
    /// The API does not show it again, or not in these words: what was written stays.
    Kept,
    /// Another property of the answer shows it.
    ShownAs(&'static str),
    /// The property of the answer is called like this in Terraform, since what is asked for has its name.
    Called(&'static str),
    /// Another resource's id, where the API would take its name, too, and not find it again.
    Id,
    Secret,
    /// Shown once, when it is made, and secret.
    Once,
    WriteOnly,
    /// What the API takes without a word about it.
    Default(fn() -> Value),
    /// The cloud chooses, and may choose again.
    Chosen,
    Stable,
    /// It takes another operation to change it.
    By(&'static str),
    /// Unless it is written, it is what another attribute makes it.
    Follows(&'static str),
    /// Not of the API: a file or an address that the provider reads, with what to say about it.
    Extra(&'static str),
}
