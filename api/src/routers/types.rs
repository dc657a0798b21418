//! The wire of routers.

use std::net::IpAddr;

use ipnet::IpNet;
use protocol::{Name, NetworkId, RouterId, RouterInterfaceId, SubnetId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::{FieldError, Labels, LabelsPatch, not_null, validate_labels};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRouter {
    /// Unique in the project.
    pub name: Name,
    #[serde(default)]
    pub labels: Labels,
    /// Whether it leads out of the cloud; true unless given. Floating IPs need that.
    #[serde(default = "yes")]
    pub external: bool,
}

const fn yes() -> bool {
    true
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRouter {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub external: Option<bool>,
    /// All static routes that the router shall have; at most 100.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_items = 100)]
    pub routes: Option<Vec<StaticRoute>>,
}

/// Where a router shall stand, or no longer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterSubnet {
    /// Name or id of a subnet of this project.
    pub subnet: String,
}

/// What leads from subnet to subnet.
#[derive(Debug, Serialize, ToSchema)]
pub struct Router {
    pub id: RouterId,
    pub name: String,
    pub labels: Labels,
    /// Whether it leads out of the cloud.
    pub external: bool,
    /// Where it stands, oldest first.
    pub interfaces: Vec<RouterInterface>,
    /// Where it sends what is for none of its subnets, by destination.
    pub routes: Vec<StaticRoute>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Where a router stands in a subnet.
#[derive(Debug, Serialize, ToSchema)]
pub struct RouterInterface {
    pub id: RouterInterfaceId,
    pub network_id: NetworkId,
    pub subnet_id: SubnetId,
    /// The gateway address of the subnet.
    #[schema(value_type = String)]
    pub address: IpAddr,
    pub mac_address: String,
}

/// Packets for `destination` go to `next_hop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticRoute {
    /// A range that is in no subnet of the router.
    #[schema(value_type = String, example = "192.168.0.0/16")]
    pub destination: IpNet,
    /// An address in a subnet that the router stands in.
    #[schema(value_type = String, example = "10.0.0.9")]
    pub next_hop: IpAddr,
}

/// What labels break.
pub(super) fn validate(labels: &Labels) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_labels(labels, &mut errors);
    errors
}
