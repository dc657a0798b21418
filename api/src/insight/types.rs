//! The wire of metrics and of what guests say.

use std::collections::BTreeMap;

use protocol::agent::{GuestFilesystem, GuestInterface, GuestOs};
use protocol::{InstanceId, PortId, VolumeId};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};

use super::history::Window;
use crate::http::{ApiError, ErrorCode};

/// The most points of one answer.
const MAX_POINTS: i64 = 1000;
/// Points that one gets without asking for a step.
const USUAL_POINTS: i64 = 240;
/// As often as hosts measure.
const SHORTEST_STEP: i64 = 15;
const LONGEST_STEP: i64 = 3600;

/// The query of what Prometheus scrapes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExposedQuery {
    /// Only instances with these labels: `tier=web,stage!=test,owner`.
    #[param(
        pattern = "^((!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63})(,(!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63}))*)?$"
    )]
    pub label_selector: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MetricsQuery {
    /// From this time on, an hour before `to` unless given. Hosts' measurements are kept for three hours.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<OffsetDateTime>,
    /// Until before this time; until now unless given.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<OffsetDateTime>,
    /// One point for so many seconds; such that there are at most 240 points unless given. At most 1000 points.
    #[param(minimum = 15, maximum = 3600)]
    pub step_seconds: Option<i64>,
}

impl MetricsQuery {
    pub(super) fn window(&self, now: OffsetDateTime) -> Result<Window, ApiError> {
        let wrong = |why: &str| ApiError::because(ErrorCode::InvalidQuery, why.to_owned());
        let to = self.to.unwrap_or(now);
        let from = match self.from {
            Some(from) => from,
            None => to.checked_sub(Duration::HOUR).ok_or_else(|| wrong("to: too early"))?,
        };
        if from >= to {
            return Err(wrong("from: must be before `to`, which is now unless given"));
        }
        let seconds = (to - from).whole_seconds().max(1);
        let step = match self.step_seconds {
            Some(step) if !(SHORTEST_STEP..=LONGEST_STEP).contains(&step) => {
                return Err(wrong("step_seconds: from 15 to 3600"));
            }
            Some(step) if seconds / step > MAX_POINTS => {
                return Err(wrong(
                    "step_seconds: that would be more than 1000 points; take a longer step, or less time",
                ));
            }
            Some(step) => step,
            None => {
                let wanted = (seconds + USUAL_POINTS - 1) / USUAL_POINTS;
                let step = (wanted + SHORTEST_STEP - 1) / SHORTEST_STEP * SHORTEST_STEP;
                if step > LONGEST_STEP {
                    return Err(wrong("from: there is nothing from so long ago; take less time"));
                }
                step
            }
        };
        Ok(Window { from, to, step })
    }
}

/// What was measured of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceMetrics {
    pub instance_id: InstanceId,
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub to: OffsetDateTime,
    pub step_seconds: i64,
    /// Oldest first. Where nothing was measured there is none.
    pub items: Vec<MetricsPoint>,
}

/// What was measured in one step. Rates are averages over it and absent where two measurements of one start are
/// missing, as just after a boot; memory is as it was last.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MetricsPoint {
    /// When the step begins.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub vcpus: u32,
    /// Of all its virtual CPUs together, from 0 to 100; a little more when its host works for it, too.
    pub cpu_percent: Option<f64>,
    /// What the guest uses and could not give up; absent without a balloon driver in the guest.
    pub memory_used_bytes: Option<u64>,
    /// What the guest could use without swapping; absent without a balloon driver in the guest.
    pub memory_available_bytes: Option<u64>,
    /// What the guest has been given.
    pub memory_size_bytes: Option<u64>,
    /// What it takes of its host's memory.
    pub memory_resident_bytes: Option<u64>,
    /// Of all volumes together.
    #[serde(flatten)]
    pub disk: DiskRates,
    /// Of all ports together.
    #[serde(flatten)]
    pub network: NetworkRates,
    pub volumes: Vec<VolumeMetrics>,
    pub ports: Vec<PortMetrics>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct DiskRates {
    pub read_bytes_per_second: Option<f64>,
    pub written_bytes_per_second: Option<f64>,
    pub read_requests_per_second: Option<f64>,
    pub write_requests_per_second: Option<f64>,
}

/// As the guest sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct NetworkRates {
    pub received_bytes_per_second: Option<f64>,
    pub sent_bytes_per_second: Option<f64>,
    pub received_packets_per_second: Option<f64>,
    pub sent_packets_per_second: Option<f64>,
    pub received_drops_per_second: Option<f64>,
    pub sent_drops_per_second: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct VolumeMetrics {
    pub volume_id: VolumeId,
    #[serde(flatten)]
    pub rates: DiskRates,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PortMetrics {
    pub port_id: PortId,
    #[serde(flatten)]
    pub rates: NetworkRates,
}

/// Whether the agent in a guest (`qemu-guest-agent`) tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuestAgentState {
    Answering,
    /// The instance does not run.
    NotRunning,
    /// It runs, and its host has not asked yet.
    NotAsked,
    /// No agent listens in the guest.
    NoAgent,
    /// An agent listens, and gave no answer in time, or none that can be read.
    NotAnswering,
}

/// What a guest says of itself. Nothing of it is checked: whoever rules the guest may say what they like.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceGuest {
    pub instance_id: InstanceId,
    pub agent: GuestAgentState,
    /// Why nothing newer is known, and what helps; absent while the agent answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'static str>,
    /// When its host asked it last.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<OffsetDateTime>,
    /// When it said what follows.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<GuestOs>,
    /// Like `CET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Of its time zone, east of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utc_offset_seconds: Option<i32>,
    /// How far its clock is ahead of its host's; negative when it is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// At most 64.
    pub interfaces: Vec<GuestInterface>,
    /// Those that are mounted; at most 64.
    pub filesystems: Vec<GuestFilesystem>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScrapeQuery {
    /// Which address of an instance: `private`, its first in its first network, or `public`, its floating IP.
    #[serde(default)]
    #[param(inline)]
    pub address: AddressKind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AddressKind {
    #[default]
    Private,
    Public,
}

/// Something for Prometheus to scrape, as `http_sd_config` wants it.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ScrapeTarget {
    /// Address and port.
    #[schema(example = json!(["10.0.0.5:9100"]))]
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}
