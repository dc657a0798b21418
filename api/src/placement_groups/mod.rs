//! Placement groups: instances of a project that go together or stay apart, on hosts, racks or zones.
//!
//! An instance names its group when it is made. The rule of a group never changes. A hard one is kept by a trigger of
//! the database, whoever places instances, at whatever time; a soft one is a preference of [`crate::scheduler`].

mod routes;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;
