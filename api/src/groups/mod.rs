//! Groups: users who share the policies that are attached to the group. Groups belong to the cloud and do not
//! contain one another. What a group may do, attachments say; membership alone gives nothing.

mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;
