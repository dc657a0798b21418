//! Guests between two hosts, with agents that are killed at each step on either side: one runs, never two. Their disks are
//! on their host, unless a test says otherwise.

mod disks;
mod guarded;

use std::net::SocketAddr;
use std::time::Duration;

use protocol::agent::{
    DesiredBody, HostNetwork, InstanceSpec, Migration, MigrationState, NetworkSubject, Power, StopMode,
};
use protocol::{Generation, HostId, MigrationId};

use super::*;
use crate::guard::tests::FakeGuard;
use crate::hypervisor::simulated::Call;
use crate::migration::tests::identify;

/// For how long the machine is up.
fn up(host: &Host) -> crate::guard::clock::Moment {
    crate::guard::clock::BootClock::now(host.clock.as_ref())
}

/// Two hosts, and the control plane between them.
struct Two {
    hosts: [Host; 2],
    ids: [HostId; 2],
    /// Those that are at work.
    guards: [Option<FakeGuard>; 2],
    spec: InstanceSpec,
    migration: MigrationId,
    /// Whose the instance is.
    owner: usize,
    is_over: bool,
    cancelled: bool,
    /// Whether it is cancelled once the guest is on its way.
    cancelled_midway: bool,
    expected_at: Option<SocketAddr>,
    told: [Option<DesiredBody>; 2],
}

const HOME: usize = 0;
const AWAY: usize = 1;

impl Two {
    async fn start() -> Self {
        Self::start_with(samples::running(samples::instance_id())).await
    }

    async fn start_with(spec: InstanceSpec) -> Self {
        Self::start_on([Host::new(), Host::new()], [None, None], spec).await
    }

    async fn start_on(hosts: [Host; 2], guards: [Option<FakeGuard>; 2], spec: InstanceSpec) -> Self {
        let ids = [HostId::from(Uuid::now_v7()), HostId::from(Uuid::now_v7())];
        for (host, id) in hosts.iter().zip(ids) {
            identify(&host.folder("."), id);
        }
        let migration = MigrationId::from(Uuid::now_v7());
        let mut two = Self {
            hosts,
            ids,
            guards,
            spec,
            migration,
            owner: HOME,
            is_over: false,
            cancelled: false,
            cancelled_midway: false,
            expected_at: None,
            told: [None, None],
        };
        let life = two.agent(HOME, NEVER);
        life.want(samples::wish(&two.spec));
        life.want_networks(1, &samples::networks(&two.spec));
        two.settle(HOME, &life).await;
        two.spec = samples::next(&two.spec);
        let incoming = Migration::Incoming { id: migration, source: two.ids[HOME] };
        two.told = [Some(samples::wish(&two.spec)), Some(two.wish(Some(incoming)))];
        two
    }

    /// An agent that has heard of the control plane.
    fn agent(&self, index: usize, kill_at: u64) -> Life {
        let life = self.hosts[index].start_agent(kill_at);
        life.reconciler.confirmed();
        life
    }

    /// The guard of a host does its work, and the agent hears of the control plane.
    fn guard(&mut self, index: usize, life: &Life) {
        let now = up(&self.hosts[index]);
        if let Some(guard) = &mut self.guards[index] {
            guard.renew(now);
            guard.look(now);
            life.reconciler.parts.guards.heard(now);
        }
    }

    async fn settle(&mut self, index: usize, life: &Life) {
        for _ in 0..100 {
            self.guard(index, life);
            match life.reconciler.pass(self.spec.id).await {
                Outcome::Settled => return,
                Outcome::Wait(until) => life.clock.advance_to(until),
                _ => {}
            }
        }
        panic!("it never comes to rest");
    }

    /// Whatever a domain does, the guard goes by what is written down of it as long as it is there.
    async fn check_guarded(&self) {
        for (host, guard) in self.hosts.iter().zip(&self.guards) {
            let Some(guard) = guard else { continue };
            for domain in host.hypervisor.domains().await.unwrap() {
                let entry = guard.entry(domain.id);
                assert!(entry.is_some_and(|entry| entry.boot == domain.boot), "it is not guarded");
            }
        }
    }

    fn wish(&self, migration: Option<Migration>) -> DesiredBody {
        samples::wish(&InstanceSpec { migration, ..self.spec.clone() })
    }

    fn send(&self, cancelled: bool) -> DesiredBody {
        self.wish(Some(Migration::Outgoing {
            id: self.migration,
            destination: self.ids[AWAY],
            address: self.expected_at.unwrap(),
            max_downtime_ms: 300,
            cancelled,
        }))
    }

    fn let_go(&self) -> DesiredBody {
        DesiredBody::DeleteInstance {
            id: self.spec.id,
            generation: self.spec.generation,
            layers: Vec::new(),
            pools: Vec::new(),
            operation_id: None,
        }
    }

    /// As the control plane takes in what a host says of the migration.
    fn hear(&mut self, host: usize, said: &MigrationState) {
        if self.is_over {
            return;
        }
        match said {
            MigrationState::Ready { address } if host == AWAY => {
                self.expected_at = Some(*address);
                self.told[HOME] = Some(self.send(self.cancelled));
            }
            MigrationState::Mirroring { .. } | MigrationState::Transferring { .. }
                if self.cancelled_midway =>
            {
                self.cancelled = true;
                self.told[HOME] = Some(self.send(true));
            }
            MigrationState::HandedOver => {
                assert_eq!(host, HOME);
                self.is_over = true;
                self.owner = AWAY;
                self.spec.generation = Generation(self.spec.generation.0 + 1);
                self.told = [Some(self.let_go()), Some(self.wish(None))];
            }
            MigrationState::Ended { .. } | MigrationState::Refused { .. } => {
                self.is_over = true;
                self.told = [Some(self.wish(None)), Some(self.let_go())];
            }
            _ => {}
        }
    }

    /// The document of the destination before the guest is its own: no port of it is named.
    fn networks_on_the_way(&self) -> HostNetwork {
        let mut networks = samples::networks(&self.spec);
        networks.networks.iter_mut().for_each(|network| network.ports.clear());
        networks
    }

    async fn running(&self) -> Vec<usize> {
        let mut running = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            let domains = host.hypervisor.domains().await.unwrap();
            if domains.iter().any(|domain| domain.state == DomainState::Running) {
                running.push(index);
            }
        }
        running
    }

    /// Lets both agents work, the killed ones anew, until the migration is over and nothing moves any more. True when
    /// somebody was killed.
    async fn play(&mut self, kill_at: [u64; 2]) -> bool {
        let mut lives = [HOME, AWAY].map(|index| self.agent(index, kill_at[index]));
        let (mut was_killed, mut quiet) = (false, 0);
        for _ in 0..400 {
            let mut settled = 0;
            for index in [HOME, AWAY] {
                if let Some(told) = &self.told[index] {
                    lives[index].want(told.clone());
                }
                while let Ok(event) = lives[index].events.try_recv() {
                    if let Event::Ended { id, why } = event {
                        lives[index].reconciler.ended(id, why);
                    }
                }
                self.guard(index, &lives[index]);
                match lives[index].reconciler.pass(self.spec.id).await {
                    Outcome::Interrupted => {
                        was_killed = true;
                        lives[index] = self.agent(index, NEVER);
                    }
                    Outcome::Wait(until) => lives[index].clock.advance_to(until),
                    Outcome::Settled => settled += 1,
                    _ => {}
                }
                if let Some(said) = lives[index].outbox.migration(self.spec.id) {
                    self.hear(index, &said.state);
                }
                assert!(self.running().await.len() < 2, "it runs on both");
                self.check_guarded().await;
            }
            quiet = if self.is_over && settled == 2 { quiet + 1 } else { 0 };
            if quiet == 3 {
                return was_killed;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("it never ends: {:?}", self.told);
    }

    /// Lets both agents do one thing, and gives the control plane what those that it hears say.
    async fn turn(&mut self, lives: &[Life; 2], heard: &[usize]) {
        for index in [HOME, AWAY] {
            self.act(index, &lives[index], heard.contains(&index)).await;
        }
        // The bytes of the guest take a moment.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    async fn act(&mut self, index: usize, life: &Life, is_heard: bool) {
        life.want(self.told[index].clone().unwrap());
        self.guard(index, life);
        if let Outcome::Wait(until) = life.reconciler.pass(self.spec.id).await {
            life.clock.advance_to(until);
        }
        self.check_guarded().await;
        if let Some(said) = life.outbox.migration(self.spec.id).filter(|_| is_heard) {
            self.hear(index, &said.state);
        }
    }

    /// It runs where it belongs, without having been started anew, and nothing of it is elsewhere.
    async fn check(&self, what: &str) {
        let id = self.spec.id;
        assert_eq!(self.running().await, [self.owner], "{what}");
        let starts = self.hosts.iter().map(|host| host.hypervisor.starts(id, 1)).sum::<u32>();
        assert_eq!(starts, 1, "{what}");
        let other = self.hosts[1 - self.owner].hypervisor.domains().await.unwrap();
        assert_eq!(other.len(), 0, "{what}");
    }
}

#[tokio::test]
async fn a_guest_goes_to_the_other_host_and_is_not_started_there() {
    let mut two = Two::start().await;
    assert!(!two.play([NEVER, NEVER]).await);
    assert_eq!(two.owner, AWAY);
    two.check("nobody was killed").await;
}

#[tokio::test]
async fn whoever_is_killed_wherever_one_guest_runs() {
    for side in [HOME, AWAY] {
        let mut went = 0;
        for step in 0.. {
            let mut two = Two::start().await;
            let mut kill_at = [NEVER; 2];
            kill_at[side] = step;
            let was_killed = two.play(kill_at).await;
            two.check(&format!("side {side} at step {step}")).await;
            went += usize::from(two.owner == AWAY);
            if !was_killed {
                break;
            }
        }
        assert!(went > 1, "of side {side}, it never went");
    }
}

#[tokio::test]
async fn a_source_that_is_asked_to_stop_before_it_has_begun_keeps_the_guest() {
    let mut two = Two::start().await;
    two.cancelled = true;
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("cancelled").await;
}

#[tokio::test]
async fn a_guest_that_was_handed_over_and_that_nobody_has_never_runs_again() {
    let mut two = Two::start().await;
    // The control plane hears nothing of the source any more, and gives the migration up.
    let lives = [HOME, AWAY].map(|index| two.hosts[index].start_agent(NEVER));
    for _ in 0..400 {
        two.turn(&lives, &[AWAY]).await;
        let said = lives[HOME].outbox.migration(two.spec.id);
        if said.is_some_and(|said| said.state == MigrationState::HandedOver) {
            break;
        }
    }
    assert_eq!(two.running().await, [0_usize; 0]);
    two.spec.generation = Generation(two.spec.generation.0 + 1);
    lives[HOME].want(two.wish(None));
    let mut life = two.hosts[HOME].start_agent(NEVER);
    life.settle(two.spec.id).await;
    assert_eq!(two.running().await, [0_usize; 0]);
    assert!(matches!(life.state(two.spec.id), ObservedState::Stopped { .. }));
}

/// None that would have to be mirrored.
fn without_disks() -> InstanceSpec {
    InstanceSpec { disks: Vec::new(), ..samples::running(samples::instance_id()) }
}

fn with_a_card() -> InstanceSpec {
    InstanceSpec { nics: vec![samples::nic(1)], ..samples::running(samples::instance_id()) }
}

/// A card finds no bridge before that.
#[tokio::test]
async fn a_guest_is_expected_when_its_networks_are_there() {
    let mut two = Two::start_with(with_a_card()).await;
    let network = two.spec.nics[0].network_id;
    let away = two.hosts[AWAY].start_agent(NEVER);
    away.want(two.told[AWAY].clone().unwrap());
    let nothing_is_made = async |two: &Two| {
        assert!(matches!(away.reconciler.pass(two.spec.id).await, Outcome::Wait(_)));
        assert_eq!(two.hosts[AWAY].hypervisor.domains().await.unwrap(), []);
        assert_eq!(away.outbox.migration(two.spec.id), None, "it may come yet");
    };
    nothing_is_made(&two).await;
    two.hosts[AWAY].networking.set_faults(vec![samples::fault(NetworkSubject::Network(network))]);
    away.want_networks(1, &two.networks_on_the_way());
    nothing_is_made(&two).await;
    two.hosts[AWAY].networking.set_faults(Vec::new());
    away.keeper.ensure().await;
    away.reconciler.pass(two.spec.id).await;
    assert_eq!(two.hosts[AWAY].hypervisor.domains().await.unwrap().len(), 1);
    let said = away.outbox.migration(two.spec.id).unwrap();
    assert!(matches!(said.state, MigrationState::Ready { .. }), "{said:?}");
    drop(away);
    // With the change of hands, the port is named, too.
    let home = two.hosts[HOME].start_agent(NEVER);
    home.want_networks(2, &samples::networks(&two.spec));
    let away = two.hosts[AWAY].start_agent(NEVER);
    away.want_networks(2, &samples::networks(&two.spec));
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, AWAY);
    two.check("its networks were awaited").await;
}

#[tokio::test]
async fn a_domain_that_could_not_be_made_at_once_is_tried_again() {
    let mut two = Two::start().await;
    two.hosts[AWAY].hypervisor.fail_next(Call::Create, 3);
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, AWAY);
    two.check("made at the fourth attempt").await;
}

#[tokio::test]
async fn a_domain_that_cannot_be_made_is_given_up_and_the_guest_stays() {
    let mut two = Two::start().await;
    two.hosts[AWAY].hypervisor.fail_next(Call::Create, u32::MAX);
    let away = two.hosts[AWAY].start_agent(NEVER);
    away.want(two.told[AWAY].clone().unwrap());
    let begun = away.clock.now();
    let said = loop {
        assert!(matches!(away.reconciler.pass(two.spec.id).await, Outcome::Failed(_)));
        if let Some(said) = away.outbox.migration(two.spec.id) {
            break said;
        }
        away.clock.advance_to(away.clock.now() + Duration::from_secs(20));
    };
    assert_eq!(away.clock.now() - begun, Duration::from_secs(60));
    assert!(matches!(said.state, MigrationState::Refused { .. }), "{said:?}");
    two.hear(AWAY, &said.state);
    drop(away);
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("it stays").await;
}

#[tokio::test]
async fn a_host_that_cannot_open_a_way_says_so_at_once_and_the_guest_stays() {
    let mut two = Two::start().await;
    // Like an address that it does not have: it has nothing to listen with.
    std::fs::remove_dir_all(two.hosts[AWAY].folder("identity")).unwrap();
    let away = two.hosts[AWAY].start_agent(NEVER);
    away.want(two.told[AWAY].clone().unwrap());
    let said = loop {
        if matches!(away.reconciler.pass(two.spec.id).await, Outcome::Failed(_)) {
            break away.outbox.migration(two.spec.id).expect("it says nothing");
        }
    };
    let detail = "The other host could not open a way for the guest.".to_owned();
    assert_eq!(said.state, MigrationState::Refused { detail });
    two.hear(AWAY, &said.state);
    drop(away);
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("it stays").await;
}

#[tokio::test]
async fn a_guest_does_not_stand_still_for_a_host_that_says_nothing() {
    let mut two = Two::start_with(without_disks()).await;
    two.hosts[AWAY].hypervisor.fail_next(Call::Arrive, u32::MAX);
    let begun = two.hosts[HOME].clock.now();
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("called back").await;
    let stood = two.hosts[HOME].clock.now() - begun;
    assert!(stood < Duration::from_secs(15), "{stood}");
}

#[tokio::test]
async fn what_could_not_be_called_off_is_called_off_again() {
    let mut two = Two::start_with(without_disks()).await;
    two.cancelled_midway = true;
    two.hosts[AWAY].hypervisor.fail_next(Call::Arrive, u32::MAX);
    two.hosts[HOME].hypervisor.fail_next(Call::CancelSending, 1);
    let begun = two.hosts[HOME].clock.now();
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("called off twice").await;
    let took = two.hosts[HOME].clock.now() - begun;
    assert!((5..9).contains(&took.whole_seconds()), "{took}");
}

/// The change of hands has been heard of, and the next thing that its owner wants.
async fn arrived_with(change: impl FnOnce(&mut InstanceSpec)) -> (Two, Life) {
    let mut two = Two::start_with(with_a_card()).await;
    let away = two.hosts[AWAY].start_agent(NEVER);
    away.want_networks(1, &two.networks_on_the_way());
    drop(away);
    let lives = [HOME, AWAY].map(|index| two.hosts[index].start_agent(NEVER));
    for _ in 0..400 {
        two.turn(&lives, &[HOME, AWAY]).await;
        if two.owner == AWAY {
            break;
        }
    }
    assert_eq!(two.owner, AWAY);
    change(&mut two.spec);
    let [_, away] = lives;
    away.want(two.wish(None));
    (two, away)
}

#[tokio::test]
async fn one_that_is_stopped_as_it_comes_goes_on_to_hear_of_it() {
    let (two, mut away) = arrived_with(|spec| {
        spec.power = Power::Stopped;
        spec.stop = StopMode::Graceful { timeout_seconds: 60 };
    })
    .await;
    away.want_networks(2, &samples::networks(&two.spec));
    let begun = away.clock.now();
    away.settle(two.spec.id).await;
    assert!(matches!(away.state(two.spec.id), ObservedState::Stopped { .. }));
    assert!(away.clock.now() - begun < Duration::from_secs(30), "its power was cut");
}

#[tokio::test]
async fn one_whose_power_is_cut_as_it_comes_waits_for_no_network() {
    let (two, mut away) = arrived_with(|spec| {
        spec.power = Power::Stopped;
        spec.stop = StopMode::Force;
    })
    .await;
    away.settle(two.spec.id).await;
    assert!(matches!(away.state(two.spec.id), ObservedState::Stopped { .. }));
    assert_eq!(two.hosts[AWAY].hypervisor.domains().await.unwrap(), []);
}
