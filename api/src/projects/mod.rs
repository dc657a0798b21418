//! Projects: the tenants. Everything a tenant owns belongs to exactly one project.

mod routes;
mod store;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use routes::router;
