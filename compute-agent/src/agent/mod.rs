//! The agent as a whole: what it remembers, and the tasks that it is made of.
//!
//! ```text
//! feed ──► desired store ──► workers (one per instance) ──► hypervisor, storage
//!                              ▲            │
//!                 hypervisor events      outbox ──► sender ──► control plane
//!                              ▲            ▲
//! feed ──► network store ──► keeper ────────┘
//! ```

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::SharedClock;
use crate::consoles::Consoles;
use crate::control_plane::ControlPlane;
use crate::desired::DesiredStore;
use crate::desired::feed::Feed;
use crate::desired::images::Images;
use crate::desired::removals::Removals;
use crate::drift::Drift;
use crate::guard::Guards;
use crate::guard::witness::Witness;
use crate::host_storage::HostStorage;
use crate::hypervisor::Hypervisor;
use crate::image_cache;
use crate::insight::Insight;
use crate::inventory::LastInventory;
use crate::metadata::Metadata;
use crate::migration::Relays;
use crate::migration::disks::{DiskMoves, Underway};
use crate::networks::keeper::REPAIR;
use crate::networks::{HostNetworking, Keeper, NetworkStore};
use crate::reconcile::boots::Boots;
use crate::reconcile::workers::Workers;
use crate::reconcile::{Parts, Reconciler, Uninterrupted, events};
use crate::report::Outbox;
use crate::report::sender::Sender;
use crate::session::Session;
use crate::verify::RunningHost;

/// What a step under way may take to end when the agent is told to.
const LAST_STEP: Duration = Duration::from_secs(10);

/// QEMU, under a user of its own, passes through to the disks; what is beside them has folders of its own
/// that nobody else may enter.
const PASSABLE: u32 = 0o711;

/// See [`Surroundings::networking`].
pub type MakeNetworking = Box<dyn FnOnce(Arc<Metadata>) -> Arc<dyn HostNetworking> + Send>;

/// What the agent works with.
pub struct Surroundings {
    pub hypervisor: Arc<dyn Hypervisor>,
    pub storage: Arc<dyn HostStorage>,
    /// What makes the networks, given what their guests are told.
    pub networking: MakeNetworking,
    pub control_plane: Arc<dyn ControlPlane>,
    pub clock: SharedClock,
    /// The machine's current boot.
    pub machine_boot: Uuid,
    /// Where other hosts reach this one's virtual networks.
    pub underlay_address: Option<IpAddr>,
    /// The guests that run only while their host holds leases.
    pub guards: Arc<Guards>,
    /// What is seen of other hosts' leases.
    pub witness: Witness,
}

#[derive(Debug, Error)]
pub enum StateError {
    #[error("the state folder {folder} cannot be used")]
    Unusable {
        folder: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another agent uses the state folder {folder}")]
    InUse { folder: Utf8PathBuf },
}

/// The folder with everything that the agent must not forget, held by one agent at a time.
#[derive(Debug)]
pub struct StateDir {
    path: Utf8PathBuf,
    /// Released by the kernel when the process ends, however it ends.
    _lock: Flock<fs::File>,
}

impl StateDir {
    /// Takes the folder, which is made when it is missing.
    pub fn take(path: &Utf8Path) -> Result<Self, StateError> {
        let unusable = |source| StateError::Unusable { folder: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(PASSABLE).create(path).map_err(unusable)?;
        let file = fs::File::create(path.join("lock")).map_err(unusable)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(StateError::InUse { folder: path.to_owned() }),
            Err((_, errno)) => Err(unusable(errno.into())),
        }
    }

    pub fn path(&self) -> &Utf8Path {
        &self.path
    }
}

/// Runs until `stop` is cancelled. Domains are left as they are.
pub async fn run(
    state_dir: &StateDir,
    surroundings: Surroundings,
    stop: CancellationToken,
) -> Result<(), StateError> {
    let Surroundings {
        hypervisor,
        storage,
        networking,
        control_plane,
        clock,
        machine_boot,
        underlay_address,
        guards,
        witness,
    } = surroundings;
    let unusable = |source| StateError::Unusable { folder: state_dir.path.clone(), source };
    let desired = Arc::new(DesiredStore::open(state_dir.path.join("desired")).map_err(unusable)?);
    let boots = Arc::new(Boots::open(state_dir.path.join("boots")).map_err(unusable)?);
    let outbox = Arc::new(Outbox::open(state_dir.path.join("outbox")).map_err(unusable)?);
    let networks = Arc::new(NetworkStore::open(state_dir.path.join("networks.json")).map_err(unusable)?);
    let metadata = Metadata::new(Arc::clone(&networks), Arc::clone(&desired), Arc::clone(&clock));
    let networking = networking(Arc::new(metadata));
    let (store, told) = (Arc::clone(&networks), Arc::clone(&outbox));
    let keeper = Arc::new(Keeper::new(store, networking, told, Arc::clone(&clock)));

    // Before the first look, so that nothing happens unseen between the two.
    let hypervisor_events = hypervisor.events();
    let reconciler = Arc::new(Reconciler::new(Parts {
        desired: Arc::clone(&desired),
        boots: Arc::clone(&boots),
        outbox: Arc::clone(&outbox),
        hypervisor: Arc::clone(&hypervisor),
        storage: Arc::clone(&storage),
        networks: Arc::clone(&keeper),
        control_plane: Arc::clone(&control_plane),
        clock: Arc::clone(&clock),
        guards: Arc::clone(&guards),
        relays: Arc::new(Relays::new(state_dir.path.clone(), underlay_address, Arc::clone(&hypervisor))),
        machine_boot,
        checkpoint: Arc::new(Uninterrupted),
    }));
    let workers = Workers::new(Arc::clone(&reconciler), Arc::clone(&clock), stop.clone());
    let session = Arc::new(Session::default());
    let disks_underway = Arc::<Underway>::default();
    let removals = Arc::new(Removals::new(
        Arc::clone(&storage),
        Arc::clone(&reconciler),
        Arc::clone(&outbox),
        Arc::clone(&disks_underway),
    ));
    let disks = DiskMoves {
        state_dir: state_dir.path.clone(),
        underlay_address,
        control_plane: Arc::clone(&control_plane),
        storage: Arc::clone(&storage),
        desired: Arc::clone(&desired),
        domains: Arc::clone(&reconciler.view),
        outbox: Arc::clone(&outbox),
        underway: disks_underway,
        stop: stop.child_token(),
    };
    let images = Arc::new(Images::new(
        Arc::clone(&control_plane),
        Arc::clone(&storage),
        Arc::clone(&session),
        stop.child_token(),
    ));
    let consoles = Consoles::new(Arc::clone(&control_plane), Arc::clone(&hypervisor), stop.child_token());
    let insight = Insight::new(
        Arc::clone(&control_plane),
        Arc::clone(&session),
        Arc::clone(&hypervisor),
        Arc::clone(&desired),
    );
    let host = RunningHost::new(
        &state_dir.path,
        (Arc::clone(&desired), boots, Arc::clone(&guards)),
        (Arc::clone(&networks), Arc::clone(&keeper)),
        Arc::clone(&storage),
        Arc::clone(&reconciler),
        clock,
        machine_boot,
    );
    let drift = host.map(|host| Drift::new(Arc::clone(&control_plane), Arc::clone(&session), Arc::new(host)));
    let feed = Feed {
        control_plane: Arc::clone(&control_plane),
        hypervisor,
        storage: Arc::clone(&storage),
        desired: Arc::clone(&desired),
        networks,
        keeper: Arc::clone(&keeper),
        session: Arc::clone(&session),
        reconciler: Arc::clone(&reconciler),
        workers: workers.clone(),
        inventory: LastInventory {
            file: state_dir.path.join("inventory.json"),
            machine_boot,
            underlay_address,
        },
        removals,
        guards: Arc::clone(&guards),
        images,
        disks: Arc::new(disks),
        consoles: Arc::new(consoles),
    };
    let sender = Sender {
        control_plane,
        session,
        outbox,
        desired: Arc::clone(&desired),
        storage: Arc::clone(&storage),
        guards,
        witness,
        reconciler: Arc::clone(&reconciler),
        workers: workers.clone(),
        lacks_pool: AtomicBool::new(false),
    };
    tokio::select! {
        () = feed.run() => {}
        () = sender.run() => {}
        () = insight.run() => {}
        () = look(drift) => {}
        () = image_cache::keep(storage, desired) => {}
        () = keeper.run(reconciler.acting(), REPAIR) => {}
        () = events::watch(Arc::clone(&reconciler), workers.clone(), Arc::clone(&keeper), hypervisor_events) => {}
        () = stop.cancelled() => {}
    }
    if tokio::time::timeout(LAST_STEP, workers.ended()).await.is_err() {
        // Any step may be cut off: the next agent makes up for it.
        tracing::warn!("a step was still under way");
    }
    Ok(())
}

/// Looks for what differs; does nothing where there is nothing to look at.
async fn look(drift: Option<Drift>) {
    match drift {
        Some(drift) => drift.run().await,
        None => std::future::pending().await,
    }
}
