//! The wire of hosts. Only operators see it.

use protocol::agent::{Inventory, NetworkFault};
use protocol::{HostId, Name};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::fencing::HostFencing;
use super::maintenance::HostMaintenance;
use super::model::HostState;
use crate::http::{FieldError, Labels, LabelsPatch, not_null, nullable};

/// The query of a list of hosts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HostQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub cursor: Option<String>,
    /// Only the resource of this name.
    pub name: Option<String>,
    /// Only hosts in this state.
    #[param(inline)]
    pub state: Option<HostState>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Host {
    pub id: HostId,
    pub name: String,
    pub state: HostState,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    pub vcpus: Capacity,
    pub memory_mib: Capacity,
    pub disk_gib: DiskCapacity,
    /// Where it stands; `zone` may have several racks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What instance types may ask for.
    pub labels: Labels,
    /// Each keeps instances away whose type does not tolerate it.
    pub taints: Vec<String>,
    /// No new instance goes there; those that are there stay, unless it is drained.
    pub cordoned: bool,
    /// How many vCPUs are promised for each processor; absent for the cloud's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu_overcommit: Option<f64>,
    /// How much memory is promised for each MiB that there is; absent for the cloud's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_overcommit: Option<f64>,
    /// How much disk is promised for each GiB that there is.
    pub disk_overcommit: f64,
    /// The file system with the disks; absent until the host has told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// No new volume goes there while less of the pool is free than this, in per cent.
    pub pool_low_percent: i32,
    /// The shared pools that its agent was told of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared_pools: Vec<HostPool>,
    /// Names of the shared pools in which a guard on it keeps its lease fresh, as it last said. Instances with the
    /// `on_host_failure` `restart` go only where all of their pools are guarded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub guarded_pools: Vec<String>,
    /// When the operator said, or proved by the fence command, that nothing runs on it any more; absent once it was heard
    /// again.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub declared_dead_at: Option<OffsetDateTime>,
    /// What becomes of switching it off, while nothing is heard of it; absent where that is left to the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fencing: Option<HostFencing>,
    /// Whether it is being emptied, and what is still there.
    pub maintenance: HostMaintenance,
    /// Domains that the control plane does not know. They are left alone.
    pub quarantined_domains: i32,
    /// What of its virtual networks it could not make.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_faults: Vec<NetworkFault>,
    /// In how many things it differed from what is wanted of it when its agent last looked; `GET /v1/drift` names them. Absent
    /// until its agent has looked: then nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub drift: Option<i32>,
    /// When that was, to within five minutes. What is old says little about now.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub drift_looked_at: Option<OffsetDateTime>,
    /// Until when its certificate is valid. Its agent renews it ten days earlier; once it has run out the host has to be
    /// readmitted. Absent until it is known.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The version of the agent protocol that its agent speaks; absent until it has told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub protocol_version: Option<i32>,
    /// `true` while its agent speaks the version before the control plane's: everything goes on, but it is asked for nothing
    /// that it does not know. Upgrade it. Absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub agent_outdated: bool,
    /// Why its agent, which came last, is not let in, and what to do; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_refused: Option<String>,
    /// What the host can really do, as its agent probed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A shared pool, as `shared_pools_of()` of the database gives it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostPool {
    pub name: String,
    /// Whether instances with volumes in it can be there.
    pub usable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<i64>,
}

/// The word of whoever has looked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclareHostDead {
    /// `true`: no guest of the host runs any more, and none will until its agent has spoken with the control plane. Its
    /// power is off, or it is cut off from the shared pools. If that is not so, two guests may write to one disk.
    pub no_guest_runs: bool,
}

/// For a host that was away until its certificate had run out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadmitHost {
    /// How long the token is good. From 60 to 3600; 600 unless given.
    #[schema(minimum = 60, maximum = 3600)]
    pub ttl_seconds: Option<u32>,
}

/// What placement may give away, and what it has given away.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Capacity {
    pub total: i32,
    pub reserved: i32,
}

/// What placement may give away of the disk, what it has given away, and what is really taken.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct DiskCapacity {
    /// With the overcommit; as much as is reserved while that is more.
    pub total: i32,
    /// Sizes of the volumes, as their guests see them.
    pub reserved: i32,
    /// Of the pool's file system, images and whatever else is there included. Absent until the host has told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<i32>,
}

/// The file system of a host's pool, as its agent last measured it.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = HostDisk)]
pub struct Pool {
    pub total_bytes: i64,
    /// As an unprivileged process finds it.
    pub free_bytes: i64,
    /// Of cached images, needed or not.
    pub image_cache_bytes: i64,
    /// So little is free that no new volume goes there.
    pub low: bool,
}

impl Pool {
    /// What is taken, in GiB, rounded up.
    pub(super) fn used_gib(&self) -> i32 {
        let bytes = (self.total_bytes - self.free_bytes).max(0).unsigned_abs();
        i32::try_from(bytes.div_ceil(protocol::GIB)).unwrap_or(i32::MAX)
    }
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateHost {
    /// From 0.1 to 10. Volumes take the room that their guests have written to, so more can be promised than there is;
    /// how much is really taken, somebody has to watch.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0.1, maximum = 10)]
    pub disk_overcommit: Option<f64>,
    /// From 0 to 50; 0 for never.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, minimum = 0, maximum = 50)]
    pub pool_low_percent: Option<i32>,
    /// The rack that it is in. Instances of hard placement groups over racks stay apart or together by it, so it cannot be
    /// changed in a way that breaks the rule of one there. `null`: nobody knows.
    #[serde(default, deserialize_with = "nullable")]
    pub rack: Option<Option<Name>>,
    /// The same for zones: parts of the cloud that fail one by one.
    #[serde(default, deserialize_with = "nullable")]
    pub zone: Option<Option<Name>>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
    /// All of them, at most 16: what is there before goes. Instances that are there stay.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_items = 16)]
    pub taints: Option<Vec<Name>>,
    /// `true` keeps new instances away, for maintenance.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub cordoned: Option<bool>,
    /// From 0.1 to 64; `null` for the cloud's setting.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(minimum = 0.1, maximum = 64)]
    pub vcpu_overcommit: Option<Option<f64>>,
    /// From 0.1 to 4; `null` for the cloud's setting. More than 1 makes the host swap when guests use what they have.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(minimum = 0.1, maximum = 4)]
    pub memory_overcommit: Option<Option<f64>>,
}

/// From what to what processors and memory may be promised.
pub(crate) const VCPU_OVERCOMMIT: std::ops::RangeInclusive<f64> = 0.1..=64.0;
pub(crate) const MEMORY_OVERCOMMIT: std::ops::RangeInclusive<f64> = 0.1..=4.0;
const MAX_TAINTS: usize = 16;

impl UpdateHost {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.disk_overcommit.is_some_and(|ratio| !(0.1..=10.0).contains(&ratio)) {
            errors.push(FieldError::new("/disk_overcommit", "out_of_range", "from 0.1 to 10"));
        }
        if self.pool_low_percent.is_some_and(|percent| !(0..=50).contains(&percent)) {
            errors.push(FieldError::new("/pool_low_percent", "out_of_range", "from 0 to 50"));
        }
        if self.vcpu_overcommit.flatten().is_some_and(|ratio| !VCPU_OVERCOMMIT.contains(&ratio)) {
            errors.push(FieldError::new("/vcpu_overcommit", "out_of_range", "from 0.1 to 64"));
        }
        if self.memory_overcommit.flatten().is_some_and(|ratio| !MEMORY_OVERCOMMIT.contains(&ratio)) {
            errors.push(FieldError::new("/memory_overcommit", "out_of_range", "from 0.1 to 4"));
        }
        if self.taints.as_ref().is_some_and(|taints| taints.len() > MAX_TAINTS) {
            errors.push(FieldError::new("/taints", "too_many", format!("at most {MAX_TAINTS} taints")));
        }
        errors
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateHostJoinToken {
    /// From 60 to 3600; 600 unless given.
    #[schema(minimum = 60, maximum = 3600)]
    pub ttl_seconds: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub struct HostJoinToken {
    /// Shown this once, also when the request is repeated. Lets one machine join, or that host in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// The name under which a new host is stored.
pub(crate) struct NewHost {
    pub id: HostId,
    pub name: Name,
}
