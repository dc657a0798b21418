//! Every combination of what is wanted and what is seen, and what follows, as a table to read.

use std::collections::HashMap;
use std::fmt::Write;

use protocol::Generation;
use protocol::agent::{EndReason, InstanceSpec, PauseReason, Power, StopMode};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use crate::desired::Wanted;
use crate::guard::Guarding;
use crate::host_storage::Files;
use crate::hypervisor::{Domain, DomainState, EndCause};
use crate::reconcile::boots::{BootRecord, Phase};
use crate::reconcile::observe::observe;
use crate::reconcile::plan::{Memory, Plan, Seen, plan, tuning};
use crate::samples;

const NOW: OffsetDateTime = datetime!(2030-01-01 12:00 UTC);
const THIS: Uuid = Uuid::from_u128(1);
const EARLIER: Uuid = Uuid::from_u128(2);
const WANTED_BOOT: i64 = 5;

fn wishes() -> Vec<(&'static str, Wanted)> {
    let base = InstanceSpec { boot: WANTED_BOOT, ..samples::running(samples::instance_id()) };
    let instance = |power, stop| Wanted::Instance(Box::new(InstanceSpec { power, stop, ..base.clone() }));
    vec![
        ("running", instance(Power::Running, samples::GRACEFUL)),
        ("paused", instance(Power::Paused, samples::GRACEFUL)),
        ("stopped", instance(Power::Stopped, samples::GRACEFUL)),
        ("forced off", instance(Power::Stopped, StopMode::Force)),
        (
            "deleted",
            Wanted::Deleted {
                id: base.id,
                generation: Generation(1),
                layers: Vec::new(),
                pools: Vec::new(),
                operation_id: None,
            },
        ),
    ]
}

fn domains() -> Vec<(&'static str, Option<(i64, DomainState)>)> {
    vec![
        ("none", None),
        ("boot 4", Some((4, DomainState::Running))),
        ("boot 5", Some((5, DomainState::Running))),
        ("5, no room", Some((5, DomainState::Paused(PauseReason::PoolFull)))),
        ("5, suspend", Some((5, DomainState::Paused(PauseReason::Suspended)))),
        ("5, leaving", Some((5, DomainState::ShuttingDown))),
        ("5, off", Some((5, DomainState::Off))),
    ]
}

fn records() -> Vec<(&'static str, Option<BootRecord>)> {
    let record = |boot, machine_boot, phase| {
        Some(BootRecord {
            boot,
            machine_boot,
            phase,
            stop_deadline: None,
            to_resume: false,
            loaded: false,
            freezing: false,
            paused: false,
            incoming: None,
            outgoing: None,
        })
    };
    vec![
        ("none", None),
        ("4 ended", record(4, THIS, Phase::Ended(EndReason::Requested))),
        ("4 started", record(4, THIS, Phase::Started)),
        ("5 starting", record(5, THIS, Phase::Starting)),
        ("5 started", record(5, THIS, Phase::Started)),
        ("5 started, earlier machine boot", record(5, EARLIER, Phase::Started)),
        ("5 ended", record(5, THIS, Phase::Ended(EndReason::GuestShutdown))),
    ]
}

fn show(plan: &Plan) -> String {
    match plan {
        Plan::Do(step) => format!("{step:?}"),
        Plan::Wait(until) => format!("wait {}", *until - NOW),
        Plan::Settled => "settled".to_owned(),
    }
}

#[test]
fn what_follows_from_what() {
    let mut table = String::new();
    let files = Files { bases: true, volumes: true, seed: true, any: true, ..Files::default() };
    for (wish, wanted) in wishes() {
        for (domain_label, domain) in domains() {
            for (record_label, record) in records() {
                let seen = Seen {
                    domain: domain.map(|(boot, state)| Domain {
                        id: wanted.id(),
                        generation: Generation(1),
                        boot,
                        state,
                        cards: Vec::new(),
                        volumes: samples::volumes(&wanted),
                    }),
                    record,
                    files: files.clone(),
                    guard: Guarding::default(),
                    ports: HashMap::new(),
                    has_room: true,
                    machine_boot: THIS,
                    transfer: None,
                    networks: HashMap::new(),
                    expected_at: None,
                    memory_saved: false,
                    memory: Memory {
                        seed_made: Some(Generation(1)),
                        missing_since: Some(NOW),
                        ended: None::<EndCause>,
                        tuned: wanted.disks().iter().map(tuning).collect(),
                        ..Memory::default()
                    },
                };
                let told = observe(&wanted, &seen).map_or("(the last word stands)".to_owned(), |o| {
                    format!("{:?} of boot {}", o.state, o.boot)
                });
                writeln!(
                    table,
                    "{wish:10} | domain {domain_label:10} | record {record_label:31} | {:34} | {told}",
                    show(&plan(&wanted, &seen, NOW))
                )
                .unwrap();
            }
        }
    }
    insta::assert_snapshot!(table);
}
