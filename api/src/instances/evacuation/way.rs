//! Which way an instance leaves a host that is being emptied, and what is to be done next. No I/O.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::hosts::store::Standing;

/// How an instance leaves its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvacuationWay {
    /// It is stopped, and goes to another host as it is.
    Move,
    /// It goes to another host while it runs.
    Migrate,
    /// It is shut down, goes to another host, and is started there.
    RestartElsewhere,
}

impl EvacuationWay {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Migrate => "migrate",
            Self::RestartElsewhere => "restart_elsewhere",
        }
    }
}

/// Why it is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub code: &'static str,
    pub message: String,
}

impl Obstacle {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Of one that stays for this, or waits until it has passed.
    pub(super) fn phase(&self) -> &'static str {
        if matches!(self.code, "busy" | "arriving") { "waiting" } else { "stays" }
    }
}

/// Its guest, as its owner wants it and its host has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// It runs or comes up, or nobody knows.
    Runs,
    /// It runs, and is on its way to another host.
    OnItsWay,
    /// It is stopped, and its disks are on their way to another host.
    IsCopied,
    /// It runs elsewhere, and is on its way to this host.
    Arrives,
    Paused,
    /// It has ended by itself, and is not started again.
    Ended,
    /// It is to be stopped, and its host has not confirmed that.
    GoesDown,
    /// Its host has said of exactly this intent that no domain runs.
    AtRest,
}

/// Why a guest that runs cannot go as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub why: String,
    /// It ends by itself, and is waited for.
    pub passes: bool,
}

/// What is known of an instance on such a host.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub deleting: bool,
    pub guest: Guest,
    /// A volume of it that is on the disk of this host alone.
    pub local_volume: Option<String>,
    /// What keeps that there; nothing if it is copied to another host while no guest runs.
    pub disks_bound: Option<Bound>,
    /// A volume of it of which this host merges layers.
    pub merging: Option<String>,
    /// It was shut down for this, and its owner has not wanted anything else since.
    pub owed: bool,
    /// A snapshot of it is being taken.
    pub snapshot: bool,
    pub bound: Option<Bound>,
    pub host: Standing,
}

const LOCAL: &str = "is on the disk of this host alone";

/// The way of an instance, whether there is room elsewhere or not.
pub(super) fn way_out(facts: &Facts, stop_running: bool) -> Result<EvacuationWay, Obstacle> {
    use EvacuationWay::{Migrate, Move, RestartElsewhere};
    let refused = |code, message: &str| Err(Obstacle::new(code, message));
    if facts.guest == Guest::Arrives {
        return refused(
            "arriving",
            "it is on its way to this host; when it is there it leaves like all others",
        );
    }
    if facts.deleting {
        return refused(
            "being_deleted",
            "its owner has deleted it; it is gone when this host has confirmed that",
        );
    }
    if let Some(name) = &facts.local_volume {
        local(facts, name)?;
    }
    let again = if facts.owed { RestartElsewhere } else { Move };
    match (facts.host, facts.guest) {
        (Standing::Dead, Guest::Runs | Guest::OnItsWay) => return Ok(RestartElsewhere),
        (Standing::Dead, _) => return Ok(again),
        (Standing::Heard, _) => {}
        (Standing::Silent, Guest::AtRest) if facts.local_volume.is_none() => {}
        (Standing::Silent, _) => {
            return refused(
                "host_silent",
                "nothing is heard of this host, so nobody knows whether its guest runs; it goes on when the host is \
                 back, or you have declared it dead",
            );
        }
    }
    if facts.guest == Guest::OnItsWay {
        return Ok(Migrate);
    }
    if facts.guest == Guest::IsCopied {
        return Ok(again);
    }
    if let Some(name) = &facts.merging {
        let message = format!("this host merges layers of its volume {name}; it goes when that is done");
        return refused("merging", &message);
    }
    match facts.guest {
        Guest::Paused => refused(
            "paused",
            "it is paused, and what it has in memory would be lost; its owner resumes or stops it",
        ),
        Guest::Runs | Guest::OnItsWay | Guest::Arrives => match &facts.bound {
            None => Ok(Migrate),
            Some(Bound { why, passes: true }) => refused(
                "busy",
                &format!("it runs, and does not go as it is just now: {why}. It is looked at again"),
            ),
            Some(_) if stop_running => Ok(RestartElsewhere),
            Some(Bound { why, .. }) => refused(
                "running",
                &format!(
                    "it runs, and cannot go as it is: {why}. Drain with `stop_running` to shut it down, or wait until its \
                     owner stops it"
                ),
            ),
        },
        Guest::Ended | Guest::GoesDown | Guest::AtRest | Guest::IsCopied => Ok(again),
    }
}

/// Whether what an instance has on the disk of this host lets it go.
fn local(facts: &Facts, name: &str) -> Result<(), Obstacle> {
    let refused = |code, message: String| Err(Obstacle::new(code, message));
    if facts.host == Standing::Dead {
        let lost = "which is dead; its owner deletes it, or goes on with a copy that is elsewhere";
        return refused("local_volume", format!("the data of its volume {name} {LOCAL}, {lost}"));
    }
    match &facts.disks_bound {
        Some(Bound { why, passes: true }) => refused(
            "busy",
            format!("the data of its volume {name} {LOCAL}, and is not copied just now: {why}"),
        ),
        Some(Bound { why, passes: false }) => refused(
            "local_volume",
            format!("the data of its volume {name} {LOCAL}, and does not move: {why}"),
        ),
        None => Ok(()),
    }
}

/// What is to be done with it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, as long as that is so.
    Stay(Obstacle),
    /// Nothing: its host is about to confirm that it is stopped, or that it has left.
    Await,
    /// It goes to another host while it runs.
    Migrate,
    /// Its guest goes down. Whether it is to be started again elsewhere.
    Stop { owed: bool },
    /// It goes to another host, and starts there or not.
    Leave { starts: bool },
    /// Its disks are copied to another host, which has it then.
    Copy,
    /// It was shut down and cannot leave after all: it starts again where it is.
    GiveBack(Obstacle),
}

pub(super) fn next_step(facts: &Facts, stop_running: bool) -> Step {
    match way_out(facts, stop_running) {
        // What is merged is waited for: it ends by itself.
        Err(obstacle) if facts.owed && !matches!(obstacle.code, "merging" | "host_silent" | "busy") => {
            Step::GiveBack(obstacle)
        }
        Err(obstacle) => Step::Stay(obstacle),
        Ok(_) if facts.host == Standing::Dead => {
            Step::Leave { starts: facts.owed || matches!(facts.guest, Guest::Runs | Guest::OnItsWay) }
        }
        Ok(way) => match facts.guest {
            Guest::AtRest if facts.local_volume.is_some() => Step::Copy,
            Guest::AtRest => Step::Leave { starts: facts.owed },
            Guest::GoesDown | Guest::OnItsWay | Guest::IsCopied | Guest::Arrives => Step::Await,
            Guest::Runs if way == EvacuationWay::Migrate => Step::Migrate,
            Guest::Runs => Step::Stop { owed: true },
            Guest::Ended | Guest::Paused => Step::Stop { owed: false },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(passes: bool) -> Bound {
        Bound { why: "the other host has another processor".to_owned(), passes }
    }

    fn of(guest: Guest) -> Facts {
        Facts {
            deleting: false,
            guest,
            local_volume: None,
            disks_bound: None,
            merging: None,
            owed: false,
            snapshot: false,
            bound: Some(bound(false)),
            host: Standing::Heard,
        }
    }

    fn code(facts: &Facts, stop_running: bool) -> Option<&'static str> {
        way_out(facts, stop_running).err().map(|obstacle| obstacle.code)
    }

    #[test]
    fn nothing_that_runs_is_touched_unless_it_may_be_stopped() {
        for guest in [Guest::Runs, Guest::Paused] {
            assert!(matches!(next_step(&of(guest), false), Step::Stay(_)), "{guest:?}");
        }
        assert_eq!(next_step(&of(Guest::Runs), true), Step::Stop { owed: true });
        assert_eq!(code(&of(Guest::Paused), true), Some("paused"));
        assert_eq!(next_step(&of(Guest::Ended), false), Step::Stop { owed: false });
        assert_eq!(next_step(&of(Guest::GoesDown), false), Step::Await);
        assert_eq!(next_step(&of(Guest::AtRest), false), Step::Leave { starts: false });
        assert_eq!(
            next_step(&Facts { owed: true, ..of(Guest::AtRest) }, false),
            Step::Leave { starts: true }
        );
    }

    #[test]
    fn a_guest_that_can_go_while_it_runs_is_not_stopped() {
        let free = Facts { bound: None, ..of(Guest::Runs) };
        for stop_running in [false, true] {
            assert_eq!(next_step(&free, stop_running), Step::Migrate);
            assert_eq!(way_out(&free, stop_running), Ok(EvacuationWay::Migrate));
            assert_eq!(next_step(&of(Guest::OnItsWay), stop_running), Step::Await);
        }
        let merging = Facts { merging: Some("root".to_owned()), ..free };
        assert_eq!(code(&merging, true), Some("merging"));
        let dead = Facts { host: Standing::Dead, ..of(Guest::OnItsWay) };
        assert_eq!(next_step(&dead, false), Step::Leave { starts: true });
    }

    #[test]
    fn what_passes_and_who_arrives_is_waited_for() {
        for stop_running in [false, true] {
            let busy = Facts { bound: Some(bound(true)), ..of(Guest::Runs) };
            assert_eq!(code(&busy, stop_running), Some("busy"));
            let arriving = Facts { deleting: true, ..of(Guest::Arrives) };
            assert_eq!(code(&arriving, stop_running), Some("arriving"));
            let dead = Facts { host: Standing::Dead, ..busy };
            assert_eq!(next_step(&dead, stop_running), Step::Leave { starts: true });
        }
    }

    #[test]
    fn what_was_shut_down_and_cannot_leave_starts_again() {
        let stopped = Facts { owed: true, ..of(Guest::AtRest) };
        let local = Facts {
            local_volume: Some("own".to_owned()),
            disks_bound: Some(bound(false)),
            ..stopped.clone()
        };
        assert!(matches!(next_step(&local, true), Step::GiveBack(Obstacle { code: "local_volume", .. })));
        let merging = Facts { merging: Some("root".to_owned()), ..stopped };
        assert!(matches!(next_step(&merging, true), Step::Stay(_)), "that ends by itself");
    }

    #[test]
    fn what_is_on_the_disk_of_the_host_is_copied_while_no_guest_runs() {
        let local = |guest| Facts { local_volume: Some("own".to_owned()), ..of(guest) };
        assert_eq!(next_step(&local(Guest::AtRest), false), Step::Copy);
        assert_eq!(next_step(&local(Guest::IsCopied), false), Step::Await);
        assert_eq!(next_step(&local(Guest::Ended), false), Step::Stop { owed: false });
        assert_eq!(code(&local(Guest::Runs), false), Some("running"));
        assert_eq!(next_step(&local(Guest::Runs), true), Step::Stop { owed: true });
        let owed = Facts { owed: true, ..local(Guest::AtRest) };
        assert_eq!(
            (next_step(&owed, true), way_out(&owed, true)),
            (Step::Copy, Ok(EvacuationWay::RestartElsewhere))
        );
        let busy = Facts { disks_bound: Some(bound(true)), ..owed };
        assert!(matches!(next_step(&busy, true), Step::Stay(Obstacle { code: "busy", .. })));
        let silent = Facts { host: Standing::Silent, ..local(Guest::AtRest) };
        assert_eq!(code(&silent, false), Some("host_silent"), "it has to send them");
        let bound = Facts { disks_bound: Some(bound(false)), ..local(Guest::Runs) };
        assert_eq!(code(&bound, true), Some("local_volume"), "it is not shut down for nothing");
    }

    #[test]
    fn of_a_silent_host_nothing_is_taken_but_what_it_has_said_is_stopped() {
        for guest in [Guest::Runs, Guest::Paused, Guest::Ended, Guest::GoesDown] {
            let silent = Facts { host: Standing::Silent, ..of(guest) };
            assert_eq!(code(&silent, true), Some("host_silent"), "{guest:?}");
            let owed = Facts { owed: true, ..silent };
            assert!(matches!(next_step(&owed, true), Step::Stay(_)), "nothing can be started there, either");
        }
        let silent = Facts { host: Standing::Silent, ..of(Guest::AtRest) };
        assert_eq!(next_step(&silent, false), Step::Leave { starts: false });
        let dead = Facts { host: Standing::Dead, ..of(Guest::Runs) };
        assert_eq!(next_step(&dead, false), Step::Leave { starts: true });
        let local = Facts { local_volume: Some("own".to_owned()), ..dead };
        assert_eq!(code(&local, false), Some("local_volume"));
    }
}
