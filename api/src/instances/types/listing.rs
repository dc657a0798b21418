//! The wire of lists of instances.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Instance, Reference};
use crate::instances::model::InstanceState;

/// The query of a list of instances.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InstanceQuery {
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
    /// Only instances in this state.
    #[param(inline)]
    pub state: Option<InstanceState>,
}

/// The query of a list of the instances of all projects.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CloudInstanceQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub cursor: Option<String>,
    /// Only instances of this name.
    pub name: Option<String>,
    /// Only instances in this state.
    #[param(inline)]
    pub state: Option<InstanceState>,
    /// Only instances of the project with this name or id.
    pub project: Option<String>,
    /// Only instances on the host with this name or id. Needs `host:ListHosts` in the cloud.
    pub host: Option<String>,
}

/// An instance of any project.
#[derive(Debug, Serialize, ToSchema)]
pub struct CloudInstance {
    pub project: Reference,
    #[serde(flatten)]
    pub instance: Instance,
}
