//! The conventions that every endpoint keeps, each written once.
//!
//! A handler takes a [`Call`]: the request after sign-in, its body read and bounded. Reading goes through
//! [`Call::reading`], changing through [`Call::changing`]; both give the proof of authorisation without
//! which no store function works.

mod body;
mod call;
mod cidr;
mod client;
mod counted;
mod description;
mod edge;
mod etag;
mod headers;
mod health;
mod idempotency;
mod labels;
pub(crate) mod limits;
mod mutation;
mod openapi;
mod page;
mod patch;
mod problem;
mod request;
pub(crate) mod router;
mod segments;
mod selector;
#[cfg(test)]
mod tests;
mod unique_keys;
mod words;

pub(crate) use body::{JsonBody, NoFields, RawBody};
pub use call::{Call, MutationQuery, Reading};
pub(crate) use call::{parse_query, request_id};
pub(crate) use cidr::validate_cidr;
pub(crate) use client::Client;
pub(crate) use counted::counted;
pub use description::validate_description;
pub(crate) use description::{reject_description, validate_description_at};
pub use edge::{Edge, EdgeOptions};
pub use etag::Version;
pub use health::{Health, Ready};
pub(crate) use idempotency::forget_old as forget_old_answers;
pub use labels::{LabelSelector, Labels, validate_labels};
pub use limits::{RateOptions, Ticks};
pub(crate) use mutation::Entry;
pub use mutation::Mutation;
pub(crate) use mutation::{dry_answer, tagged, untagged};
pub use openapi::openapi_document;
pub use page::{LabelledPageQuery, Page, PageQuery, PlainQuery};
pub use patch::{LabelsPatch, merge_labels};
pub(crate) use patch::{not_null, nullable};
pub use problem::{ApiError, ErrorCode, FieldError, Problem, refusal_detail, violated_constraint};
pub use router::public_router;
pub(crate) use segments::Path;
pub use selector::Selector;
pub(crate) use unique_keys::UniqueKeys;
