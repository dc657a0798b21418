//! What a verb makes of an instance's intent. No I/O.

use protocol::agent::Power;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::model::{InstanceState, shown};
use super::store::{NewIntent, Row};
use super::types::StopInstance;
use crate::http::{ApiError, ErrorCode};

/// What is done to an instance by a word alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Start,
    Stop,
    Reboot,
    Pause,
    Resume,
    Delete,
}

impl Verb {
    /// The kind of the operation.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Start => "start_instance",
            Self::Stop => "stop_instance",
            Self::Reboot => "reboot_instance",
            Self::Pause => "pause_instance",
            Self::Resume => "resume_instance",
            Self::Delete => "delete_instance",
        }
    }

    /// The next intent, after the present one under a new operation. `stop` says how a guest goes down that has to.
    ///
    /// # Errors
    /// `wrong_state`, with what to do instead.
    pub(super) fn next(
        self,
        row: &Row,
        stop: &StopInstance,
        present: NewIntent,
    ) -> Result<NewIntent, ApiError> {
        if self == Self::Delete {
            return if row.delete_protection {
                refused("it is protected from deletion; set its `delete_protection` to false first")
            } else {
                Ok(NewIntent { deletion_requested: true, ..present })
            };
        }
        refuse_deleting(row)?;
        let state = state_of(row);
        match self {
            Self::Start => start(row, state, present),
            Self::Stop => Ok(NewIntent {
                power: Power::Stopped,
                stop_mode: stop.mode(),
                stop_timeout_seconds: stop.timeout_seconds(),
                ..present
            }),
            Self::Reboot => reboot(row, state, stop, present),
            Self::Pause => pause(state, present),
            Self::Resume => resume(row, state, present),
            Self::Delete => Ok(present),
        }
    }
}

fn start(row: &Row, state: InstanceState, present: NewIntent) -> Result<NewIntent, ApiError> {
    if !row.boots() {
        return refused("it has no volume to boot from; attach one with `root` set to true first");
    }
    let ended = matches!(state, InstanceState::Stopped | InstanceState::Stopping);
    Ok(NewIntent { power: Power::Running, boot: row.boot + i64::from(ended), ..present })
}

fn reboot(
    row: &Row,
    state: InstanceState,
    stop: &StopInstance,
    present: NewIntent,
) -> Result<NewIntent, ApiError> {
    if state == InstanceState::Stopped || row.intent().power == Power::Stopped {
        return refused("it is stopped; start it instead");
    }
    Ok(NewIntent {
        power: Power::Running,
        boot: row.boot + 1,
        stop_mode: stop.mode(),
        stop_timeout_seconds: stop.timeout_seconds(),
        ..present
    })
}

fn pause(state: InstanceState, present: NewIntent) -> Result<NewIntent, ApiError> {
    match state {
        InstanceState::Running | InstanceState::Paused => Ok(NewIntent { power: Power::Paused, ..present }),
        InstanceState::Stopped => refused("it is stopped; only a running instance can be paused"),
        _ => refused("only a running instance can be paused; wait until it runs"),
    }
}

fn resume(row: &Row, state: InstanceState, present: NewIntent) -> Result<NewIntent, ApiError> {
    match (row.intent().power, state) {
        (Power::Paused, InstanceState::Stopped) => {
            refused("what it had in memory is lost, because its guest has ended; start it instead")
        }
        (Power::Paused | Power::Running, _) if state != InstanceState::Stopped => {
            Ok(NewIntent { power: Power::Running, ..present })
        }
        _ => refused("it is stopped; start it instead"),
    }
}

/// The visible state, whether its host is heard of or not.
pub(super) fn state_of(row: &Row) -> InstanceState {
    shown(&row.intent(), row.observed().as_ref(), true, false).0
}

/// Refuses to change the intent of an instance that is on its way out.
pub(super) fn refuse_deleting(row: &Row) -> Result<(), ApiError> {
    match row.deletion_requested_at {
        Some(_) => Err(ApiError::because(ErrorCode::WrongState, "it is being deleted")),
        None => Ok(()),
    }
}

fn refused<T>(why: &'static str) -> Result<T, ApiError> {
    Err(ApiError::because(ErrorCode::WrongState, why))
}
