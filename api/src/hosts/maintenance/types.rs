//! The wire of maintenance. Only operators see it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::hosts::types::Host;
use crate::http::FieldError;
use crate::instances::Reference;
use crate::instances::evacuation::EvacuationWay;

const DEFAULT_TIMEOUT_SECONDS: u32 = 60;

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainHost {
    /// Whether running instances that cannot go as they run are shut down, started on another host and so interrupted.
    /// Without it they stay, and so does what is paused in any case.
    #[serde(default)]
    pub stop_running: bool,
    /// How long each guest may take to shut down before its power is cut; 60 unless given.
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_seconds: Option<u32>,
}

impl DrainHost {
    pub(super) fn validate(&self) -> Vec<FieldError> {
        let wrong = self.timeout_seconds.is_some_and(|seconds| !(1..=3600).contains(&seconds));
        let error = || FieldError::new("/timeout_seconds", "out_of_range", "from 1 to 3600");
        wrong.then(error).into_iter().collect()
    }

    pub(super) fn timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS).cast_signed()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaintenanceState {
    None,
    /// It is being emptied, as far as that is possible.
    Draining,
    /// No instance is on it, and no guest that the cloud does not know.
    Drained,
    /// What was shut down to be moved is being started again where it is.
    Ending,
}

/// As `maintenance_of()` of the database gives it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostMaintenance {
    pub state: MaintenanceState,
    /// Whether running instances that cannot go as they run are shut down for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_running: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// Whether the host takes instances again when this ends: it was cordoned for this alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncordons: Option<bool>,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<OffsetDateTime>,
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub drained_at: Option<OffsetDateTime>,
    /// Instances that were there since it began.
    pub instances: i64,
    /// How many of them are gone.
    pub left: i64,
    /// What keeps the host from being drained although it is nobody's instance: guests that the cloud does not know, with what to
    /// do. Of a host in maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_guests: Option<String>,
    /// The first 20 of those that are not; all of them are listed by `/v1/hosts/{host}/evacuations`.
    pub remaining: Vec<Evacuation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvacuationPhase {
    /// Its turn comes, or what `message` says has to pass.
    Waiting,
    /// It cannot leave; `message` says why. It is looked at again every few seconds.
    Stays,
    /// Its guest is shutting down.
    Stopping,
    /// Another host has taken it, and makes it what it is to be.
    Moving,
    /// It is gone, or on another host.
    Left,
}

/// An instance that a host in maintenance has, or had when that began.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Evacuation {
    pub instance: Reference,
    /// The name of its project.
    pub project: String,
    pub phase: EvacuationPhase,
    /// How it leaves; absent while it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<EvacuationWay>,
    /// Why it stays or waits: `running`, `busy`, `paused`, `local_volume`, `merging`, `no_room`, `not_confirmed`,
    /// `host_silent`, `being_deleted` or `arriving`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same in words, with what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What is done with a host, and with each instance there.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostDrain {
    pub host: Host,
    /// What becomes of each instance, as it looks now; at most 500 of them.
    pub evacuations: Vec<Evacuation>,
    /// Whether there are more.
    pub more: bool,
}

/// The query of a list of evacuations.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EvacuationQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    pub cursor: Option<String>,
    /// Only those in this phase.
    #[param(inline)]
    pub phase: Option<EvacuationPhase>,
}

impl EvacuationPhase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Stays => "stays",
            Self::Stopping => "stopping",
            Self::Moving => "moving",
            Self::Left => "left",
        }
    }
}
