//! The wire of deeds to several instances at once.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::verbs::Verb;
use super::{OperationSummary, Reference, StopInstance};
use crate::http::FieldError;

/// The most instances of one call.
pub(in crate::instances) const MAX_INSTANCES: usize = 100;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActOnInstances {
    pub action: Verb,
    /// All instances with these labels: `tier=web,stage!=test,owner`. At most 100 may have them.
    #[schema(example = "tier=web,stage!=test", min_length = 1)]
    pub label_selector: Option<String>,
    /// These instances, by name or id; at most 100. Either this or `label_selector`.
    #[schema(min_items = 1, max_items = 100)]
    pub instances: Option<Vec<String>>,
    /// For `stop` and `reboot`: cut the power at once.
    #[serde(default)]
    pub force: bool,
    /// For `stop` and `reboot`: how long a guest may take to shut down before its power is cut; 60 unless given.
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_seconds: Option<u32>,
}

impl ActOnInstances {
    pub(in crate::instances) fn validate(&self) -> Vec<FieldError> {
        let mut errors = self.stop().validate();
        let selector = self.label_selector.as_deref();
        match (selector, &self.instances) {
            (None, None) | (Some(_), Some(_)) => {
                let message = "either a label selector or a list of instances";
                errors.push(FieldError::new("/label_selector", "invalid", message));
            }
            (Some(selector), None) if selector.trim_matches([',', ' ']).is_empty() => {
                let message = "at least one term; it would mean all instances of the project";
                errors.push(FieldError::new("/label_selector", "invalid", message));
            }
            (None, Some(named)) if named.is_empty() || named.len() > MAX_INSTANCES => {
                let message = format!("from 1 to {MAX_INSTANCES} instances");
                errors.push(FieldError::new("/instances", "invalid", message));
            }
            _ => {}
        }
        if (self.force || self.timeout_seconds.is_some()) && !matches!(self.action, Verb::Stop | Verb::Reboot)
        {
            let message = "only for `stop` and `reboot`";
            errors.push(FieldError::new("/action", "invalid", message));
        }
        errors
    }

    /// How guests go down.
    pub(in crate::instances) const fn stop(&self) -> StopInstance {
        StopInstance { force: self.force, timeout_seconds: self.timeout_seconds }
    }
}

/// What became of a call for several instances.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceActions {
    /// Each instance once, oldest first.
    pub items: Vec<InstanceAction>,
}

/// What became of it for one of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceAction {
    pub instance: Reference,
    /// The operation, if it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationSummary>,
    /// Why not, otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<InstanceActionError>,
}

/// A problem, without the parts that belong to an HTTP answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceActionError {
    #[schema(example = "wrong_state")]
    pub code: &'static str,
    pub detail: String,
}
