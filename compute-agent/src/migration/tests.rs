//! Relays between two agents that are one process: who gets in, and what goes through.

mod disks;

use std::fs;
use std::net::Ipv4Addr;
use std::sync::LazyLock;

use camino::Utf8Path;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::hypervisor::simulated::{Simulated, SimulatedMachine};
use crate::hypervisor::{DomainSpec, Transfer};
use crate::samples::{instance_id, running};

type Authority = CertifiedIssuer<'static, KeyPair>;

static AUTHORITY: LazyLock<Authority> = LazyLock::new(authority);

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Makes a host of the cloud out of the folder, as joining does.
pub(crate) fn identify(state_dir: &Utf8Path, host: HostId) {
    identify_by(&AUTHORITY, state_dir, host);
}

fn identify_by(authority: &Authority, state_dir: &Utf8Path, host: HostId) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([format!("{host}.host.cumulo.internal")]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, authority).unwrap();
    let folder = state_dir.join("identity");
    fs::create_dir_all(&folder).unwrap();
    let membership = json!({"control_plane": "https://192.0.2.1:7443", "host_id": host, "name": "host"});
    for (name, text) in [
        ("key.pem", key.serialize_pem()),
        ("certificate.pem", certificate.pem()),
        ("ca.pem", AUTHORITY.pem()),
        ("control-plane.json", membership.to_string()),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
}

struct Side {
    dir: tempfile::TempDir,
    host: HostId,
    hypervisor: Arc<Simulated>,
    relays: Relays,
}

fn side() -> Side {
    let (dir, host) = (tempfile::tempdir().unwrap(), HostId::from(Uuid::now_v7()));
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    identify(&path, host);
    let hypervisor = Arc::new(Simulated::new(SimulatedMachine::new(Uuid::now_v7())));
    let relays = Relays::new(path, Some(Ipv4Addr::LOCALHOST.into()), Arc::clone(&hypervisor) as _);
    Side { dir, host, hypervisor, relays }
}

fn domain(id: InstanceId) -> DomainSpec {
    let spec = running(id);
    DomainSpec {
        id,
        generation: spec.generation,
        boot: spec.boot,
        hostname: spec.hostname,
        architecture: spec.architecture,
        uefi_variables: None,
        hardware: spec.hardware,
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        disks: Vec::new(),
        seed: "/nonexistent/seed".into(),
        nics: Vec::new(),
        serial_log: "/nonexistent/log".into(),
        request_id: None,
    }
}

async fn until(hypervisor: &Simulated, id: InstanceId, wanted: Transfer) {
    for _ in 0..500 {
        if hypervisor.transfer(id).await.ok() == Some(wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {wanted:?}: {:?}", hypervisor.transfer(id).await);
}

#[tokio::test]
async fn a_guest_goes_through_to_the_host_that_expects_it_from_there() {
    let (source, destination) = (side(), side());
    let (id, migration) = (instance_id(), MigrationId::from(Uuid::now_v7()));
    source.hypervisor.create(&domain(id)).await.unwrap();
    destination.hypervisor.create_waiting(&domain(id)).await.unwrap();
    destination.relays.expect(id, migration, source.host, Vec::new()).await.unwrap();
    let address = destination.relays.expected_at(id, migration).unwrap();
    assert_eq!(destination.relays.expected_at(id, MigrationId::from(Uuid::now_v7())), None);
    let way = source.relays.reach(id, migration, (destination.host, address)).await.unwrap();
    source.hypervisor.send(id, way, 300).await.unwrap();
    until(&source.hypervisor, id, Transfer::Sent).await;
    until(&destination.hypervisor, id, Transfer::Idle).await;
    assert!(source.hypervisor.resume(id).await.is_err(), "it runs there");
    destination.hypervisor.resume(id).await.unwrap();
    // One guest, one connection.
    assert!(source.relays.reach(id, migration, (destination.host, address)).await.is_err());
}

#[tokio::test]
async fn nobody_else_gets_in_and_the_guest_goes_nowhere_else() {
    let (source, destination, third) = (side(), side(), side());
    let (id, migration) = (instance_id(), MigrationId::from(Uuid::now_v7()));
    destination.hypervisor.create_waiting(&domain(id)).await.unwrap();
    destination.relays.expect(id, migration, source.host, Vec::new()).await.unwrap();
    let address = destination.relays.expected_at(id, migration).unwrap();
    // The source turns away who is not the destination, whatever it listens at.
    let other = side();
    other.relays.expect(id, migration, source.host, Vec::new()).await.unwrap();
    let elsewhere = other.relays.expected_at(id, migration).unwrap();
    let wrong = source.relays.reach(id, migration, (destination.host, elsewhere)).await.unwrap_err();
    assert_eq!(wrong.kind(), io::ErrorKind::PermissionDenied);
    // A host of the cloud that is not the source, one of another cloud, and one that says nothing.
    if let Ok(way) = third.relays.reach(id, migration, (destination.host, address)).await {
        third.hypervisor.create(&domain(id)).await.unwrap();
        third.hypervisor.send(id, way, 300).await.unwrap();
        until(&third.hypervisor, id, Transfer::Idle).await;
    }
    let path = Utf8PathBuf::from_path_buf(third.dir.path().to_owned()).unwrap();
    identify_by(&authority(), &path, source.host);
    if let Ok(way) = third.relays.reach(id, migration, (destination.host, address)).await {
        let _ = third.hypervisor.create(&domain(id)).await;
        third.hypervisor.send(id, way, 300).await.unwrap();
        until(&third.hypervisor, id, Transfer::Idle).await;
    }
    drop(TcpStream::connect(address).await.unwrap());
    // These stay, and say nothing: nobody waits for them.
    let silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    assert_eq!(destination.hypervisor.transfer(id).await.unwrap(), Transfer::Waiting);
    // And the right one all the same.
    source.hypervisor.create(&domain(id)).await.unwrap();
    let way = source.relays.reach(id, migration, (destination.host, address));
    let way = timeout(HANDSHAKE / 2, way).await.expect("it waits for the silent ones").unwrap();
    source.hypervisor.send(id, way, 300).await.unwrap();
    until(&source.hypervisor, id, Transfer::Sent).await;
    drop(silent);
}

#[tokio::test]
async fn what_breaks_off_leaves_the_guest_where_it_was() {
    let (source, destination) = (side(), side());
    let (id, migration) = (instance_id(), MigrationId::from(Uuid::now_v7()));
    source.hypervisor.create(&domain(id)).await.unwrap();
    destination.hypervisor.create_waiting(&domain(id)).await.unwrap();
    destination.relays.expect(id, migration, source.host, Vec::new()).await.unwrap();
    let address = destination.relays.expected_at(id, migration).unwrap();
    let way = source.relays.reach(id, migration, (destination.host, address)).await.unwrap();
    // Its agent dies.
    source.relays.forget(id);
    tokio::time::sleep(Duration::from_millis(50)).await;
    source.hypervisor.send(id, way, 300).await.unwrap();
    until(&source.hypervisor, id, Transfer::Idle).await;
    source.hypervisor.resume(id).await.unwrap();
}
