//! Guests that others take over when this host dies: they run only under the guard.
//!
//! What is guarded is written down before a domain is there, and until it is gone. INVARIANT: the guard goes by that before the
//! domain is made, so a guard that is alive knows of every such guest.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::boots::BootRecord;
use super::plan::{Plan, Seen, Step};
use super::{Outcome, Reconciler};
use crate::desired::Wanted;
use crate::durable::off_thread;
use crate::guard::Guarding;
use crate::hypervisor::Domain;

/// How soon to look whether the guard has taken something in.
const TAKEN_IN: Duration = Duration::from_millis(300);
/// How soon to look whether it can.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const NOT_READ: &str = "The host could not read what is guarded.";

/// What has to come about before a domain may be started; `None` when it may.
pub(super) fn plan_guard(seen: &Seen, now: OffsetDateTime) -> Option<Plan> {
    let guard = &seen.guard;
    match &guard.wanted {
        _ if !guard.is_required => guard.entry.as_ref().map(|_| Plan::Do(Step::Unguard)),
        _ if guard.unready.is_some() => Some(Plan::Wait(now + LOOK_AGAIN)),
        None => Some(Plan::Wait(now + LOOK_AGAIN)),
        Some(wanted) if guard.entry.as_ref() != Some(wanted) => Some(Plan::Do(Step::Guard(wanted.clone()))),
        Some(_) if !guard.is_watched => Some(Plan::Wait(now + TAKEN_IN)),
        Some(_) => None,
    }
}

/// The same of one that runs already: what else is to be done with it does not wait, unless it is a disk that the guard
/// would not know of.
pub(super) fn plan_guard_of_running(seen: &Seen, now: OffsetDateTime, rest: Plan) -> Plan {
    let guard = &seen.guard;
    match &guard.wanted {
        _ if !guard.is_required && guard.entry.is_some() => Plan::Do(Step::Unguard),
        _ if !guard.is_required => rest,
        Some(wanted) if guard.entry.as_ref() != Some(wanted) => Plan::Do(Step::Guard(wanted.clone())),
        Some(_) => rest,
        None => match rest {
            Plan::Do(Step::AttachDisk { .. }) => Plan::Wait(now + LOOK_AGAIN),
            rest => rest.no_later_than(now + LOOK_AGAIN),
        },
    }
}

/// No domain is there, and none comes.
pub(super) fn plan_unguard(seen: &Seen) -> Option<Step> {
    (seen.domain.is_none() && seen.guard.entry.is_some()).then_some(Step::Unguard)
}

/// Why the domain is not started.
pub(super) fn waiting(seen: &Seen) -> Option<String> {
    seen.guard.unready.map(|unready| unready.detail().to_owned())
}

/// Whether it runs without being guarded as it is to be: who hears of a generation relies on that.
pub(super) fn is_unguarded(seen: &Seen) -> bool {
    let guard = &seen.guard;
    guard.is_required && (guard.wanted.is_none() || guard.entry != guard.wanted)
}

impl Reconciler {
    pub(super) async fn look_at_guard(
        &self,
        wanted: &Arc<Wanted>,
        record: Option<&BootRecord>,
        live: Option<&Domain>,
    ) -> Result<Guarding, Outcome> {
        let guards = Arc::clone(&self.parts.guards);
        let (asked, boot, live) = (Arc::clone(wanted), record.map(|record| record.boot), live.cloned());
        let looked = off_thread(move || guards.look(&asked, boot, live.as_ref())).await;
        looked.map_err(|error| self.fail(wanted, NOT_READ, &error.to_string()))
    }
}
