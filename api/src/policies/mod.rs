//! Policies: who may do what where, as documents that people write; to whom they are attached; and what would
//! become of a request.
//!
//! Policies and attachments exist in the cloud and in each project. One of a project gives rights there and
//! nowhere else, so whoever attaches policies in a project can give away no more than that project.

pub(crate) mod administrators;
mod attachments;
mod document;
mod either;
pub(crate) mod managed;
mod routes;
mod simulate;
mod store;
#[cfg(test)]
mod tests;
mod types;

use utoipa_axum::router::OpenApiRouter;

pub use document::PolicyDocument;

use crate::app::App;

pub(crate) fn router() -> OpenApiRouter<App> {
    routes::router().merge(attachments::router()).merge(simulate::router())
}
