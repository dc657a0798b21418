//! The lives of guests as they happen: each beginning, standstill and end, told under the lock under which it came about.

use std::collections::BTreeMap;
use std::fmt;

use protocol::InstanceId;

use super::{EndCause, Event, Simulated};
use crate::hypervisor::{Domain, DomainState};

/// Who hears of it.
pub trait Hearer: fmt::Debug + Send {
    /// One that does not run waits for a guest that comes from elsewhere.
    fn began(&mut self, id: InstanceId, boot: i64, runs: bool);
    /// It stands still from now on, or `runs`.
    fn changed(&mut self, id: InstanceId, boot: i64, runs: bool);
    fn ended(&mut self, id: InstanceId, boot: i64);
}

/// A guest that lives.
#[derive(Debug, Clone, Copy)]
struct Life {
    boot: i64,
    /// No other guest of this simulation has or had it.
    pid: i32,
    runs: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lives {
    now: BTreeMap<InstanceId, Life>,
    last_pid: i32,
    hearer: Option<Box<dyn Hearer>>,
}

impl Lives {
    /// Takes in what lives after a change.
    pub(super) fn look(&mut self, domains: &BTreeMap<InstanceId, Domain>) {
        let lives_on = |id, life: Life| domains.get(&id).is_some_and(|domain| domain.boot == life.boot);
        let ended: Vec<_> = self.now.iter().map(|(id, life)| (*id, *life)).collect();
        for (id, life) in ended.into_iter().filter(|(id, life)| !lives_on(*id, *life)) {
            self.now.remove(&id);
            if let Some(hearer) = &mut self.hearer {
                hearer.ended(id, life.boot);
            }
        }
        for domain in domains.values() {
            let runs = !matches!(domain.state, DomainState::Paused(_));
            if let Some(life) = self.now.get_mut(&domain.id) {
                if let Some(hearer) = self.hearer.as_mut().filter(|_| life.runs != runs) {
                    hearer.changed(domain.id, domain.boot, runs);
                }
                life.runs = runs;
                continue;
            }
            self.last_pid += 1;
            self.now.insert(domain.id, Life { boot: domain.boot, pid: self.last_pid, runs });
            if let Some(hearer) = &mut self.hearer {
                hearer.began(domain.id, domain.boot, runs);
            }
        }
    }
}

impl Simulated {
    /// From now on this one hears of each life that begins or ends.
    pub(crate) fn tell(&self, hearer: Box<dyn Hearer>) {
        self.lock().lives.hearer = Some(hearer);
    }

    /// The guests that live, each with the number of its process.
    pub(crate) fn processes(&self) -> Vec<(InstanceId, i32)> {
        self.lock().lives.now.iter().map(|(id, life)| (*id, life.pid)).collect()
    }

    pub(crate) fn lives(&self, id: InstanceId, pid: i32) -> bool {
        self.lock().lives.now.get(&id).is_some_and(|life| life.pid == pid)
    }

    /// SIGKILL for that process, if it is there.
    pub(crate) fn kill(&self, id: InstanceId, pid: i32) {
        let killed = {
            let mut state = self.lock();
            let is_there = state.lives.now.get(&id).is_some_and(|life| life.pid == pid);
            is_there && state.domains.remove(&id).is_some()
        };
        if killed {
            self.emit(Event::Ended { id, why: EndCause::Crashed });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use protocol::agent::PauseReason;
    use uuid::Uuid;

    use super::*;
    use crate::hypervisor::Hypervisor;
    use crate::hypervisor::simulated::{SimulatedMachine, kept};
    use crate::samples::instance_id;

    #[derive(Debug, Clone, Default)]
    struct Heard(Arc<Mutex<Vec<(&'static str, InstanceId)>>>);

    impl Hearer for Heard {
        fn began(&mut self, id: InstanceId, _: i64, runs: bool) {
            self.0.lock().unwrap().push((if runs { "began" } else { "waits" }, id));
        }

        fn changed(&mut self, id: InstanceId, _: i64, runs: bool) {
            self.0.lock().unwrap().push((if runs { "goes on" } else { "stands still" }, id));
        }

        fn ended(&mut self, id: InstanceId, _: i64) {
            self.0.lock().unwrap().push(("ended", id));
        }
    }

    #[tokio::test]
    async fn each_life_is_told_once_and_a_process_is_killed_and_no_other() {
        let simulated = Simulated::new(SimulatedMachine::new(Uuid::nil()));
        let heard = Heard::default();
        simulated.tell(Box::new(heard.clone()));
        let (one, other) = (instance_id(), instance_id());
        for id in [one, other] {
            simulated.create(&kept::tests::spec(id)).await.unwrap();
        }
        let pid = |id| simulated.processes().into_iter().find(|(it, _)| *it == id).unwrap().1;
        let first = pid(one);
        simulated.kill(one, first + 100);
        assert!(simulated.lives(one, first) && !simulated.lives(other, first));
        simulated.kill(one, first);
        assert!(!simulated.lives(one, first));
        simulated.create(&kept::tests::spec(one)).await.unwrap();
        simulated.kill(one, first);
        assert!(simulated.lives(one, pid(one)), "that process has ended before");
        simulated.pause(one, PauseReason::Suspended);
        simulated.pause(one, PauseReason::Suspended);
        simulated.resume(one).await.unwrap();
        simulated.destroy(one).await.unwrap();
        simulated.begin_waiting(&kept::tests::spec(one)).unwrap();
        simulated.reboot_machine(Uuid::nil());
        let heard = heard.0.lock().unwrap();
        let told: Vec<_> = heard.iter().map(|(what, id)| (*what, *id == one)).collect();
        let began_and_ended = [("began", true), ("began", false), ("ended", true), ("began", true)];
        assert_eq!(told[..4], began_and_ended);
        assert_eq!(
            told[4..8].iter().map(|told| told.0).collect::<Vec<_>>(),
            ["stands still", "goes on", "ended", "waits"]
        );
        assert_eq!(told[8..].iter().filter(|(what, _)| *what == "ended").count(), 2);
    }
}
