//! Service accounts: programs that act in the cloud, like Terraform or a build server. Each belongs to a
//! project, has API keys and no password, and may do what the policies that are attached to it say.

mod routes;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;
