//! The wire of drift. Only operators see it.

use protocol::agent::DriftCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::instances::Reference;

/// The query of the list of differences.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DriftQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub cursor: Option<String>,
    /// Only what differs on the host with this name or id.
    pub host: Option<String>,
    /// Only differences with this code.
    #[param(schema_with = codes)]
    pub code: Option<String>,
    /// Only what is about this kind of thing.
    #[param(inline)]
    pub kind: Option<DriftKind>,
}

/// What a difference may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// The host as a whole.
    Host,
    Instance,
    Port,
    Network,
    Router,
    SecurityGroup,
}

impl DriftKind {
    pub(super) const ALL: [Self; 6] =
        [Self::Host, Self::Instance, Self::Port, Self::Network, Self::Router, Self::SecurityGroup];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Instance => "instance",
            Self::Port => "port",
            Self::Network => "network",
            Self::Router => "router",
            Self::SecurityGroup => "security_group",
        }
    }
}

/// Something on a host that is not as wanted: its agent has seen it in two looks in a row, and in each since.
#[derive(Debug, Serialize, ToSchema)]
pub struct Drift {
    pub id: Uuid,
    pub host: Reference,
    /// What kind of difference it is; stable. The guide for operators lists them.
    #[schema(example = "instance_file_missing")]
    pub code: String,
    pub about: DriftAbout,
    /// What is wrong or to be done, in the words of the agent.
    pub detail: String,
    /// What mends it, and who: the agent by itself, or an operator.
    pub repair: String,
    /// Since when the control plane knows of it.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When it was last seen. To within five minutes.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
}

/// What a difference is about.
#[derive(Debug, Serialize, ToSchema)]
pub struct DriftAbout {
    pub kind: DriftKind,
    /// Of the host itself if `kind` is `host`. It may be of something that is not there any more.
    pub id: Uuid,
    /// Absent if the control plane knows of no such thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whose it is; absent of hosts, and of what is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<Reference>,
}

/// The codes that a filter may name.
fn codes() -> Object {
    let names = DriftCode::ALL.map(DriftCode::as_str);
    let codes = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
    codes.description(Some("Only differences with this code.")).build()
}
