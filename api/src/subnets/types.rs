//! The wire of subnets.

use std::net::IpAddr;

use ipnet::IpNet;
use protocol::{Name, SubnetId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::http::{Labels, LabelsPatch, not_null, nullable};
use crate::instances::Reference;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubnet {
    pub name: Name,
    /// Name or id of a network of this project.
    #[schema(example = "default")]
    pub network: String,
    /// An IPv4 prefix from /8 to /29 or an IPv6 prefix from /64 to /124, apart from the network's other subnets.
    #[schema(value_type = String, example = "10.0.0.0/24")]
    pub cidr: IpNet,
    /// Where a router stands when one is attached; the first address unless given. `null`: no router ever.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = "ip")]
    pub gateway: Option<Option<IpAddr>>,
    /// Where DHCP, DNS and metadata answer; the address after the gateway's unless given.
    #[schema(value_type = Option<String>, format = "ip")]
    pub service_address: Option<IpAddr>,
    /// Which addresses ports get automatically; all but the gateway and the service address unless given. At
    /// most 16.
    #[schema(max_items = 16)]
    pub allocation_ranges: Option<Vec<AddressRange>>,
    /// Resolvers for names outside the cloud; those of the host unless given. At most 3.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 3)]
    pub dns_servers: Vec<IpAddr>,
    /// Whether guests are told their addresses by DHCP; true unless given.
    #[serde(default = "yes")]
    pub dhcp: bool,
    #[serde(default)]
    pub labels: Labels,
}

const fn yes() -> bool {
    true
}

/// Both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressRange {
    #[schema(value_type = String, format = "ip", example = "10.0.0.100")]
    pub first: IpAddr,
    #[schema(value_type = String, format = "ip", example = "10.0.0.199")]
    pub last: IpAddr,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSubnet {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// In place of those before.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Vec<String>, nullable = false, max_items = 3)]
    pub dns_servers: Option<Vec<IpAddr>>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Subnet {
    pub id: SubnetId,
    pub name: String,
    pub labels: Labels,
    pub network: Reference,
    #[schema(value_type = String)]
    pub cidr: IpNet,
    /// Where a router stands when one is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "ip")]
    pub gateway: Option<IpAddr>,
    /// Where DHCP, DNS and metadata answer.
    #[schema(value_type = String, format = "ip")]
    pub service_address: IpAddr,
    pub allocation_ranges: Vec<AddressRange>,
    #[schema(value_type = Vec<String>)]
    pub dns_servers: Vec<IpAddr>,
    pub dhcp: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The query of a list of subnets.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubnetQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub cursor: Option<String>,
    /// Only the resource of this name.
    pub name: Option<String>,
    /// Only resources with these labels: `tier=web,stage!=test,owner`.
    #[param(
        pattern = "^((!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63})(,(!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63}))*)?$"
    )]
    pub label_selector: Option<String>,
    /// Only subnets of the network with this name or id.
    pub network: Option<String>,
}
