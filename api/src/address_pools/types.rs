//! The wire of address pools.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use protocol::{AddressPoolId, Name};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::model::{self, Range};
use crate::http::{ApiError, FieldError, not_null, validate_description};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAddressPool {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// An IPv4 range that reaches the hosts. No two pools overlap.
    #[schema(value_type = String, example = "203.0.113.0/24")]
    pub cidr: IpNet,
    /// The first address that is given out; unless given, the first that is not the network's own.
    #[schema(value_type = Option<String>, example = "203.0.113.10")]
    pub first_address: Option<Ipv4Addr>,
    /// The last address that is given out; unless given, the last that is not the broadcast address.
    #[schema(value_type = Option<String>, example = "203.0.113.250")]
    pub last_address: Option<Ipv4Addr>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateAddressPool {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String)]
    pub first_address: Option<Ipv4Addr>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String)]
    pub last_address: Option<Ipv4Addr>,
}

/// Public addresses that the operator gives out.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddressPool {
    pub id: AddressPoolId,
    pub name: String,
    pub description: String,
    #[schema(value_type = String)]
    pub cidr: IpNet,
    #[schema(value_type = String)]
    pub first_address: IpAddr,
    #[schema(value_type = String)]
    pub last_address: IpAddr,
    pub addresses: AddressUsage,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// How many addresses of a pool there are and are used.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddressUsage {
    /// From the first to the last address.
    pub total: i64,
    /// Floating IPs of all projects.
    pub given: i64,
}

impl CreateAddressPool {
    /// The checked range and what of it is given out.
    ///
    /// # Errors
    /// `validation_failed` with all wrong fields.
    pub(super) fn checked(&self) -> Result<(Ipv4Net, Range), ApiError> {
        let mut errors = Vec::new();
        validate_description(&self.description, &mut errors);
        let checked = model::check_cidr(self.cidr, &mut errors)
            .map(|cidr| (cidr, Range::checked(cidr, self.first_address, self.last_address, &mut errors)));
        ApiError::reject(errors)?;
        checked.ok_or_else(|| ApiError::invalid(vec![FieldError::new("/cidr", "invalid", "not IPv4")]))
    }
}
