//! Disks of instances, on their way between two hosts: see `docs/migration.md`.
//!
//! The host that takes them listens for the other, which connects and then answers what it is asked. Both orders are repeated
//! by the control plane until it knows how they ended, so nothing of them has to survive this process: what is whole has its
//! name, and what is not goes. Removing what was taken for nothing is for an order of its own.

mod give;
mod take;
mod underway;
pub(super) mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use camino::Utf8PathBuf;
use protocol::agent::{DesiredBody, MigrationReport, MigrationState};
use protocol::{HostId, InstanceId, LayerId, MigrationId};
use tokio_util::sync::CancellationToken;

use self::underway::Order;
pub use self::underway::Underway;
use crate::control_plane::ControlPlane;
use crate::desired::DesiredStore;
use crate::host_storage::{HostStorage, Users};
use crate::reconcile::view::DomainView;
use crate::report::Outbox;

/// See the module.
pub struct DiskMoves {
    /// The identity is read anew for each move, since its certificate is renewed now and then.
    pub state_dir: Utf8PathBuf,
    pub underlay_address: Option<IpAddr>,
    pub control_plane: Arc<dyn ControlPlane>,
    pub storage: Arc<dyn HostStorage>,
    pub desired: Arc<DesiredStore>,
    pub domains: Arc<DomainView>,
    pub outbox: Arc<Outbox>,
    pub underway: Arc<Underway>,
    pub stop: CancellationToken,
}

/// A move, as it is told of.
#[derive(Debug, Clone, Copy)]
struct Of {
    id: MigrationId,
    instance: InstanceId,
}

/// Why a move does not go on here.
#[derive(Debug)]
enum Broken {
    /// Nobody wants it any more.
    Cancelled,
    /// A sentence for the instance's owner.
    Because(&'static str, crate::host_storage::BoxError),
}

impl DiskMoves {
    /// Carries an order out in the background, unless that is done already.
    pub fn begin(self: &Arc<Self>, body: &DesiredBody) {
        match body {
            DesiredBody::TakeDisks { id, instance_id, source, layers } => {
                let (of, order) = (Of { id: *id, instance: *instance_id }, Order::Take { source: *source });
                let (this, source, all) = (Arc::clone(self), *source, layers.clone());
                let ids = layers.iter().map(|layer| layer.id).collect();
                self.put(
                    of,
                    order,
                    ids,
                    |cancelled| async move { this.take(of, source, &all, &cancelled).await },
                );
            }
            DesiredBody::GiveDisks { id, instance_id, destination, address, layers, runs } => {
                let of = Of { id: *id, instance: *instance_id };
                let (this, to, all) = (Arc::clone(self), (*destination, *address), layers.clone());
                let order = Order::Give { destination: to.0, address: to.1 };
                let users = if *runs { Users::Readers } else { Users::Nobody };
                let give = move |cancelled| async move { this.give(of, to, (&all, users), &cancelled).await };
                self.put(of, order, layers.clone(), give);
            }
            _ => {}
        }
    }

    fn put<F>(&self, of: Of, order: Order, layers: Vec<LayerId>, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancelled = self.stop.child_token();
        let Some(held) = self.underway.put(of.id, order, layers, cancelled.clone()) else { return };
        let work = work(cancelled);
        tokio::spawn(async move {
            work.await;
            drop(held);
        });
    }

    /// Gives up whatever is not among these: all that there is.
    pub fn keep_only(&self, wanted: &HashSet<MigrationId>) {
        self.underway.keep_only(wanted);
        self.outbox.keep_only_disks(wanted);
    }

    fn tell(&self, of: Of, state: MigrationState) {
        self.outbox.report_disks(MigrationReport { id: of.id, instance_id: of.instance, state });
    }
}

type Peer = (HostId, SocketAddr);
