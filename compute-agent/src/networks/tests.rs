use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use protocol::Revision;
use protocol::agent::{
    DesiredBody, DesiredObject, DesiredPage, HostNetwork, InstanceSpec, NetworkFault, NetworkSubject,
};
use tokio::sync::watch;

use super::simulated::SimulatedNetworking;
use super::{Found, Keeper, NetworkStore, Part, Readiness};
use crate::clock::ManualClock;
use crate::report::Outbox;
use crate::samples::{fault, instance_id, networks, nic, running};

struct Host {
    dir: tempfile::TempDir,
    networking: Arc<SimulatedNetworking>,
    clock: Arc<ManualClock>,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), networking: Arc::default(), clock: Arc::default() }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join(name)).unwrap()
    }

    fn store(&self) -> Arc<NetworkStore> {
        Arc::new(NetworkStore::open(self.path("networks.json")).unwrap())
    }

    fn keeper(&self) -> (Arc<Keeper>, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::open(self.path("outbox")).unwrap());
        let networking = Arc::clone(&self.networking) as _;
        let clock = Arc::clone(&self.clock) as _;
        (Arc::new(Keeper::new(self.store(), networking, Arc::clone(&outbox), clock)), outbox)
    }

    fn set_fault(&self, subject: NetworkSubject) -> Vec<NetworkFault> {
        self.networking.set_faults(vec![fault(subject)]);
        vec![fault(subject)]
    }
}

fn page(revision: i64, complete: bool, networks: &HostNetwork) -> DesiredPage {
    let revision = Revision(revision);
    let body = DesiredBody::Network(Box::new(networks.clone()));
    DesiredPage { revision, complete, objects: vec![DesiredObject { revision, body }], requests: Vec::new() }
}

fn instance_with_cards() -> InstanceSpec {
    InstanceSpec { nics: vec![nic(1), nic(2)], ..running(instance_id()) }
}

#[test]
fn the_newest_document_is_there_after_a_restart_and_an_older_one_is_refused() {
    let host = Host::new();
    let (old, new) = (HostNetwork::default(), networks(&instance_with_cards()));
    assert_eq!(host.store().get(), None);
    assert!(host.store().take(&page(5, true, &new)).unwrap());
    assert!(!host.store().take(&page(5, false, &new)).unwrap(), "nothing new");
    assert!(!host.store().take(&page(4, false, &old)).unwrap(), "older");
    let nothing =
        DesiredPage { revision: Revision(9), complete: true, objects: Vec::new(), requests: Vec::new() };
    assert!(!host.store().take(&nothing).unwrap(), "silence changes nothing");
    assert_eq!(host.store().get().unwrap().networks, new);
    assert!(host.store().take(&page(4, true, &old)).unwrap(), "a restored database");
    assert_eq!(host.store().get().unwrap().revision, Revision(4));
}

#[test]
fn a_file_that_cannot_be_read_is_as_none() {
    let host = Host::new();
    std::fs::write(host.path("networks.json"), "{").unwrap();
    assert_eq!(host.store().get(), None);
}

#[tokio::test]
async fn ports_are_pending_then_ready_or_as_faulty_as_their_network() {
    let host = Host::new();
    let spec = instance_with_cards();
    let document = networks(&spec);
    let ports = [spec.nics[0].port_id, spec.nics[1].port_id];
    let readiness = |keeper: &Keeper| {
        let mut known = keeper.readiness(ports);
        ports.map(|port| known.remove(&port).unwrap())
    };
    assert_eq!(readiness(&host.keeper().0), [Readiness::Unnamed, Readiness::Unnamed]);
    host.store().take(&page(1, true, &document)).unwrap();
    let (keeper, _) = host.keeper();
    assert_eq!(readiness(&keeper), [Readiness::Pending, Readiness::Pending]);
    keeper.ensure().await;
    assert_eq!(readiness(&keeper), [Readiness::Ready, Readiness::Ready]);
    assert_eq!(keeper.changed().await, [spec.id].into());
    for (subject, expected) in [
        (NetworkSubject::Port(ports[0]), [Readiness::Faulty, Readiness::Ready]),
        (NetworkSubject::Network(spec.nics[0].network_id), [Readiness::Faulty, Readiness::Faulty]),
        (NetworkSubject::Host, [Readiness::Ready, Readiness::Ready]),
    ] {
        host.set_fault(subject);
        keeper.ensure().await;
        assert_eq!(readiness(&keeper), expected, "{subject:?}");
        assert_eq!(keeper.changed().await, [spec.id].into());
    }
}

#[tokio::test]
async fn the_host_is_repaired_without_being_asked_but_only_by_an_agent_that_may_act() {
    let host = Host::new();
    host.store().take(&page(1, true, &HostNetwork::default())).unwrap();
    let (keeper, _) = host.keeper();
    let acting = watch::Sender::new(false);
    let mut running = std::pin::pin!(keeper.run(acting.subscribe(), Duration::from_millis(1)));
    let mut run_for = async |millis| {
        let _ = tokio::time::timeout(Duration::from_millis(millis), &mut running).await;
        host.networking.converged()
    };
    assert_eq!(run_for(20).await, 0);
    acting.send_replace(true);
    assert!(run_for(200).await > 2);
    acting.send_replace(false);
    let before = run_for(20).await;
    assert_eq!(run_for(50).await, before);
}

#[tokio::test]
async fn a_host_that_runs_compares_itself_once_a_minute_and_each_time_while_something_differs() {
    let host = Host::new();
    host.store().take(&page(3, true, &HostNetwork::default())).unwrap();
    let (keeper, outbox) = host.keeper();
    let acting = watch::Sender::new(true);
    let mut running = std::pin::pin!(keeper.run(acting.subscribe(), Duration::from_millis(1)));
    let mut run = async || {
        let before = host.networking.looked();
        let _ = tokio::time::timeout(Duration::from_millis(50), &mut running).await;
        let check = outbox.outgoing(10).unwrap().network.unwrap().check.unwrap();
        (host.networking.looked() - before, check.differences, check.first)
    };
    assert_eq!(run().await, (1, 0, None));
    assert_eq!(run().await, (0, 0, None));
    let detail = "set device csv7 up".to_owned();
    let found = Found { part: Part::Devices, subject: NetworkSubject::Host, detail: detail.clone() };
    host.networking.set_differences(vec![found]);
    assert_eq!(run().await, (0, 0, None));
    host.clock.advance(Duration::from_secs(60));
    let (looks, differences, first) = run().await;
    assert!(looks > 2, "{looks}");
    assert_eq!((differences, first), (1, Some(detail)));
    host.networking.set_differences(Vec::new());
    assert_eq!(run().await, (1, 0, None));
}

#[tokio::test]
async fn what_came_of_it_is_reported_until_it_is_accepted_and_when_it_changes() {
    let host = Host::new();
    host.store().take(&page(3, true, &HostNetwork::default())).unwrap();
    let (keeper, outbox) = host.keeper();
    keeper.ensure().await;
    for _ in 0..2 {
        let report = outbox.outgoing(10).unwrap().network.unwrap();
        assert_eq!((report.revision, report.faults), (Revision(3), Vec::new()));
    }
    let sent = outbox.outgoing(10).unwrap();
    let faults = host.set_fault(NetworkSubject::Host);
    keeper.ensure().await;
    outbox.acknowledge(&sent, &[]).unwrap();
    let sent = outbox.outgoing(10).unwrap();
    assert_eq!(sent.network.as_ref().unwrap().faults, faults);
    outbox.acknowledge(&sent, &[]).unwrap();
    keeper.ensure().await;
    assert!(outbox.outgoing(10).is_none(), "nothing has changed");
    outbox.resend_all();
    assert!(outbox.outgoing(10).unwrap().network.is_some());
}
