//! The guard: its decisions as properties, and the real process against real files and processes.

mod fake;
mod files;
mod process;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;

use camino::Utf8Path;
use uuid::Uuid;

use super::Guards;
use super::clock::SharedBootClock;

pub(crate) use fake::FakeGuard;

/// The agent's side, on a host with the shared pools `fast` and `slow`.
pub(crate) fn guards(state_dir: &Utf8Path, machine_boot: Uuid, clock: SharedBootClock) -> Arc<Guards> {
    let pools = ["fast", "slow"].map(|name| (name.parse().unwrap(), format!("/srv/{name}").into()));
    let pools = BTreeMap::from(pools);
    Arc::new(Guards::open(state_dir, pools, machine_boot, clock).unwrap())
}
