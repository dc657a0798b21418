//! Instances with network cards: started when their network is there, changed while they run.

use std::time::Duration;

use protocol::agent::{
    DesiredBody, DesiredObject, DesiredPage, HostNetwork, InstanceSpec, NetworkSubject, ObservedState, Power,
    Step as Told, StopMode,
};
use protocol::{InstanceId, MacAddress, Revision};

use super::{Host, Life, NEVER, Outcome};
use crate::hypervisor::Hypervisor;
use crate::hypervisor::simulated::Call;
use crate::samples::{fault, instance_id, networks, next, nic, running, wish};

impl Life {
    pub(super) fn want_networks(&self, revision: i64, networks: &HostNetwork) {
        let revision = Revision(revision);
        let body = DesiredBody::Network(Box::new(networks.clone()));
        let objects = vec![DesiredObject { revision, body }];
        self.networks
            .take(&DesiredPage { revision, complete: false, objects, requests: Vec::new() })
            .unwrap();
    }

    fn detail(&self, id: InstanceId) -> String {
        self.outbox.latest(id).unwrap().0.detail.unwrap_or_default()
    }

    fn leaving_cards(&self, id: InstanceId) -> Vec<MacAddress> {
        self.outbox.latest(id).unwrap().0.leaving_cards.unwrap()
    }
}

impl Host {
    async fn cards(&self, id: InstanceId) -> Vec<MacAddress> {
        let domains = self.hypervisor.domains().await.unwrap();
        let domain = domains.into_iter().find(|domain| domain.id == id).unwrap();
        domain.cards.into_iter().map(|card| card.mac).collect()
    }
}

fn with_cards(cards: &[u8]) -> InstanceSpec {
    InstanceSpec { nics: cards.iter().map(|n| nic(*n)).collect(), ..running(instance_id()) }
}

async fn running_with_cards(host: &Host, cards: &[u8]) -> (Life, InstanceSpec) {
    let mut life = host.start_agent(NEVER);
    let spec = with_cards(cards);
    life.want(wish(&spec));
    life.want_networks(1, &networks(&spec));
    life.settle(spec.id).await;
    (life, spec)
}

#[tokio::test]
async fn an_instance_starts_when_its_network_is_there() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    let spec = with_cards(&[1]);
    life.want(wish(&spec));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert_eq!(life.state(spec.id), ObservedState::Preparing);
    assert_eq!(life.detail(spec.id), "The host waits to hear of the network of the card 02:00:00:00:00:01.");

    life.want_networks(1, &networks(&spec));
    life.settle(spec.id).await;
    assert_eq!((life.state(spec.id), life.detail(spec.id)), (ObservedState::Running, String::new()));
    assert_eq!(host.cards(spec.id).await, [spec.nics[0].mac]);
    use Told::{AgentReceived, DiskMade, DomainDefined, ImageCached, NetworkReady, Running, SeedMade};
    let trail = [AgentReceived, ImageCached, DiskMade, NetworkReady, SeedMade, DomainDefined, Running];
    assert_eq!(life.steps(spec.id), trail);
}

#[tokio::test]
async fn an_instance_whose_card_cannot_be_made_waits_and_says_why() {
    let host = Host::new();
    let mut life = host.start_agent(NEVER);
    let spec = with_cards(&[1, 2]);
    host.networking.set_faults(vec![fault(NetworkSubject::Port(spec.nics[1].port_id))]);
    life.want(wish(&spec));
    life.want_networks(1, &networks(&spec));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert_eq!(life.state(spec.id), ObservedState::Preparing);
    assert_eq!(
        life.detail(spec.id),
        "The host cannot make the network card 02:00:00:00:00:02 yet; an operator can see why."
    );
    assert!(!life.steps(spec.id).contains(&Told::NetworkReady));

    host.networking.set_faults(Vec::new());
    life.keeper.ensure().await;
    assert_eq!(life.keeper.changed().await, [spec.id].into());
    life.settle(spec.id).await;
    assert_eq!(life.state(spec.id), ObservedState::Running);
    assert!(life.steps(spec.id).contains(&Told::NetworkReady));
}

#[tokio::test]
async fn a_card_is_plugged_in_while_the_instance_runs() {
    let host = Host::new();
    let (mut life, spec) = running_with_cards(&host, &[1]).await;
    let mut more = next(&spec);
    more.nics.push(nic(2));
    life.want(wish(&more));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)), "its network is not known yet");
    assert!(life.detail(spec.id).contains("02:00:00:00:00:02"));
    life.want_networks(2, &networks(&more));
    host.hypervisor.fail_next(Call::AttachCard, 1);
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Failed(_)));
    assert_eq!(life.detail(spec.id), "The host could not plug a network card in.");
    life.settle(spec.id).await;
    assert_eq!(host.cards(spec.id).await, [spec.nics[0].mac, more.nics[1].mac]);
    assert_eq!((life.state(spec.id), life.detail(spec.id)), (ObservedState::Running, String::new()));
    assert_eq!(host.hypervisor.starts(spec.id, 1), 1);
}

#[tokio::test]
async fn a_guest_is_asked_again_to_let_go_of_a_card_and_nothing_waits_for_it() {
    let host = Host::new();
    let (mut life, spec) = running_with_cards(&host, &[1, 2]).await;
    host.hypervisor.set_guests_release_devices(false);
    let mut fewer = next(&spec);
    fewer.nics = vec![spec.nics[1].clone(), nic(3)];
    life.want(wish(&fewer));
    life.want_networks(2, &networks(&fewer));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert_eq!(host.cards(spec.id).await.len(), 3, "the new card is there all the same");
    assert_eq!(
        life.detail(spec.id),
        "The guest has been asked to let go of the network card 02:00:00:00:00:01."
    );
    assert_eq!(host.hypervisor.detachments_asked(), 1);
    assert_eq!(life.leaving_cards(spec.id), [spec.nics[0].mac], "the control plane is told who has it");
    host.clock.advance(Duration::from_secs(14));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert_eq!(host.hypervisor.detachments_asked(), 1);
    host.hypervisor.set_guests_release_devices(true);
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.detachments_asked(), 2);
    assert_eq!(host.cards(spec.id).await, [fewer.nics[0].mac, fewer.nics[1].mac]);
    assert_eq!((life.detail(spec.id), life.leaving_cards(spec.id)), (String::new(), Vec::new()));
}

#[tokio::test]
async fn a_guest_that_is_stopped_has_let_go_of_its_cards() {
    let host = Host::new();
    let (mut life, spec) = running_with_cards(&host, &[1]).await;
    host.hypervisor.set_guests_release_devices(false);
    let without = InstanceSpec { nics: Vec::new(), ..next(&spec) };
    life.want(wish(&without));
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    assert_eq!(life.leaving_cards(spec.id), [spec.nics[0].mac]);
    let off = InstanceSpec { power: Power::Stopped, stop: StopMode::Force, ..next(&without) };
    life.want(wish(&off));
    life.settle(spec.id).await;
    assert_eq!(life.leaving_cards(spec.id), []);
}

#[tokio::test]
async fn another_port_with_the_same_address_takes_the_place_of_the_first() {
    let host = Host::new();
    let (mut life, spec) = running_with_cards(&host, &[1]).await;
    let other = InstanceSpec { nics: vec![nic(1)], ..next(&spec) };
    life.want(wish(&other));
    life.want_networks(2, &networks(&other));
    life.settle(spec.id).await;
    let domains = host.hypervisor.domains().await.unwrap();
    assert_eq!(domains[0].cards, [crate::hypervisor::Card::of(&other.nics[0])]);
}
