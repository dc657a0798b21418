//! Who is to be asked what when, one guest after the other, and what came of it.
//!
//! A guest is asked when it is first seen and ever more seldom until an agent in it answers, then at the usual interval.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::InstanceId;
use protocol::agent::{GuestAnswer, GuestReport, GuestSilence};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::age_ms;
use crate::hypervisor::{Hypervisor, HypervisorError};

/// Between the first questions to a guest that does not answer yet; doubled each time, up to the usual interval.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Before the control plane has said how often.
const USUAL: Duration = Duration::from_secs(300);
/// After the hypervisor could not be asked.
const LATER: Duration = Duration::from_secs(10);

pub(super) struct Guests {
    hypervisor: Arc<dyn Hypervisor>,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    usual: Duration,
    known: HashMap<InstanceId, Known>,
    /// The newest of each that is not taken yet.
    answers: BTreeMap<InstanceId, (Instant, GuestAnswer)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    run: u32,
    due: Instant,
    /// Until the next question, if this one is not answered.
    pause: Duration,
}

impl Guests {
    pub(super) fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor, state: Mutex::new(State::new()), changed: Notify::new() }
    }

    pub(super) fn ask_every(&self, usual: Duration) {
        self.lock().usual = usual;
    }

    /// These run now, and no others.
    pub(super) fn look_after(&self, running: impl Iterator<Item = (InstanceId, u32)>) {
        self.lock().look_after(running, Instant::now());
        self.changed.notify_one();
    }

    /// What has been said and not been taken, `most` at most.
    pub(super) fn take(&self, most: usize) -> Vec<GuestReport> {
        let mut state = self.lock();
        let pop = || state.answers.pop_first();
        let taken = std::iter::from_fn(pop).take(most);
        taken.map(|(id, (at, answer))| GuestReport { id, age_ms: age_ms(at), answer }).collect()
    }

    /// Asks whoever is due, for ever.
    pub(super) async fn run(&self) {
        loop {
            match self.next() {
                Some((id, run, due)) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => self.ask(id, run).await,
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn next(&self) -> Option<(InstanceId, u32, Instant)> {
        self.lock().next()
    }

    async fn ask(&self, id: InstanceId, run: u32) {
        let answer = match self.hypervisor.ask_guest(id).await {
            Ok(told) => Some(GuestAnswer::Told(Box::new(told))),
            Err(HypervisorError::NoGuestAgent) => Some(GuestAnswer::Silent(GuestSilence::NoAgent)),
            // It says nothing about the guest.
            Err(HypervisorError::Unreachable(_) | HypervisorError::NotFound(_)) => None,
            Err(error) => {
                // What a guest says of its failure stays here unless somebody looks for it.
                tracing::debug!(%id, ?error, "the guest did not answer");
                Some(GuestAnswer::Silent(GuestSilence::NotAnswering))
            }
        };
        self.lock().note(id, run, answer, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        Self { usual: USUAL, known: HashMap::new(), answers: BTreeMap::new() }
    }

    fn look_after(&mut self, running: impl Iterator<Item = (InstanceId, u32)>, now: Instant) {
        let before = std::mem::take(&mut self.known);
        let known = |id, run| {
            let same = before.get(&id).copied().filter(|known: &Known| known.run == run);
            same.unwrap_or(Known { run, due: now, pause: FIRST_PAUSE })
        };
        self.known = running.map(|(id, run)| (id, known(id, run))).collect();
        self.answers.retain(|id, _| self.known.contains_key(id));
    }

    /// Who is to be asked next, in which run, and when.
    fn next(&self) -> Option<(InstanceId, u32, Instant)> {
        let next = self.known.iter().min_by_key(|(_, known)| known.due)?;
        Some((*next.0, next.1.run, next.1.due))
    }

    /// Takes in what came of a question; `None` when the guest was not reached at all.
    fn note(&mut self, id: InstanceId, run: u32, answer: Option<GuestAnswer>, now: Instant) {
        let Some(known) = self.known.get_mut(&id).filter(|known| known.run == run) else { return };
        let Some(answer) = answer else {
            known.due = now + LATER;
            return;
        };
        known.due = now
            + match answer {
                GuestAnswer::Told(_) => self.usual,
                GuestAnswer::Silent(_) => {
                    let pause = known.pause.min(self.usual);
                    known.pause = pause * 2;
                    pause
                }
            };
        self.answers.insert(id, (now, answer));
    }
}

#[cfg(test)]
mod tests {
    use protocol::agent::GuestInfo;

    use super::*;
    use crate::samples::instance_id;

    /// When it is due again, in seconds after it has been asked now.
    fn asked(state: &mut State, id: InstanceId, answer: Option<GuestAnswer>) -> u64 {
        let now = Instant::now();
        let run = state.known[&id].run;
        state.note(id, run, answer, now);
        (state.next().unwrap().2 - now).as_secs()
    }

    #[test]
    fn a_guest_is_asked_when_it_is_new_and_then_seldom() {
        let (mut state, id, now) = (State::new(), instance_id(), Instant::now());
        let told = || Some(GuestAnswer::Told(Box::<GuestInfo>::default()));
        state.look_after([(id, 1)].into_iter(), now);
        assert_eq!(state.next(), Some((id, 1, now)));
        assert_eq!(asked(&mut state, id, told()), 300);
        state.look_after([(id, 1)].into_iter(), now);
        assert!(state.next().unwrap().2 > now, "it has answered");
        state.look_after([(id, 2)].into_iter(), now);
        assert_eq!(state.next(), Some((id, 2, now)), "it was started anew");
        state.note(id, 1, told(), now);
        assert_eq!(state.next(), Some((id, 2, now)), "that was said in another life");
        assert_eq!(state.answers.len(), 1);
        state.look_after(std::iter::empty(), now);
        assert_eq!((state.next(), state.answers.len()), (None, 0));
    }

    #[test]
    fn a_silent_guest_is_asked_ever_more_seldom_and_not_blamed_for_a_hypervisor_that_is_away() {
        let (mut state, id) = (State::new(), instance_id());
        state.look_after([(id, 1)].into_iter(), Instant::now());
        let silent = || Some(GuestAnswer::Silent(GuestSilence::NoAgent));
        let pauses: Vec<_> = (0..9).map(|_| asked(&mut state, id, silent())).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        state.answers.clear();
        assert_eq!((asked(&mut state, id, None), state.answers.len()), (10, 0));
    }
}
