//! The wire of security groups.

use ipnet::IpNet;
use protocol::agent::Direction;
use protocol::{Name, SecurityGroupId, SecurityGroupRuleId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::model;
use crate::http::{FieldError, Labels, LabelsPatch, not_null, validate_description, validate_labels};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSecurityGroup {
    /// Unique in the project.
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    #[serde(default)]
    pub labels: Labels,
    /// At most 100. Without rules, ports of the group reach nobody and nobody reaches them.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub rules: Vec<CreateSecurityGroupRule>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are. Rules have calls of their own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSecurityGroup {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// A label that is `null` is removed.
    #[serde(default)]
    pub labels: LabelsPatch,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceSecurityGroupRules {
    /// All rules that the group shall have; at most 100.
    #[schema(max_items = 100)]
    pub rules: Vec<CreateSecurityGroupRule>,
}

/// What may pass. Exactly one of `remote_cidr` and `remote_group` says who is at the other end.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSecurityGroupRule {
    /// `ingress` is to the instance, `egress` from it.
    pub direction: Direction,
    /// `any` unless given.
    #[serde(default)]
    pub protocol: Protocol,
    /// For `tcp` and `udp`: the first port at the destination. Without ports, all of them.
    #[schema(maximum = 65535)]
    pub port_first: Option<u16>,
    /// The last port, included; `port_first` unless given.
    #[schema(maximum = 65535)]
    pub port_last: Option<u16>,
    /// For `icmp`: the type, of ICMP where the other end is IPv4 and of ICMPv6 where it is IPv6. Without a type,
    /// all of them.
    #[schema(maximum = 255)]
    pub icmp_type: Option<u8>,
    /// The code within the type. Without a code, all of them.
    #[schema(maximum = 255)]
    pub icmp_code: Option<u8>,
    /// A range of IPv4 or IPv6 addresses; `0.0.0.0/0` and `::/0` are everybody.
    #[schema(value_type = Option<String>, example = "203.0.113.0/24")]
    pub remote_cidr: Option<IpNet>,
    /// Name or id of a security group of this project: all ports in it. It may be this group itself.
    pub remote_group: Option<String>,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
}

/// A protocol by its name, or any other by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "any, tcp, udp, icmp, or the number of an IP protocol from 0 to 255")]
pub enum Protocol {
    Named(NamedProtocol),
    Number(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamedProtocol {
    Any,
    Tcp,
    Udp,
    /// ICMP and, with IPv6, ICMPv6.
    Icmp,
}

impl Default for Protocol {
    fn default() -> Self {
        Self::Named(NamedProtocol::Any)
    }
}

/// A security group.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub name: String,
    pub description: String,
    pub labels: Labels,
    /// Whether ports that ask for no group are put into this one.
    pub is_default: bool,
    /// Oldest first.
    pub rules: Vec<SecurityGroupRule>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What may pass.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecurityGroupRule {
    pub id: SecurityGroupRuleId,
    pub direction: Direction,
    pub protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_first: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_last: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remote_cidr: Option<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_group_id: Option<SecurityGroupId>,
    pub description: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl CreateSecurityGroup {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = validate(&self.description, &self.labels);
        model::validate_rules(&self.rules, &mut errors);
        errors
    }
}

impl ReplaceSecurityGroupRules {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        model::validate_rules(&self.rules, &mut errors);
        errors
    }
}

/// What description and labels break.
pub(super) fn validate(description: &str, labels: &Labels) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_description(description, &mut errors);
    validate_labels(labels, &mut errors);
    errors
}
