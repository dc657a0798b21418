//! The rules of an instance's life. No I/O.

use protocol::agent::{EndReason, ObservedState, PauseReason, Power};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the owner wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intent {
    pub generation: i64,
    pub power: Power,
    /// Counts the starts that were asked for.
    pub boot: i64,
    pub deletion_requested: bool,
    pub placed: bool,
}

/// What the host saw last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observed {
    pub generation: i64,
    pub boot: i64,
    pub state: ObservedState,
    /// Why its guest stands still.
    pub paused: Option<PauseReason>,
}

/// What the user sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Waiting for a host.
    Pending,
    /// A host is making or starting it.
    Provisioning,
    Running,
    /// Its guest stands still, with all that it has in memory.
    Paused,
    /// Going down.
    Stopping,
    Stopped,
    /// Its host cannot go on, and keeps trying.
    Error,
    Deleting,
}

impl InstanceState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Provisioning => "provisioning",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Error => "error",
            Self::Deleting => "deleting",
        }
    }
}

/// Why it is in that state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateReason {
    /// Its turn to be placed has not come yet.
    AwaitingPlacement,
    /// No host takes it; `placement` says why.
    NoHostFits,
    /// Its host has not answered yet.
    AwaitingHost,
    /// Its host makes disk and domain.
    Preparing,
    /// It was started again.
    Starting,
    /// It goes down to come up again.
    Rebooting,
    /// It is as it was asked for.
    AsRequested,
    /// What it writes finds no room on its host. It goes on by itself when there is some.
    PoolFull,
    /// Its host could not read or write one of its disks, and tries again by itself.
    IoError,
    /// Somebody has suspended it on its host.
    Suspended,
    /// It was asked to stand still.
    PauseRequested,
    /// It was asked to go on.
    ResumeRequested,
    /// It is as it was asked for, and boots from a disk that was made to repair it.
    Rescued,
    /// It is as it was asked for, and its resize waits to be confirmed or reverted.
    Resized,
    /// It was asked to stop.
    StopRequested,
    /// The guest is powering itself off.
    GuestShuttingDown,
    /// The guest powered itself off.
    GuestShutdown,
    /// The virtual machine ended without being asked.
    Crashed,
    /// It ended while nobody watched.
    EndedUnobserved,
    /// Its host has cut its power, because it could not tell others any more that it runs there; it is started again.
    Fenced,
    /// The host could not do it; `state_detail` says why.
    HostFailed,
    /// It was asked to be deleted.
    DeletionRequested,
    /// Nothing was heard of its host for a while; this was the last known state.
    HostUnreachable,
}

/// The visible state, a pure function of intent, observation and whether the host is heard of. `instance_state()` of the
/// database says the same, for lists that ask for a state.
pub(crate) fn shown(
    intent: &Intent,
    observed: Option<&Observed>,
    host_reachable: bool,
    unplaceable: bool,
) -> (InstanceState, StateReason) {
    use InstanceState as S;
    use StateReason as R;
    let (state, reason) = if intent.deletion_requested {
        (S::Deleting, R::DeletionRequested)
    } else if !intent.placed {
        return (S::Pending, if unplaceable { R::NoHostFits } else { R::AwaitingPlacement });
    } else {
        match (intent.power, observed) {
            (_, None) => (S::Provisioning, R::AwaitingHost),
            (Power::Running, Some(observed)) => shown_running(intent, observed),
            (Power::Stopped, Some(observed)) => shown_stopped(observed),
            (Power::Paused, Some(observed)) => shown_paused(intent, observed),
        }
    };
    (state, if host_reachable { reason } else { R::HostUnreachable })
}

fn shown_running(intent: &Intent, observed: &Observed) -> (InstanceState, StateReason) {
    use InstanceState as S;
    use StateReason as R;
    let older_boot = observed.boot < intent.boot;
    match observed.state {
        ObservedState::Failed => (S::Error, R::HostFailed),
        ObservedState::Running | ObservedState::Stopping if older_boot => (S::Stopping, R::Rebooting),
        _ if older_boot => (S::Provisioning, R::Starting),
        ObservedState::Preparing => (S::Provisioning, R::Preparing),
        ObservedState::Running => match observed.paused {
            None => (S::Running, R::AsRequested),
            Some(PauseReason::PoolFull) => (S::Paused, R::PoolFull),
            Some(PauseReason::IoError) => (S::Paused, R::IoError),
            Some(PauseReason::Suspended) => (S::Paused, R::Suspended),
            Some(PauseReason::Requested) => (S::Paused, R::ResumeRequested),
        },
        ObservedState::Stopping => (S::Stopping, R::GuestShuttingDown),
        ObservedState::Stopped { reason } => match reason {
            EndReason::NeverStarted => (S::Provisioning, R::Starting),
            EndReason::Requested => (S::Provisioning, R::Starting),
            reason => (S::Stopped, ended(reason)),
        },
        ObservedState::Absent => (S::Provisioning, R::AwaitingHost),
    }
}

fn shown_paused(intent: &Intent, observed: &Observed) -> (InstanceState, StateReason) {
    use InstanceState as S;
    use StateReason as R;
    match (observed.state, observed.paused) {
        (ObservedState::Running, None) => (S::Running, R::PauseRequested),
        (ObservedState::Running, Some(_)) => (S::Paused, R::AsRequested),
        (ObservedState::Stopped { reason }, _) => (S::Stopped, ended(reason)),
        _ => shown_running(intent, observed),
    }
}

fn shown_stopped(observed: &Observed) -> (InstanceState, StateReason) {
    use InstanceState as S;
    use StateReason as R;
    match observed.state {
        ObservedState::Failed => (S::Error, R::HostFailed),
        ObservedState::Running | ObservedState::Stopping => (S::Stopping, R::StopRequested),
        ObservedState::Preparing => (S::Stopping, R::StopRequested),
        ObservedState::Stopped { reason } => (S::Stopped, ended(reason)),
        ObservedState::Absent => (S::Stopped, R::AsRequested),
    }
}

const fn ended(reason: EndReason) -> StateReason {
    match reason {
        EndReason::Requested | EndReason::NeverStarted => StateReason::AsRequested,
        EndReason::GuestShutdown => StateReason::GuestShutdown,
        EndReason::Crashed => StateReason::Crashed,
        EndReason::Unobserved => StateReason::EndedUnobserved,
        EndReason::Fenced => StateReason::Fenced,
    }
}

/// Kinds of operations that end with what becomes of a volume, whatever the instance does meanwhile.
pub(crate) const OF_VOLUMES: [&str; 4] =
    ["attach_volume", "detach_volume", "force_detach_volume", "update_volume"];

/// Kinds of operations that end with what becomes of a migration, as long as there is one.
pub(crate) const OF_MIGRATIONS: [&str; 4] =
    ["migrate_instance", "migrate_for_maintenance", "move_instance", "move_for_maintenance"];

/// Whether the open operation is over, as far as this observation tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not yet.
    Open,
    Done,
    /// The guest came to its end before it was seen running.
    Crashed,
    /// The guest came to its end before it stood still.
    Lost,
}

/// The operation asks for the present intent; it is done once the host has seen that intent through.
pub(crate) fn outcome(intent: &Intent, observed: &Observed) -> Outcome {
    if observed.generation < intent.generation {
        return Outcome::Open;
    }
    if intent.deletion_requested {
        return if observed.state == ObservedState::Absent { Outcome::Done } else { Outcome::Open };
    }
    match (intent.power, observed.state) {
        (Power::Stopped, ObservedState::Stopped { .. }) => Outcome::Done,
        (Power::Paused, ObservedState::Running) if observed.paused.is_some() => Outcome::Done,
        (Power::Paused, ObservedState::Stopped { .. }) => Outcome::Lost,
        (Power::Running, _) if observed.boot < intent.boot => Outcome::Open,
        // It goes on in a moment.
        (Power::Running, ObservedState::Running) if observed.paused == Some(PauseReason::Requested) => {
            Outcome::Open
        }
        (Power::Running, ObservedState::Running) => Outcome::Done,
        (Power::Running, ObservedState::Stopped { reason }) => match reason {
            // It ran, and its guest chose to end.
            EndReason::GuestShutdown => Outcome::Done,
            EndReason::Crashed | EndReason::Unobserved => Outcome::Crashed,
            // It is started again as soon as that is safe.
            EndReason::Fenced => Outcome::Open,
            EndReason::Requested | EndReason::NeverStarted => Outcome::Open,
        },
        _ => Outcome::Open,
    }
}

/// Stored forms, see the CHECKs of the table.
pub(crate) mod stored {
    use super::{EndReason, ObservedState, Power};

    pub(crate) const fn power(power: Power) -> &'static str {
        match power {
            Power::Running => "running",
            Power::Stopped => "stopped",
            Power::Paused => "paused",
        }
    }

    pub(crate) fn parse_power(text: &str) -> Power {
        match text {
            "running" => Power::Running,
            "paused" => Power::Paused,
            _ => Power::Stopped,
        }
    }

    pub(crate) fn parse_stop_mode(text: &str) -> &'static str {
        match text {
            "force" => "force",
            _ => "graceful",
        }
    }

    pub(crate) const fn end_reason(state: ObservedState) -> Option<&'static str> {
        match state {
            ObservedState::Stopped { reason } => Some(reason.as_str()),
            _ => None,
        }
    }

    pub(crate) fn parse_state(state: &str, end_reason: Option<&str>) -> Option<ObservedState> {
        Some(match state {
            "preparing" => ObservedState::Preparing,
            "running" => ObservedState::Running,
            "stopping" => ObservedState::Stopping,
            "failed" => ObservedState::Failed,
            "absent" => ObservedState::Absent,
            "stopped" => ObservedState::Stopped {
                reason: match end_reason? {
                    "requested" => EndReason::Requested,
                    "guest_shutdown" => EndReason::GuestShutdown,
                    "crashed" => EndReason::Crashed,
                    "unobserved" => EndReason::Unobserved,
                    "never_started" => EndReason::NeverStarted,
                    "fenced" => EndReason::Fenced,
                    _ => return None,
                },
            },
            _ => return None,
        })
    }
}
