//! Placement groups: instances that go together or stay apart.

use std::collections::BTreeMap;

use protocol::HostId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::fleet::{Candidate, Fleet};
use super::request::Request;

/// Whether the instances of a group seek each other's company.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupPolicy {
    /// They go together.
    Affinity,
    /// They stay apart.
    AntiAffinity,
}

/// Whether the rule of a group may be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// Never: an instance rather waits.
    Hard,
    /// Only when nothing else fits.
    Soft,
}

/// What instances share or do not share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Host,
    Rack,
    Zone,
}

impl Scope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Rack => "rack",
            Self::Zone => "zone",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Host, Self::Rack, Self::Zone].into_iter().find(|scope| scope.as_str() == name)
    }
}

impl GroupPolicy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::AntiAffinity => "anti_affinity",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Affinity, Self::AntiAffinity].into_iter().find(|policy| policy.as_str() == name)
    }
}

impl Strength {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Hard, Self::Soft].into_iter().find(|strength| strength.as_str() == name)
    }
}

/// What holds for the instances of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub policy: GroupPolicy,
    pub strength: Strength,
    pub scope: Scope,
}

/// The group of an instance, with the hosts of the others in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: Uuid,
    pub name: String,
    pub rule: Rule,
    /// One for each other instance that has a host.
    pub members: Vec<HostId>,
}

/// How many of the group are in each host, rack or zone.
#[derive(Debug, Default)]
pub struct Occupied<'a>(BTreeMap<Domain<'a>, usize>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Domain<'a> {
    Host(HostId),
    Named(&'a str),
}

impl<'a> Domain<'a> {
    fn of(candidate: &'a Candidate, scope: Scope) -> Option<Self> {
        match scope {
            Scope::Host => Some(Self::Host(candidate.id)),
            Scope::Rack => candidate.rack.as_deref().map(Self::Named),
            Scope::Zone => candidate.zone.as_deref().map(Self::Named),
        }
    }
}

impl<'a> Occupied<'a> {
    pub fn of(fleet: &'a Fleet, request: &Request) -> Self {
        let mut counts = BTreeMap::new();
        let Some(group) = &request.group else { return Self(counts) };
        for host in group.members.iter().filter_map(|id| fleet.host(*id)) {
            if let Some(domain) = Domain::of(host, group.rule.scope) {
                *counts.entry(domain).or_default() += 1;
            }
        }
        Self(counts)
    }

    /// How many of the group share this host's domain.
    pub(super) fn beside(&self, candidate: &Candidate, scope: Scope) -> usize {
        if self.0.is_empty() {
            return 0;
        }
        Domain::of(candidate, scope).and_then(|domain| self.0.get(&domain).copied()).unwrap_or_default()
    }

    /// Whether the group lets an instance onto the host.
    pub(super) fn admits(&self, candidate: &Candidate, group: &Group) -> bool {
        let Rule { policy, strength, scope } = group.rule;
        if strength == Strength::Soft {
            return true;
        }
        match policy {
            GroupPolicy::AntiAffinity => self.beside(candidate, scope) == 0,
            GroupPolicy::Affinity => self.0.is_empty() || self.beside(candidate, scope) > 0,
        }
    }
}

/// A hard rule cannot be kept on a host of which nobody has said where it stands.
pub(super) fn is_located(candidate: &Candidate, group: &Group) -> bool {
    group.rule.strength == Strength::Soft || Domain::of(candidate, group.rule.scope).is_some()
}
