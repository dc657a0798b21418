//! The wire of migrations, live and cold.

use protocol::agent::MAX_DOWNTIME_MS;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::FieldError;

/// What a guest stands still at the end, unless another time is given.
const DOWNTIME_MS: u32 = 300;
/// Less than that no network carries.
const LEAST_DOWNTIME_MS: u32 = 10;

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveInstance {
    /// Name or id of the host that it shall go to; the best one unless given.
    #[schema(example = "host-2")]
    pub host: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateInstance {
    /// Name or id of the host that it shall go to; the best one unless given.
    #[schema(example = "host-2")]
    pub host: Option<String>,
    /// How long its guest may stand still while the last of its memory is sent; 300 unless given. A guest that changes its
    /// memory faster than it is sent needs more.
    #[schema(minimum = 10, maximum = 60000)]
    pub max_downtime_ms: Option<u32>,
}

impl MigrateInstance {
    pub(in crate::instances) fn validate(&self) -> Vec<FieldError> {
        let allowed = LEAST_DOWNTIME_MS..=MAX_DOWNTIME_MS;
        let wrong = self.max_downtime_ms.is_some_and(|asked| !allowed.contains(&asked));
        let message = format!("from {LEAST_DOWNTIME_MS} to {MAX_DOWNTIME_MS}");
        wrong.then(|| FieldError::new("/max_downtime_ms", "out_of_range", message)).into_iter().collect()
    }

    pub(in crate::instances) fn max_downtime_ms(&self) -> i32 {
        i32::try_from(self.max_downtime_ms.unwrap_or(DOWNTIME_MS)).unwrap_or(i32::MAX)
    }
}
