//! The wire of hosts. Only operators see it.

use protocol::agent::{Inventory, NetworkFault};
use protocol::{HostId, Name};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::model::HostState;

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
    pub disk_gib: Capacity,
    /// The shared pools that its agent was told of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared_pools: Vec<HostPool>,
    /// When the operator said that nothing runs on it any more; absent once it was heard again.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub declared_dead_at: Option<OffsetDateTime>,
    /// Domains that the control plane does not know. They are left alone.
    pub quarantined_domains: i32,
    /// What of its virtual networks it could not make.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_faults: Vec<NetworkFault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
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

/// What placement may give away, and what it has given away.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Capacity {
    pub total: i32,
    pub reserved: i32,
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
    /// Shown this once, also when the request is repeated. Lets one machine join.
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
