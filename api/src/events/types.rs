//! The wire of events.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::{ApiError, ErrorCode};

const DEFAULT_LIMIT: u16 = 50;
const MAX_LIMIT: u16 = 500;

/// Something that happened.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Event {
    /// Its place in the log: 1, 2, 3 … without a gap.
    pub position: i64,
    /// What kind of resource it is about.
    #[schema(example = "instance")]
    pub kind: String,
    /// `created`; `updated`, by its owner; `state`, by itself or its host; `deleted`.
    #[schema(example = "state")]
    pub change: String,
    pub resource_id: Uuid,
    /// Its name at that time; of an operation, what it does.
    #[schema(example = "web")]
    pub resource_name: String,
    /// The newest request that asked for something of it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
    /// When it was written into the log, a moment after it happened. Never earlier than the event before.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// One message of a stream, as clients of Server-Sent Events see it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a shape; the stream is written by axum")]
pub struct EventMessage {
    /// The position of the event; sent back as `Last-Event-ID` when a client comes again.
    id: String,
    /// An `Event`, as JSON.
    data: String,
}

/// Events in the order in which they happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    pub items: Vec<Event>,
    /// Where to go on: give it as `after`.
    pub last_position: i64,
    /// Position of the oldest event that is kept.
    pub oldest: i64,
    /// Position of the newest event. To follow resources: read this, list them, and go on `after` it.
    pub head: i64,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Only events after this position; from the oldest that is kept unless given.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Events per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// Wait for an event, at most this many seconds, if there is none yet.
    #[serde(default)]
    #[param(maximum = 300)]
    pub wait: u16,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// Only events after this position; from the oldest that is kept unless given. The header
    /// `Last-Event-ID` comes before it.
    #[param(minimum = 0)]
    after: Option<i64>,
}

impl PageQuery {
    pub(super) fn after(&self) -> Result<Option<i64>, ApiError> {
        checked(self.after)
    }

    pub(super) fn limit(&self) -> Result<i64, ApiError> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit.into()),
            _ => Err(ApiError::because(ErrorCode::InvalidQuery, "limit: from 1 to 500")),
        }
    }
}

impl StreamQuery {
    pub(super) fn after(&self) -> Result<Option<i64>, ApiError> {
        checked(self.after)
    }
}

fn checked(after: Option<i64>) -> Result<Option<i64>, ApiError> {
    match after {
        Some(..0) => Err(ApiError::because(ErrorCode::InvalidQuery, "after: a position, from 0")),
        after => Ok(after),
    }
}
