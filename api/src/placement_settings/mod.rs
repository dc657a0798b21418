//! What placement goes by in the whole cloud: whether it spreads or packs, what else weighs, and how much of hosts is
//! promised for which nothing else was decided. One row, which is always there.

mod routes;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use routes::router;
