//! Killed before and after every step of every life event: the same end.

use std::fmt;

use protocol::LayerId;
use protocol::agent::{DesiredBody, EndReason, InstanceSpec, ObservedState, Step as Told, StopMode};
use uuid::Uuid;

use super::{End, Host, Life, NEVER, Outcome};
use crate::samples::{
    GRACEFUL, booted_again, deleted, instance_id, next, paused, resumed, running, stopped, wish,
};

/// How an instance gets to where the event under test begins.
#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    Running,
    RunningAndDeaf,
    Stopped,
    Paused,
    /// With a chain of three layers.
    RunningOnThree,
    StoppedOnThree,
}

/// The life event under test.
struct Case {
    name: &'static str,
    before: Before,
    wanted: fn(&InstanceSpec) -> DesiredBody,
    last_step: Told,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const CASES: &[Case] = &[
    Case { name: "create", before: Before::Nothing, wanted: wish, last_step: Told::Running },
    Case {
        name: "create stopped",
        before: Before::Nothing,
        wanted: |spec| wish(&stopped(spec, GRACEFUL)),
        last_step: Told::Stopped,
    },
    Case {
        name: "stop",
        before: Before::Running,
        wanted: |spec| wish(&stopped(spec, GRACEFUL)),
        last_step: Told::Stopped,
    },
    Case {
        name: "stop of a guest that does not listen",
        before: Before::RunningAndDeaf,
        wanted: |spec| wish(&stopped(spec, GRACEFUL)),
        last_step: Told::Stopped,
    },
    Case {
        name: "forced stop",
        before: Before::Running,
        wanted: |spec| wish(&stopped(spec, StopMode::Force)),
        last_step: Told::Stopped,
    },
    Case {
        name: "start",
        before: Before::Stopped,
        wanted: |spec| wish(&booted_again(spec)),
        last_step: Told::Running,
    },
    Case {
        name: "reboot",
        before: Before::Running,
        wanted: |spec| wish(&booted_again(spec)),
        last_step: Told::Running,
    },
    Case {
        name: "reboot of a guest that does not listen",
        before: Before::RunningAndDeaf,
        wanted: |spec| wish(&booted_again(spec)),
        last_step: Told::Running,
    },
    Case {
        name: "pause",
        before: Before::Running,
        wanted: |spec| wish(&paused(spec)),
        last_step: Told::Paused,
    },
    Case {
        name: "resume",
        before: Before::Paused,
        wanted: |spec| wish(&resumed(spec)),
        last_step: Told::Running,
    },
    Case {
        name: "stop while paused",
        before: Before::Paused,
        wanted: |spec| wish(&stopped(spec, GRACEFUL)),
        last_step: Told::Stopped,
    },
    Case {
        name: "reboot while paused",
        before: Before::Paused,
        wanted: |spec| wish(&booted_again(spec)),
        last_step: Told::Running,
    },
    Case { name: "delete while paused", before: Before::Paused, wanted: deleted, last_step: Told::Absent },
    Case {
        name: "reboot into another size",
        before: Before::Running,
        wanted: |spec| wish(&InstanceSpec { vcpus: 2, ..booted_again(spec) }),
        last_step: Told::Running,
    },
    Case {
        name: "reboot from another disk",
        before: Before::Running,
        wanted: |spec| wish(&on_another_disk(&booted_again(spec))),
        last_step: Told::Running,
    },
    Case {
        name: "snapshot",
        before: Before::Running,
        wanted: |spec| wish(&with_layers(&next(spec), 2)),
        last_step: Told::Running,
    },
    Case {
        name: "snapshot of a guest at rest",
        before: Before::Running,
        wanted: |spec| wish(&InstanceSpec { freeze: true, ..with_layers(&next(spec), 2) }),
        last_step: Told::Running,
    },
    Case {
        name: "merge",
        before: Before::RunningOnThree,
        wanted: |spec| wish(&merging(&next(spec))),
        last_step: Told::Running,
    },
    Case {
        name: "snapshot and merge",
        before: Before::RunningOnThree,
        wanted: |spec| wish(&merging(&with_layers(&next(spec), 4))),
        last_step: Told::Running,
    },
    Case {
        name: "merge while stopped",
        before: Before::StoppedOnThree,
        wanted: |spec| wish(&merging(&next(spec))),
        last_step: Told::Stopped,
    },
    Case {
        name: "stop while layers are to be merged",
        before: Before::RunningOnThree,
        wanted: |spec| wish(&merging(&stopped(spec, GRACEFUL))),
        last_step: Told::Stopped,
    },
    Case {
        name: "start while layers are to be merged",
        before: Before::StoppedOnThree,
        wanted: |spec| wish(&merging(&booted_again(spec))),
        last_step: Told::Running,
    },
    Case { name: "delete while it runs", before: Before::Running, wanted: deleted, last_step: Told::Absent },
    Case { name: "delete while stopped", before: Before::Stopped, wanted: deleted, last_step: Told::Absent },
    Case { name: "delete of nothing", before: Before::Nothing, wanted: deleted, last_step: Told::Absent },
];

impl Before {
    /// Brings a new instance there; gives its specification.
    async fn reach(self, host: &Host, life: &mut Life) -> InstanceSpec {
        let mut spec = running(instance_id());
        if matches!(self, Self::Nothing) {
            return spec;
        }
        if matches!(self, Self::RunningOnThree | Self::StoppedOnThree) {
            spec = with_layers(&spec, 3);
        }
        host.hypervisor.set_guests_obey_power_button(!matches!(self, Self::RunningAndDeaf));
        life.want(wish(&spec));
        life.settle(spec.id).await;
        let spec = match self {
            Self::Stopped | Self::StoppedOnThree => stopped(&spec, GRACEFUL),
            Self::Paused => paused(&spec),
            _ => return spec,
        };
        life.want(wish(&spec));
        life.settle(spec.id).await;
        spec
    }
}

/// With another layer in place of that of its disk, which the guest has open until it has gone down.
fn on_another_disk(spec: &InstanceSpec) -> InstanceSpec {
    let mut spec = spec.clone();
    let volume = &mut spec.disks[0].volume;
    volume.layers = vec![LayerId::from_uuid(Uuid::from_u128(spec.id.as_uuid().as_u128() + 100))];
    volume.generation.0 += 1;
    spec
}

/// With so many layers in the chain of its disk.
fn with_layers(spec: &InstanceSpec, count: u128) -> InstanceSpec {
    let mut spec = spec.clone();
    let first = spec.id.as_uuid().as_u128();
    let layers = (0..count).map(|n| LayerId::from_uuid(Uuid::from_u128(first + n)));
    spec.disks[0].volume.layers = layers.collect();
    spec
}

/// With the second layer to be merged.
fn merging(spec: &InstanceSpec) -> InstanceSpec {
    let mut spec = spec.clone();
    let volume = &mut spec.disks[0].volume;
    volume.merges = vec![volume.layers[1]];
    spec
}

/// Runs a case with a kill at one checkpoint; `None` when there are fewer checkpoints.
async fn run(case: &Case, kill_at: u64) -> (Outcome, End, Vec<Told>) {
    let host = Host::new();
    let spec = case.before.reach(&host, &mut host.start_agent(NEVER)).await;
    let wanted = (case.wanted)(&spec);

    let mut life = host.start_agent(kill_at);
    life.want(wanted);
    let outcome = life.until_quiet(spec.id).await;
    drop(life);

    let mut life = host.start_agent(NEVER);
    life.settle(spec.id).await;
    let end = host.end(&life, spec.id).await;
    life.settle(spec.id).await;
    assert_eq!(host.end(&life, spec.id).await, end, "{case}: a second run changes nothing");
    for boot in 1..=2 {
        assert!(host.hypervisor.starts(spec.id, boot) <= 1, "{case}: boot {boot} was started twice");
    }
    assert!(host.storage.layers_made() as usize <= end.layers.max(1), "{case}: a layer was made twice");
    assert!(!host.hypervisor.is_frozen(spec.id), "{case}: the guest is frozen");
    assert!(host.hypervisor.snapshots() <= 1, "{case}: two snapshots");
    let steps = life.steps(spec.id);
    (outcome, end, steps)
}

#[tokio::test]
async fn wherever_the_agent_is_killed_the_end_is_the_same() {
    for case in CASES {
        let (outcome, expected, trail) = run(case, NEVER).await;
        assert_eq!(outcome, Outcome::Settled, "{case}");
        let mut checkpoints = 0;
        loop {
            let (outcome, end, steps) = run(case, checkpoints).await;
            assert_eq!(end, expected, "{case}, killed at checkpoint {checkpoints}");
            assert_eq!(steps.last(), Some(&case.last_step), "{case}, killed at checkpoint {checkpoints}");
            assert!(
                steps.iter().all(|step| trail.contains(step) || *step == Told::PowerCut),
                "{case}, killed at checkpoint {checkpoints}: {steps:?}"
            );
            if outcome == Outcome::Settled {
                break;
            }
            assert_eq!(outcome, Outcome::Interrupted, "{case}");
            checkpoints += 1;
        }
        // The whole plan was gone through: three checkpoints for each step.
        assert_eq!(checkpoints % 3, 0, "{case}");
        assert!(checkpoints > 0 || trail.len() <= 3, "{case}");
    }
}

#[tokio::test]
async fn the_trail_of_a_create_names_every_step_once_in_order() {
    let (_, end, trail) = run(&CASES[0], NEVER).await;
    assert_eq!(end.state, Some(ObservedState::Running));
    use Told::{AgentReceived, DiskMade, DomainDefined, ImageCached, Running, SeedMade};
    assert_eq!(trail, [AgentReceived, ImageCached, DiskMade, SeedMade, DomainDefined, Running]);
}

#[tokio::test]
async fn a_deletion_overtakes_a_create_at_any_point_and_nothing_is_left() {
    for create_killed_at in 0.. {
        for delete_killed_at in 0.. {
            let host = Host::new();
            let spec = running(instance_id());
            let mut life = host.start_agent(create_killed_at);
            life.want(wish(&spec));
            let create = life.until_quiet(spec.id).await;
            drop(life);
            let mut life = host.start_agent(delete_killed_at);
            life.want(deleted(&spec));
            let delete = life.until_quiet(spec.id).await;
            drop(life);
            let mut life = host.start_agent(NEVER);
            // Late word of the create: it must not come back to life.
            life.want(wish(&spec));
            life.settle(spec.id).await;
            let end = host.end(&life, spec.id).await;
            assert_eq!(
                (end.domain, end.files.any, end.record, end.state),
                (None, false, None, Some(ObservedState::Absent)),
                "create killed at {create_killed_at}, delete at {delete_killed_at}"
            );
            match (create, delete) {
                (Outcome::Settled, Outcome::Settled) => return,
                (_, Outcome::Settled) => break,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_stop_under_way_keeps_its_deadline_across_a_restart_of_the_agent() {
    let host = Host::new();
    let spec = Before::RunningAndDeaf.reach(&host, &mut host.start_agent(NEVER)).await;
    let life = host.start_agent(NEVER);
    life.want(wish(&stopped(&spec, StopMode::Graceful { timeout_seconds: 60 })));
    let Outcome::Wait(_) = life.reconciler.pass(spec.id).await else {
        panic!("it has to wait for the guest")
    };
    let deadline = life.boots.get(spec.id).unwrap().stop_deadline.unwrap();
    drop(life);

    host.clock.advance(std::time::Duration::from_secs(59));
    let life = host.start_agent(NEVER);
    assert_eq!(life.reconciler.pass(spec.id).await, Outcome::Wait(deadline));
    assert_eq!(host.hypervisor.presses(spec.id), 2, "the new agent asks the guest once more");
    host.clock.advance_to(deadline);
    assert_eq!(life.reconciler.pass(spec.id).await, Outcome::Settled);
    assert_eq!(life.state(spec.id), ObservedState::Stopped { reason: EndReason::Requested });
    assert!(life.steps(spec.id).contains(&Told::PowerCut));
}
