//! The packet rules with a real nftables, in namespaces of each test's own. They need root, `nft`, `ip` and
//! `busybox`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod changes;
mod document;
mod frames;
mod hostile;
mod limits;
mod neighbours;
mod refusals;
mod routers;
mod services;
mod stateful;
mod world;
