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

/// The agent's side, on a host with the shared pool `fast`.
pub(crate) fn guards(state_dir: &Utf8Path, machine_boot: Uuid, clock: SharedBootClock) -> Arc<Guards> {
    let pools = BTreeMap::from([("fast".parse().unwrap(), "/srv/fast".into())]);
    Arc::new(Guards::open(state_dir, pools, machine_boot, clock).unwrap())
}
