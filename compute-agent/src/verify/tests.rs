//! What is found of a host whose state lies in a folder of the test.

use std::fs;

use protocol::agent::{DesiredBody, InstanceSpec, SharedPoolReport, SharedPoolState};
use protocol::{LayerId, Name, NetworkId};
use storage::Pool;
use time::macros::datetime;

use super::*;
use crate::desired::Wanted;
use crate::hypervisor::{Card, DomainState};
use crate::samples;

#[test]
fn what_is_found_is_a_table_and_a_sentence() {
    let clean = Report { revision: Some(Revision(7)), instances: 2, differences: Vec::new() };
    assert_eq!(clean.to_string(), "The host is as wanted: 2 instances and revision 7 of the networks.");
    let network = DriftSubject::Network(NetworkId::from_uuid(Uuid::nil()));
    let differences = vec![
        Difference::new(DriftCode::NetworkDeviceDiffers, network, "make device cbr7".to_owned()),
        Difference::passing("instances", DriftSubject::Host, "wait".to_owned()),
    ];
    let expected = "\
PART       ABOUT                                         TO BE DONE
devices    network 00000000-0000-0000-0000-000000000000  make device cbr7
instances  host                                          wait
2 differences from what is wanted: 0 instances; the host was never told of networks.";
    let told: Vec<_> = differences.iter().cloned().filter_map(Difference::told).collect();
    assert_eq!(Report { revision: None, instances: 0, differences }.to_string(), expected);
    let (code, detail) = (DriftCode::NetworkDeviceDiffers, "make device cbr7".to_owned());
    assert_eq!(told, [HostDifference { code, about: network, detail }]);
}
const NOW: OffsetDateTime = datetime!(2030-01-01 00:00 UTC);

/// A host with one running guest, all of whose disk is in a shared pool.
struct Scene {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
    pool: Name,
    spec: InstanceSpec,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let work = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        let (root, pool): (_, Name) = (work.join("shared"), "fast".parse().unwrap());
        fs::create_dir(&root).unwrap();
        Pool::make_shared(&pool, &root).unwrap();
        let mut spec = samples::running(samples::instance_id());
        spec.disks[0].volume.pool = Some(pool.clone());
        let scene = Self { _dir: dir, root, pool, spec };
        scene.write_state(&work.join("state"));
        scene
    }

    fn state_dir(&self) -> Utf8PathBuf {
        self.root.with_file_name("state")
    }

    fn write_state(&self, state_dir: &Utf8Path) {
        let [layer, image] = self.files();
        for file in [layer, image, state_dir.join(format!("pool/instances/{}/seed.img", self.spec.id))] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        for folder in ["images", "layers", "incoming"] {
            fs::create_dir(state_dir.join("pool").join(folder)).unwrap();
        }
        let settings = Settings {
            libvirt_uri: None,
            underlay_address: None,
            external_interface: None,
            protected_networks: Vec::new(),
            shared_pools: [(self.pool.clone(), self.root.clone())].into(),
        };
        settings.keep(state_dir).unwrap();
        self.want(samples::wish(&self.spec));
        let boots = Boots::open(state_dir.join("boots")).unwrap();
        let started = serde_json::json!({"boot": 1, "machine_boot": Uuid::nil(), "phase": "started"});
        boots.put(self.spec.id, serde_json::from_value(started).unwrap()).unwrap();
    }

    fn want(&self, wish: DesiredBody) {
        let desired = DesiredStore::open(self.state_dir().join("desired")).unwrap();
        desired.take(&samples::page(true, [wish])).unwrap();
    }

    /// Those in the shared pool.
    fn files(&self) -> [Utf8PathBuf; 2] {
        let layer = LayerId::from_uuid(self.spec.id.as_uuid());
        [format!("layers/{layer}.qcow2"), format!("images/{}.qcow2", samples::IMAGE_SHA256)]
            .map(|name| self.root.join(name))
    }

    fn domain_of(spec: &InstanceSpec) -> Domain {
        Domain {
            id: spec.id,
            generation: spec.generation,
            boot: 1,
            state: DomainState::Running,
            cards: Vec::new(),
            volumes: samples::volumes(&Wanted::Instance(Box::new(spec.clone()))),
        }
    }

    /// What is found, when the storage of the agent says that of the pool.
    async fn found(&self, state: Option<SharedPoolState>) -> Vec<(DriftCode, String)> {
        let host = Host::read(&self.state_dir(), Uuid::nil()).unwrap();
        let domain = Self::domain_of(&self.spec);
        let states: Vec<_> =
            state.into_iter().map(|state| SharedPoolReport { name: self.pool.clone(), state }).collect();
        let (shared, mut found) = host.shared_pools(&states).await;
        let domains = [(domain.id, domain)].into();
        found.extend(host.beside_networks(&domains, shared, Uuid::nil(), NOW).unwrap());
        found.into_iter().filter_map(|one| Some((one.code?, one.detail))).collect()
    }
}

#[tokio::test]
async fn of_a_guest_nothing_is_said_to_be_lost_while_its_shared_pool_cannot_be_read() {
    let scene = Scene::new();
    let ready = || SharedPoolState::Ready { identity: Uuid::nil(), total_bytes: 2, free_bytes: 1 };
    assert_eq!(scene.found(Some(ready())).await, []);
    assert_eq!(scene.found(None).await, []);

    let unusable = |why: &str| (DriftCode::PoolUnusable, format!("make the shared pool fast usable: {why}"));
    let silent = SharedPoolState::Unusable { reason: "it does not answer".to_owned() };
    assert_eq!(scene.found(Some(silent)).await, [unusable("it does not answer")]);
    let away = scene.root.with_file_name("away");
    fs::rename(&scene.root, &away).unwrap();
    fs::create_dir(&scene.root).unwrap();
    let not_mounted = unusable("its directory holds no pool: is its file system mounted?");
    assert_eq!(scene.found(Some(ready())).await, std::slice::from_ref(&not_mounted));
    assert_eq!(scene.found(None).await, std::slice::from_ref(&not_mounted));
    // What is to be done with it is not known either.
    let stopped = samples::stopped(&scene.spec, samples::GRACEFUL);
    scene.want(samples::wish(&stopped));
    assert_eq!(scene.found(None).await, [not_mounted]);
    fs::remove_dir(&scene.root).unwrap();
    fs::rename(&away, &scene.root).unwrap();
    assert_eq!(scene.found(None).await, [(DriftCode::InstanceDiffers, "ask its guest to stop".to_owned())]);
    scene.want(samples::wish(&samples::resumed(&stopped)));

    fs::remove_file(&scene.files()[0]).unwrap();
    let lost = "stop and start it: it runs, but its disk is gone";
    assert_eq!(scene.found(None).await, [(DriftCode::InstanceFileMissing, lost.to_owned())]);
}

#[tokio::test]
async fn a_pool_that_the_host_was_never_told_of_is_named() {
    let scene = Scene::new();
    let mut settings = Settings::read(&scene.state_dir()).unwrap();
    settings.shared_pools.clear();
    settings.keep(&scene.state_dir()).unwrap();
    let why = "make the shared pool fast usable: this host was told of none of that name".to_owned();
    assert_eq!(scene.found(None).await, [(DriftCode::PoolUnusable, why)]);
}

/// After a restored backup, say.
#[tokio::test]
async fn files_of_a_guest_that_nobody_knows_and_that_has_ended_are_named() {
    let scene = Scene::new();
    let mut spec = samples::running("0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap());
    spec.disks[0].volume.pool = None;
    let layer = spec.disks[0].volume.layers[0];
    // It was cloned from one that is still wanted.
    let below = LayerId::from(Uuid::now_v7());
    spec.disks[0].volume.layers.insert(0, below);
    let mut other = scene.spec.clone();
    other.disks.push(spec.disks[0].clone());
    other.disks[1].volume.layers = vec![below];
    fs::write(scene.state_dir().join(format!("pool/layers/{below}.qcow2")), "").unwrap();
    fs::write(scene.state_dir().join(format!("pool/layers/{layer}.qcow2")), "").unwrap();
    scene.want(samples::wish(&spec));
    // A new disk of the other one is another difference.
    let named = async || {
        let found = scene.found(None).await.into_iter();
        found.filter(|(code, _)| *code == DriftCode::UnknownFiles).collect::<Vec<_>>()
    };
    let unknown = |detail: &str| (DriftCode::UnknownFiles, format!("decide about {detail}"));
    // The other one is the only one that is wanted now.
    scene.want(samples::wish(&other));
    let record = unknown(&format!("desired/{}.json, with its user data: nothing is wanted of it", spec.id));
    let disk = unknown(&format!("pool/layers/{layer}.qcow2, of its disks: no instance here has it"));
    assert_eq!(named().await, [record.clone(), disk.clone()]);
    let seed = scene.state_dir().join(format!("pool/instances/{}/seed.img", spec.id));
    fs::create_dir_all(seed.parent().unwrap()).unwrap();
    fs::write(seed, "").unwrap();
    let seed = unknown("its seed and logs: nothing is wanted of it");
    assert_eq!(named().await, [seed.clone(), record, disk]);

    for gone in [format!("desired/{}.json", spec.id), format!("pool/layers/{layer}.qcow2")] {
        fs::remove_file(scene.state_dir().join(gone)).unwrap();
    }
    assert_eq!(named().await, [seed]);
}

#[test]
fn of_a_guest_that_nobody_knows_and_that_runs_the_guest_alone_is_named() {
    let scene = Scene::new();
    let mut spec = samples::running("0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap());
    spec.disks[0].volume.pool = None;
    scene.want(samples::wish(&spec));
    scene.want(samples::wish(&scene.spec));
    let boots = Boots::open(scene.state_dir().join("boots")).unwrap();
    let started = serde_json::json!({"boot": 1, "machine_boot": Uuid::nil(), "phase": "started"});
    boots.put(spec.id, serde_json::from_value(started).unwrap()).unwrap();
    let log = scene.state_dir().join(format!("pool/instances/{}/serial.log", spec.id));
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    // As its QEMU has it.
    let _open = fs::File::create(&log).unwrap();

    let host = Host::read(&scene.state_dir(), Uuid::nil()).unwrap();
    let mut domain = Scene::domain_of(&spec);
    let card = |tap: &str| Card { mac: "52:54:00:00:00:01".parse().unwrap(), tap: Some(tap.to_owned()) };
    domain.cards.push(card("ct0123456789ab"));
    let codes = |domains: &HashMap<_, _>| {
        let pools = Pools::of(&host.pool(), Found::default()).unwrap();
        let found = leftovers::differences(&host, domains, &pools.local);
        found.into_iter().filter_map(|one| one.code).collect::<Vec<_>>()
    };
    let running = HashMap::from([(spec.id, domain)]);
    assert_eq!(codes(&running), [DriftCode::UnknownGuest]);
    // Whose is an open file then?
    let off =
        running.clone().into_iter().map(|(id, domain)| (id, Domain { state: DomainState::Off, ..domain }));
    assert_eq!(codes(&off.collect()), [DriftCode::UnknownDomain, DriftCode::UnknownProcess]);
    let ended = codes(&HashMap::new());
    for code in [DriftCode::UnknownFiles, DriftCode::UnknownRecord, DriftCode::UnknownProcess] {
        assert!(ended.contains(&code), "{ended:?}");
    }

    let stray = |tap| Difference::new(DriftCode::NetworkDeviceDiffers, DriftSubject::Host, stray_card(tap));
    let strays = || [stray("ct0123456789ab"), stray("ct000000000000")];
    let told = |domains| host.without_strangers(strays(), domains).collect::<Vec<_>>();
    assert_eq!(told(&running), [stray("ct000000000000")]);
    assert_eq!(told(&HashMap::new()), strays());
}
