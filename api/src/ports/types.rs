//! The wire of ports.

use std::net::IpAddr;

use ipnet::IpNet;
use protocol::{MacAddress, Name, PortId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::model::PortStatus;
use crate::http::{FieldError, Labels, LabelsPatch, not_null, validate_labels};
use crate::instances::Reference;

const MAX_ADDRESSES: usize = 16;
const MAX_PAIRS: usize = 16;
const MAX_GROUPS: usize = 16;
const RESERVED: &str = "02:62:…, 02:63:…, 02:72:… and fe:… are those of the hosts' own devices";

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePort {
    pub name: Name,
    /// Name or id of a network of this project.
    #[schema(example = "default")]
    pub network: String,
    /// Random (`52:54:00:…`) unless given.
    #[schema(value_type = Option<String>, example = "52:54:00:12:34:56")]
    pub mac: Option<MacAddress>,
    /// At most one in each subnet. Unless given: one of IPv4 and one of IPv6, as far as the network has such
    /// subnets.
    #[schema(max_items = 16)]
    pub addresses: Option<Vec<WantedAddress>>,
    /// Further sources that its guest may send from; at most 16.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Names or ids; the project's default group unless given, at most 16.
    #[schema(max_items = 16)]
    pub security_groups: Option<Vec<String>>,
    #[serde(default)]
    pub labels: Labels,
}

/// A subnet, an address of one, or both.
#[derive(Debug, Default, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedAddress {
    /// Name or id of a subnet of the network.
    pub subnet: Option<String>,
    /// A free one of the subnet unless given. It need not be in the subnet's allocation ranges.
    #[schema(value_type = Option<String>, format = "ip")]
    pub address: Option<IpAddr>,
}

/// A source that the guest may send from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressPair {
    #[schema(value_type = String, example = "10.0.0.100/32")]
    pub cidr: IpNet,
    /// The port's own unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddress>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePort {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// In place of those before.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_items = 16)]
    pub allowed_address_pairs: Option<Vec<AddressPair>>,
    /// In place of those before.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_items = 16)]
    pub security_groups: Option<Vec<String>>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Port {
    pub id: PortId,
    pub name: String,
    pub labels: Labels,
    pub network: Reference,
    #[schema(value_type = String)]
    pub mac: MacAddress,
    /// The first is the primary one.
    pub addresses: Vec<PortAddress>,
    pub allowed_address_pairs: Vec<AddressPair>,
    pub security_groups: Vec<Reference>,
    /// The instance whose card it is, or was as far as its host has said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Reference>,
    /// Whether it was made with its instance and goes with it.
    pub owned_by_instance: bool,
    /// Its name in the network's DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "web.shop.internal")]
    pub dns_name: Option<String>,
    pub status: PortStatus,
    /// The status in words, if there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_detail: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PortAddress {
    pub subnet: Reference,
    #[schema(value_type = String, format = "ip")]
    pub address: IpAddr,
}

/// The query of a list of ports.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PortQuery {
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
    /// Only ports of the network with this name or id.
    pub network: Option<String>,
    /// Only ports of the instance with this name or id.
    pub instance: Option<String>,
}

impl CreatePort {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_labels(&self.labels, &mut errors);
        let addresses = self.addresses.as_deref().unwrap_or_default();
        if addresses.len() > MAX_ADDRESSES {
            let message = format!("at most {MAX_ADDRESSES} addresses");
            errors.push(FieldError::new("/addresses", "too_many", message));
        }
        for (index, wanted) in addresses.iter().enumerate() {
            if wanted.subnet.is_none() && wanted.address.is_none() {
                let message = "a subnet, an address, or both";
                errors.push(FieldError::new(format!("/addresses/{index}"), "missing", message));
            }
        }
        if self.mac.is_some_and(is_reserved) {
            errors.push(FieldError::new("/mac", "reserved", RESERVED));
        }
        validate_pairs(&self.allowed_address_pairs, &mut errors);
        validate_groups(self.security_groups.as_deref(), "/security_groups", &mut errors);
        errors
    }
}

impl UpdatePort {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_pairs(self.allowed_address_pairs.as_deref().unwrap_or_default(), &mut errors);
        validate_groups(self.security_groups.as_deref(), "/security_groups", &mut errors);
        errors
    }
}

pub(super) fn validate_groups(groups: Option<&[String]>, pointer: &str, errors: &mut Vec<FieldError>) {
    if groups.is_some_and(|groups| groups.len() > MAX_GROUPS) {
        let message = format!("at most {MAX_GROUPS} security groups");
        errors.push(FieldError::new(pointer, "too_many", message));
    }
}

/// Whether bridges, services or routers have such addresses on every host, or taps: those are their guests' with 0xfe in
/// front, and libvirt takes no other card of that kind.
fn is_reserved(mac: MacAddress) -> bool {
    matches!(mac.bytes(), [0x02, 0x62 | 0x63 | 0x72, ..] | [0xfe, ..])
}

fn validate_pairs(pairs: &[AddressPair], errors: &mut Vec<FieldError>) {
    if pairs.len() > MAX_PAIRS {
        let message = format!("at most {MAX_PAIRS} pairs");
        errors.push(FieldError::new("/allowed_address_pairs", "too_many", message));
    }
    for (index, pair) in pairs.iter().enumerate() {
        let mut wrong = |field: &str, code, message: String| {
            let pointer = format!("/allowed_address_pairs/{index}{field}");
            errors.push(FieldError::new(pointer, code, message));
        };
        if pair.cidr.addr() != pair.cidr.network() {
            let message = format!("bits behind the prefix are set; write {}", pair.cidr.trunc());
            wrong("/cidr", "host_bits", message);
        }
        if pair.mac.is_some_and(is_reserved) {
            wrong("/mac", "reserved", RESERVED.to_owned());
        }
        if pairs[..index].contains(pair) {
            wrong("", "duplicate", "each pair once".to_owned());
        }
    }
}
