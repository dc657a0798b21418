//! With the real kernel, in network and mount namespaces of each test's own. They need root.

mod across;
mod outside;
mod repair;
pub(super) mod world;
