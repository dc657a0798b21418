//! Projects: the tenants. Everything a tenant owns belongs to exactly one project.

mod defaults;
mod routes;
mod store;
mod types;

pub(crate) use routes::router;
