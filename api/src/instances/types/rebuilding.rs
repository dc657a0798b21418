//! The wire of rebuilds and rescues.

use serde::Deserialize;
use utoipa::ToSchema;

use super::StopInstance;
use crate::http::FieldError;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RebuildInstance {
    /// The image that its disk is made from anew: name or id of one of this project; of a shared or public one of
    /// another project its id, or `project/name`. The present one unless given.
    #[schema(example = "cumulo-test")]
    pub image: Option<String>,
    /// Cut the power at once when it has to go down.
    #[serde(default)]
    pub force: bool,
    /// How long the guest may take to shut down before its power is cut; 60 unless given.
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_seconds: Option<u32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RescueInstance {
    /// The image that it boots from meanwhile, named as for a creation.
    #[schema(example = "cumulo-test")]
    pub image: String,
    /// Cut the power at once when it has to go down.
    #[serde(default)]
    pub force: bool,
    /// How long the guest may take to shut down before its power is cut; 60 unless given.
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_seconds: Option<u32>,
}

impl RebuildInstance {
    /// How the guest goes down if it has to.
    pub(in crate::instances) const fn stop(&self) -> StopInstance {
        StopInstance { force: self.force, timeout_seconds: self.timeout_seconds }
    }

    pub(in crate::instances) fn validate(&self) -> Vec<FieldError> {
        self.stop().validate()
    }
}

impl RescueInstance {
    /// How the guest goes down if it has to.
    pub(in crate::instances) const fn stop(&self) -> StopInstance {
        StopInstance { force: self.force, timeout_seconds: self.timeout_seconds }
    }

    pub(in crate::instances) fn validate(&self) -> Vec<FieldError> {
        self.stop().validate()
    }
}
