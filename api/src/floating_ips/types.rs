//! The wire of floating IPs.

use std::net::{IpAddr, Ipv4Addr};

use protocol::{AddressPoolId, FloatingIpId, InstanceId, Name, PortId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::http::{FieldError, Labels, LabelsPatch, not_null, validate_labels};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFloatingIp {
    /// Unique in the project.
    pub name: Name,
    #[serde(default)]
    pub labels: Labels,
    /// Name or id of an address pool. May be left out while there is but one.
    pub address_pool: Option<String>,
    /// A certain address of the pool; unless given, the lowest that is free.
    #[schema(value_type = Option<String>, example = "203.0.113.10")]
    pub address: Option<Ipv4Addr>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateFloatingIp {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

/// What a floating IP shall stand for: exactly one of `port` and `instance`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssociateFloatingIp {
    /// Name or id of a port of this project.
    pub port: Option<String>,
    /// Name or id of an instance of this project; its first port is meant.
    pub instance: Option<String>,
    /// Which IPv4 address of the port; unless given, its primary one.
    #[schema(value_type = Option<String>, example = "10.0.0.7")]
    pub fixed_address: Option<Ipv4Addr>,
}

/// A public address.
#[derive(Debug, Serialize, ToSchema)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub name: String,
    pub labels: Labels,
    #[schema(value_type = String)]
    pub address: IpAddr,
    pub address_pool_id: AddressPoolId,
    /// The port that it stands for, if it stands for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_id: Option<PortId>,
    /// Which address of the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub fixed_address: Option<IpAddr>,
    /// The instance that has the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What labels break.
pub(super) fn validate(labels: &Labels) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_labels(labels, &mut errors);
    errors
}
