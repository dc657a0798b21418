//! Attachments: to whom a policy applies, and where. They never change; they are made and removed.

mod routes;
pub(super) mod store;
mod types;

pub(super) use routes::router;
pub(super) use types::{Subject, SubjectKind};
