//! What a host must be for an instance.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fleet::Candidate;
use super::groups::{Occupied, is_located};
use super::request::Request;

/// Why a host does not take an instance: the first filter that it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The data of the instance's volumes is on another one.
    VolumesElsewhere,
    /// It does not have a shared pool that volumes of the instance are in.
    PoolMissing,
    /// The instance has left it, and it has not said yet that nothing of it is there.
    Leaving,
    /// Its agent is silent, degraded or new.
    NotReady,
    /// The instance is to start elsewhere when its host dies, and no guard there keeps a lease in its pools.
    NoGuard,
    /// The operator keeps new instances away from it.
    Cordoned,
    /// It cannot run guests of this architecture.
    Architecture,
    /// It does not give what guests of this type have.
    Features,
    /// It does not have the labels that the operator has tied to the type.
    HostLabels,
    /// It is kept for other types.
    Tainted,
    /// Nobody has said in which rack or zone it is, and the placement group has to know.
    Unlocated,
    /// The rule of the placement group is in the way.
    PlacementGroup,
    /// Its disks are almost full, so it takes no new volumes.
    PoolLow,
    Vcpus,
    Memory,
    Disk,
}

impl Rejection {
    /// Whether the host may take it soon without anybody's doing: what it lacks comes back, or comes free.
    pub const fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Leaving
                | Self::NotReady
                | Self::NoGuard
                | Self::PoolLow
                | Self::Vcpus
                | Self::Memory
                | Self::Disk
        )
    }

    /// In the order in which they are asked for.
    pub const ALL: [Self; 16] = [
        Self::VolumesElsewhere,
        Self::PoolMissing,
        Self::Leaving,
        Self::NotReady,
        Self::NoGuard,
        Self::Cordoned,
        Self::Architecture,
        Self::Features,
        Self::HostLabels,
        Self::Tainted,
        Self::Unlocated,
        Self::PlacementGroup,
        Self::PoolLow,
        Self::Vcpus,
        Self::Memory,
        Self::Disk,
    ];

    /// Whether a smaller instance would pass.
    pub(super) const fn is_of_size(self) -> bool {
        matches!(self, Self::Vcpus | Self::Memory | Self::Disk)
    }

    fn passed(self, candidate: &Candidate, request: &Request, occupied: &Occupied<'_>) -> bool {
        let (free, asked, needs) = (candidate.free, request.size, &request.needs);
        match self {
            Self::VolumesElsewhere => request.volumes_on.is_none_or(|host| host == candidate.id),
            Self::PoolMissing => request.pools.iter().all(|pool| candidate.pools.contains(pool)),
            Self::Leaving => !request.leaving.contains(&candidate.id),
            Self::NotReady => candidate.ready,
            Self::NoGuard => {
                !request.needs_guard || request.pools.iter().all(|pool| candidate.guarded.contains(pool))
            }
            Self::Cordoned => !candidate.cordoned,
            Self::Architecture => candidate.architectures.contains(&request.architecture),
            Self::Features => needs.features.iter().all(|feature| candidate.features.contains(feature)),
            Self::HostLabels => {
                needs.host_labels.iter().all(|(key, value)| candidate.labels.get(key) == Some(value))
            }
            Self::Tainted => candidate.taints.iter().all(|taint| needs.tolerations.contains(taint)),
            Self::Unlocated => request.group.as_ref().is_none_or(|group| is_located(candidate, group)),
            Self::PlacementGroup => {
                request.group.as_ref().is_none_or(|group| occupied.admits(candidate, group))
            }
            Self::PoolLow => !candidate.pool_low || asked.disk_gib == 0,
            Self::Vcpus => free.vcpus >= asked.vcpus,
            Self::Memory => free.memory_mib >= asked.memory_mib,
            Self::Disk => free.disk_gib >= asked.disk_gib,
        }
    }
}

/// The first filter that the host fails.
pub fn reject(candidate: &Candidate, request: &Request, occupied: &Occupied<'_>) -> Option<Rejection> {
    Rejection::ALL.into_iter().find(|filter| !filter.passed(candidate, request, occupied))
}

/// Every filter that the host fails.
pub fn rejections<'a>(
    candidate: &'a Candidate,
    request: &'a Request,
    occupied: &'a Occupied<'_>,
) -> impl Iterator<Item = Rejection> + 'a {
    Rejection::ALL.into_iter().filter(|filter| !filter.passed(candidate, request, occupied))
}

/// Whether it fails none; those that most hosts of a full cloud fail come first.
pub(super) fn fits(candidate: &Candidate, request: &Request, occupied: &Occupied<'_>) -> bool {
    candidate.free.holds(request.size) && candidate.ready && reject(candidate, request, occupied).is_none()
}
