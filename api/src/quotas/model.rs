//! What is limited, and what a refusal says.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgDatabaseError;
use utoipa::ToSchema;

use super::types::ExceededLimit;

/// SQLSTATE of the trigger that refuses growth; its detail is a list of [`ExceededLimit`].
const QUOTA_EXCEEDED: &str = "QE001";

/// Something that a project may have only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Virtual machines, running or not.
    Instances,
    /// Virtual processors of all instances.
    Vcpus,
    /// Memory of all instances, in MiB.
    MemoryMib,
    /// All volumes together, in GiB.
    DiskGib,
    /// Volumes, attached or not.
    Volumes,
    /// Snapshots of volumes and instances.
    Snapshots,
    /// What volumes have left in snapshots and copies, in GiB: the size of the volume each time, if it was written to since
    /// the time before.
    SnapshotGib,
    /// When snapshots are taken.
    SnapshotSchedules,
    /// SSH keys.
    KeyPairs,
    /// Placement groups.
    PlacementGroups,
    /// Images, with or without content.
    Images,
    /// The files of images and open uploads, in GiB, each rounded up; also of deleted images from which something is still made.
    ImageGib,
    /// Principals that are programs.
    ServiceAccounts,
    /// Policies of the project itself.
    Policies,
    /// Virtual networks.
    Networks,
    /// Ranges of addresses in networks.
    Subnets,
    /// Network cards, attached or not.
    Ports,
    /// Routers.
    Routers,
    /// Public addresses.
    FloatingIps,
    /// Security groups.
    SecurityGroups,
}

impl Resource {
    /// Each of them, in the order in which they are shown.
    pub const ALL: &[Self] = &[
        Self::Instances,
        Self::Vcpus,
        Self::MemoryMib,
        Self::DiskGib,
        Self::Volumes,
        Self::Snapshots,
        Self::SnapshotGib,
        Self::SnapshotSchedules,
        Self::KeyPairs,
        Self::PlacementGroups,
        Self::Images,
        Self::ImageGib,
        Self::ServiceAccounts,
        Self::Policies,
        Self::Networks,
        Self::Subnets,
        Self::Ports,
        Self::Routers,
        Self::FloatingIps,
        Self::SecurityGroups,
    ];

    /// As it is stored and as it travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Vcpus => "vcpus",
            Self::MemoryMib => "memory_mib",
            Self::DiskGib => "disk_gib",
            Self::Volumes => "volumes",
            Self::Snapshots => "snapshots",
            Self::SnapshotGib => "snapshot_gib",
            Self::SnapshotSchedules => "snapshot_schedules",
            Self::KeyPairs => "key_pairs",
            Self::PlacementGroups => "placement_groups",
            Self::Images => "images",
            Self::ImageGib => "image_gib",
            Self::ServiceAccounts => "service_accounts",
            Self::Policies => "policies",
            Self::Networks => "networks",
            Self::Subnets => "subnets",
            Self::Ports => "ports",
            Self::Routers => "routers",
            Self::FloatingIps => "floating_ips",
            Self::SecurityGroups => "security_groups",
        }
    }

    /// What makes room, for somebody who is refused.
    const fn remedy(self) -> &'static str {
        match self {
            Self::SnapshotGib => {
                "delete snapshots that are not needed: the room of a volume comes back when its host has put together what was \
                 between them, which it does while an instance runs with the volume"
            }
            Self::ImageGib => {
                "delete images, or open uploads that nobody goes on with; the file of an image goes with the last disk that is \
                 made from it"
            }
            Self::DiskGib => "delete volumes, or snapshots with memory",
            _ => "delete something",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|resource| resource.as_str() == text)
    }
}

/// Which limits were in the way, if that is why the statement failed.
pub(crate) fn exceeded_limits(error: &sqlx::Error) -> Option<Vec<ExceededLimit>> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    if error.code() != QUOTA_EXCEEDED {
        return None;
    }
    serde_json::from_str(error.detail()?).ok()
}

/// The refusal in words.
pub(crate) fn in_words(exceeded: &[ExceededLimit]) -> Cow<'static, str> {
    let limits: Vec<_> = exceeded
        .iter()
        .map(|one| {
            let ExceededLimit { resource, limit, used, asked } = one;
            let resource = resource.as_str();
            format!("{resource}: the limit is {limit}, {used} are used, {asked} more were asked for")
        })
        .collect();
    let mut remedies: Vec<_> = exceeded.iter().map(|one| one.resource.remedy()).collect();
    remedies.sort_unstable();
    remedies.dedup();
    format!("{}; ask an operator to raise the limit, or {}", limits.join("; "), remedies.join("; or ")).into()
}
