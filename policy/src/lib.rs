//! IAM-style policies: documents, their validation, and a pure evaluator that says why.
//!
//! The semantics are those that AWS publishes for its identity policies: everything is denied unless a statement
//! allows it, and a statement that denies beats every statement that allows. What differs is said where it
//! differs: resources are `crn:cumulo:…`, and a resource may be named by its name or by its id.
//!
//! ```text
//! JSON → Document (validated, canonical) → Policy (compiled) → evaluate(policies, request) → Decision
//! ```

mod anticipate;
mod compile;
mod condition;
mod context;
mod cost;
mod document;
mod evaluate;
mod pattern;
mod renaming;
mod validate;
mod vocabulary;

pub use anticipate::{Forecast, Outlook, Question, anticipate, asked_keys};
pub use compile::Policy;
pub use context::{Context, Names, Place, Request, Resource, Value};
pub use cost::MAX_STEPS;
pub use document::{Document, Effect, MAX_DOCUMENT_BYTES, MAX_STATEMENTS};
pub use evaluate::{Deciding, Decision, evaluate, foresee};
pub use renaming::{Renaming, loosened};
pub use validate::Finding;
pub use vocabulary::{Key, KeyType, Vocabulary};
