//! Instance types: the sizes of instances that the operator offers to every project.
//!
//! An instance copies its size when it is made, so a type can go once nothing was made from it any more.

mod routes;
mod store;
mod types;

pub(crate) use routes::router;
pub(crate) use store::{InstanceTypeRow, feature_of_model, features_of, find, fitting, options};
pub(crate) use types::{validate_memory, validate_vcpus};
