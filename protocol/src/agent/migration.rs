//! A running guest goes from one host to another.
//!
//! INVARIANT: the destination runs no guest code before it is told of the instance as its own, and the control plane says
//! that only after the source has reported [`MigrationState::HandedOver`], which the source writes down before, and after
//! which it never lets that guest go on.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ImageSource;
use crate::{HostId, InstanceId, LayerId, MigrationId, SizeGib};

/// A feature of hosts whose agents know of migrations. To others, the specification of a guest that is to come is that of
/// one that is to be started.
pub const LIVE_MIGRATION: &str = "live_migration";

/// A feature of hosts whose agents copy the disks of instances that are stopped: [`super::DesiredBody::TakeDisks`].
pub const DISK_MOVES: &str = "disk_moves";

/// A feature of hosts whose agents copy the disks of instances that run: [`CopiedLayer::fresh`].
pub const LIVE_DISKS: &str = "live_disks";

/// A feature of hosts whose agents take a running guest that others start when its host fails: its guard knows of it before
/// there is anything that could run here. Others would let it go on without a guard.
pub const GUARDED_MIGRATION: &str = "guarded_migration";

/// A layer on the disk of one host that another one takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedLayer {
    pub id: LayerId,
    /// The layer that it stands on, which comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<LayerId>,
    /// What it stands on if not on a layer; an empty disk stands on nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// No guest sees more of it.
    pub size_gib: SizeGib,
    /// Its guest runs and writes to it: an empty one is made of it, and what it holds comes with the guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
}

/// The most that a guest may be asked to stand still, in milliseconds.
pub const MAX_DOWNTIME_MS: u32 = 60_000;

/// The part of a host in a migration; see [`super::InstanceSpec::migration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Migration {
    /// Make a domain that waits for what the source sends, and say where: [`MigrationState::Ready`]. Nothing is started. What
    /// its guest writes to on the disk of its host is written to by the source until then.
    Incoming { id: MigrationId, source: HostId },
    /// Send the running guest there.
    Outgoing {
        id: MigrationId,
        destination: HostId,
        address: SocketAddr,
        /// How long the guest may stand still at the end.
        max_downtime_ms: u32,
        /// Send no more, unless it has been handed over.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cancelled: bool,
    },
}

impl Migration {
    pub const fn id(&self) -> MigrationId {
        match self {
            Self::Incoming { id, .. } | Self::Outgoing { id, .. } => *id,
        }
    }
}

/// What a host says of a migration, in [`super::ObservedBatch::migrations`]; a later word replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationReport {
    pub id: MigrationId,
    pub instance_id: InstanceId,
    pub state: MigrationState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MigrationState {
    /// The destination: the domain waits, and its agent listens there for the source alone.
    Ready { address: SocketAddr },
    /// The destination cannot take it.
    Refused {
        /// For people, in a sentence. Never a path or a host name.
        detail: String,
    },
    /// The source: that many bytes of what the guest writes to are at the destination.
    Mirroring { done_bytes: u64, total_bytes: u64 },
    /// The source: that many bytes of the guest's memory are sent or need not be. The destination of disks: so many have come.
    Transferring { done_bytes: u64, total_bytes: u64 },
    /// The source: the destination has all of it, and this host never lets the guest go on, whatever happens.
    HandedOver,
    /// The destination of disks: all of them are there, each whole and on disk, or was never made.
    Received,
    /// The source: the guest runs on here, and is not sent any more under this id.
    Ended {
        /// As of [`Self::Refused`].
        detail: String,
    },
}
