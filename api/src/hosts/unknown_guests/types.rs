//! The wire of guests that the cloud does not know. Only operators see it.

use std::net::IpAddr;

use protocol::MacAddress;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::instances::Reference;

/// A guest on a host of which the cloud wants nothing there. Nobody touches it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnknownGuest {
    /// The id of the instance that it is; its domain is `cumulo-<id>`.
    pub id: Uuid,
    /// Whether it runs. Otherwise it is only defined, and nothing starts it.
    pub runs: bool,
    /// The instance, if the cloud knows it: on another host, or on none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Reference>,
    /// The name of the guest. It and all that follows is what its host was last told of it, and absent if the host has nothing
    /// of that any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Whose it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<MaybeKnown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<i64>,
    /// It boots from the first.
    pub volumes: Vec<UnknownVolume>,
    pub cards: Vec<UnknownCard>,
    /// Since when the control plane knows that it is there.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// Something that the cloud may have forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MaybeKnown {
    pub id: Uuid,
    /// Absent if the cloud does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A disk of such a guest.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnknownVolume {
    pub id: Uuid,
    pub size_gib: i64,
    /// Whether the guest boots from it.
    pub boot: bool,
    /// The shared pool that it is in; absent if it is on the host's own disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// A network card of such a guest.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnknownCard {
    pub network: MaybeKnown,
    #[schema(value_type = String)]
    pub mac: MacAddress,
    pub addresses: Vec<UnknownAddress>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UnknownAddress {
    pub subnet: MaybeKnown,
    #[schema(value_type = String, format = "ip")]
    pub address: IpAddr,
    /// Whether it is kept from others. It is not if the cloud does not know the subnet, or if a port has the address already,
    /// which may be that of the same instance elsewhere.
    pub kept: bool,
}
