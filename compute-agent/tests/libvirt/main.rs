//! The libvirt hypervisor against a real libvirtd and real guests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod agent;
mod crashes;
mod debian;
mod guarded;
mod guest;
mod hardware;
mod host;
mod insight;
mod instants;
mod memory;
mod mirrors;
mod pauses;
mod reaper;
mod writer;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use compute_agent::hypervisor::libvirt::{Libvirt, Options};
use compute_agent::hypervisor::{
    Beside, Card, Domain, DomainDisk, DomainSpec, DomainState, EndCause, Event, Hypervisor as _,
    HypervisorError, Merge, NewLayer, SeenVolume,
};
use host::{Host, ownership, run, wait_until};
use nix::sys::signal::{Signal, kill};
use protocol::agent::{Acceleration, Architecture, GuestHardware, IoLimits, Nic};
use protocol::{Generation, InstanceId, MacAddress, MemoryMib, SizeGib, Vni, VolumeId};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use uuid::Uuid;

const HELLO: &str = "hello from the guest\r\n";
/// What the slowest step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    host: Host,
    libvirt: Libvirt,
    events: Receiver<Event>,
}

impl Lab {
    async fn start() -> Self {
        let host = Host::start();
        let libvirt = Libvirt::start(Options { uri: host.uri(), pool: host.root().to_owned() });
        let mut events = libvirt.events();
        expect(&mut events, &Event::Connected).await;
        Self { host, libvirt, events }
    }

    /// A volume of one layer.
    fn disk(&self, base: Option<&Utf8Path>, gib: u32) -> DomainDisk {
        let id = Uuid::now_v7();
        DomainDisk {
            volume: VolumeId::from_uuid(id),
            size_gib: SizeGib(gib),
            limits: IoLimits::default(),
            shared: false,
            base: base.map(Utf8Path::to_owned),
            layers: vec![self.host.make_disk(base, id, gib)],
        }
    }

    fn spec(&self, base: &Utf8Path) -> DomainSpec {
        let id = InstanceId::from_uuid(Uuid::now_v7());
        DomainSpec {
            id,
            generation: Generation(4),
            boot: 2,
            hostname: "guest".parse().unwrap(),
            architecture: Architecture::X86_64,
            uefi_variables: None,
            hardware: GuestHardware::default(),
            vcpus: 1,
            memory_mib: MemoryMib(64),
            disks: vec![self.disk(Some(base), 1)],
            nics: Vec::new(),
            seed: self.host.make_seed(id),
            serial_log: self.host.root().join(format!("{id}.log")),
            request_id: None,
        }
    }

    /// Starts a domain and waits until its guest has printed.
    async fn create(&self, spec: &DomainSpec) {
        let started = Instant::now();
        self.libvirt.create(spec).await.unwrap();
        let created = started.elapsed();
        wait_until("the guest prints", || says_hello(spec));
        println!("created in {created:?}, printed after {:?}", started.elapsed());
    }

    async fn ended(&mut self, id: InstanceId, why: EndCause, since: Instant) {
        expect(&mut self.events, &Event::Ended { id, why }).await;
        println!("{why:?} seen after {:?}", since.elapsed());
        assert!(self.libvirt.domains().await.unwrap().iter().all(|domain| domain.id != id));
    }
}

fn says_hello(spec: &DomainSpec) -> bool {
    fs::read_to_string(&spec.serial_log).is_ok_and(|text| text.contains(HELLO))
}

/// Waits for an event; mere changes are passed over.
async fn expect(events: &mut Receiver<Event>, expected: &Event) {
    let next = async {
        loop {
            match events.recv().await.unwrap() {
                Event::Changed { .. } => {}
                event => break event,
            }
        }
    };
    assert_eq!(&timeout(PATIENCE, next).await.expect("an event"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_lives_and_ends_in_every_way() {
    let mut lab = Lab::start().await;
    let base = lab.host.make_base("base.qcow2", &guest::obedient(HELLO));
    let base_ownership = ownership(&base);
    let (spec, other) = (lab.spec(&base), lab.spec(&base));
    let id = spec.id;

    // Two at once on one base.
    tokio::join!(lab.create(&spec), lab.create(&other));
    let (state, cards) = (DomainState::Running, Vec::new());
    let volumes = |spec: &DomainSpec| spec.disks.iter().map(seen).collect();
    let seen = Domain { id, generation: Generation(4), boot: 2, state, cards, volumes: volumes(&spec) };
    let mut domains = lab.libvirt.domains().await.unwrap();
    domains.sort_by_key(|domain| domain.id);
    assert_eq!(domains, [seen.clone(), Domain { id: other.id, volumes: volumes(&other), ..seen }]);
    assert_eq!(ownership(&base), base_ownership, "the shared base stays ours");
    assert!(matches!(lab.libvirt.create(&spec).await, Err(HypervisorError::Exists(exists)) if exists == id));

    let pressed = Instant::now();
    lab.libvirt.press_power_button(id).await.unwrap();
    lab.ended(id, EndCause::GuestShutdown, pressed).await;
    assert!(matches!(lab.libvirt.destroy(id).await, Err(HypervisorError::NotFound(gone)) if gone == id));
    let button = lab.libvirt.press_power_button(id).await;
    assert!(matches!(button, Err(HypervisorError::NotFound(gone)) if gone == id));

    // The next boot of the same instance, with the same disk, appends to the log.
    lab.create(&DomainSpec { boot: 3, ..spec.clone() }).await;
    wait_until("both boots are in the log", || {
        fs::read_to_string(&spec.serial_log).unwrap().matches(HELLO).count() == 2
    });
    let destroyed = Instant::now();
    lab.libvirt.destroy(id).await.unwrap();
    lab.ended(id, EndCause::Destroyed, destroyed).await;

    let killed = Instant::now();
    kill(lab.host.qemu(other.id), Signal::SIGKILL).unwrap();
    lab.ended(other.id, EndCause::Crashed, killed).await;

    // What a shutdown of the host does to QEMU is not the guest's doing.
    lab.create(&other).await;
    let terminated = Instant::now();
    kill(lab.host.qemu(other.id), Signal::SIGTERM).unwrap();
    lab.ended(other.id, EndCause::Destroyed, terminated).await;

    assert_eq!(ownership(&base), base_ownership);
    assert_eq!(
        ownership(&spec.disks[0].layers[0]),
        "0:0 600",
        "an instance's disk is ours again after its run"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_powers_itself_off_is_told() {
    let mut lab = Lab::start().await;
    let spec = lab.spec(&lab.host.make_base("base.qcow2", &guest::brief(HELLO)));
    let started = Instant::now();
    lab.libvirt.create(&spec).await.unwrap();
    lab.ended(spec.id, EndCause::GuestShutdown, started).await;
    assert!(says_hello(&spec));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libvirtd_dies_and_domains_live_on() {
    let mut lab = Lab::start().await;
    let spec = lab.spec(&lab.host.make_base("base.qcow2", &guest::obedient(HELLO)));
    lab.create(&spec).await;
    let before = (lab.libvirt.domains().await.unwrap(), lab.host.qemu(spec.id));

    let killed = Instant::now();
    lab.host.kill_libvirtd();
    expect(&mut lab.events, &Event::Disconnected).await;
    println!("disconnected after {:?}", killed.elapsed());
    let asked = Instant::now();
    assert!(matches!(lab.libvirt.domains().await, Err(HypervisorError::Unreachable(_))));
    assert!(matches!(lab.libvirt.destroy(spec.id).await, Err(HypervisorError::Unreachable(_))));
    assert!(asked.elapsed() < Duration::from_secs(1), "answered at once, not after a wait");

    let started = Instant::now();
    lab.host.start_libvirtd();
    expect(&mut lab.events, &Event::Connected).await;
    println!("connected again after {:?}", started.elapsed());
    assert_eq!((lab.libvirt.domains().await.unwrap(), lab.host.qemu(spec.id)), before);
    assert!(kill(before.1, None).is_ok(), "the same process lives");

    let pressed = Instant::now();
    lab.libvirt.press_power_button(spec.id).await.unwrap();
    lab.ended(spec.id, EndCause::GuestShutdown, pressed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libvirtd_that_hangs_is_given_up_and_found_again() {
    let mut lab = Lab::start().await;
    let hung = Instant::now();
    lab.host.signal_libvirtd(Signal::SIGSTOP);
    let calls = (0..8).map(|_| lab.libvirt.domains());
    for answer in futures_util::future::join_all(calls).await {
        assert!(matches!(answer, Err(HypervisorError::Unreachable(_))), "{answer:?}");
    }
    expect(&mut lab.events, &Event::Disconnected).await;
    println!("given up after {:?}", hung.elapsed());
    let continued = Instant::now();
    lab.host.signal_libvirtd(Signal::SIGCONT);
    expect(&mut lab.events, &Event::Connected).await;
    println!("connected again after {:?}", continued.elapsed());
    assert_eq!(lab.libvirt.domains().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inventory_is_this_machine() {
    let lab = Lab::start().await;
    let inventory = lab.libvirt.inventory().await.unwrap();
    println!("{inventory:#?}");
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap().matches("processor\t:").count();
    assert_eq!(inventory.cpus as usize, cpus);
    assert!(inventory.memory_mib > MemoryMib(0));
    assert!(inventory.hypervisor.starts_with("QEMU "), "{}", inventory.hypervisor);
    // The others are those whose emulator and UEFI are installed.
    let emulated = [
        (Architecture::Aarch64, "qemu-system-aarch64", "AAVMF"),
        (Architecture::Riscv64, "qemu-system-riscv64", "qemu-efi-riscv64"),
    ];
    let is_there = |emulator: &str, firmware: &str| {
        Path::new("/usr/bin").join(emulator).exists() && Path::new("/usr/share").join(firmware).exists()
    };
    let emulated = emulated.into_iter().filter(|(_, emulator, firmware)| is_there(emulator, firmware));
    let expected: Vec<_> = [Architecture::X86_64].into_iter().chain(emulated.map(|one| one.0)).collect();
    assert_eq!(inventory.architectures, expected);
    assert_ne!(inventory.acceleration, Acceleration::Simulated);
    assert!(inventory.cpu_models.iter().any(|model| model == "qemu64"), "{:?}", inventory.cpu_models);
}

#[tokio::test]
async fn without_libvirtd_every_call_is_unreachable_at_once() {
    let uri = "qemu:///system?socket=/no/such/socket".to_owned();
    let libvirt = Libvirt::start(Options { uri, pool: "/".into() });
    assert!(matches!(libvirt.inventory().await, Err(HypervisorError::Unreachable(_))));
    assert!(matches!(libvirt.domains().await, Err(HypervisorError::Unreachable(_))));
    let id = InstanceId::from_uuid(Uuid::now_v7());
    assert!(matches!(libvirt.press_power_button(id).await, Err(HypervisorError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_are_there_from_the_start_and_are_plugged_in_while_the_guest_runs() {
    let mut lab = Lab::start().await;
    lab.host.run_inside("ip", &["link", "add", "cbr7", "type", "bridge"]);
    let mut spec = lab.spec(&lab.host.make_base("base.qcow2", &guest::obedient(HELLO)));
    spec.nics = vec![nic(1)];
    lab.create(&spec).await;
    let cards = async |lab: &Lab| lab.libvirt.domains().await.unwrap().remove(0).cards;
    assert_eq!(cards(&lab).await, [Card::of(&spec.nics[0])]);
    let tap = networking::names::tap(spec.nics[0].port_id);
    let in_bridge = format!("ip -o link show {tap} | grep -q 'mtu 1450 .*master cbr7'");
    lab.host.run_inside("sh", &["-c", &in_bridge]);

    // As many as fit beside what was there at the start.
    let more: Vec<_> = (2..=8).map(nic).collect();
    for nic in &more {
        lab.libvirt.attach_card(spec.id, nic).await.unwrap();
    }
    let all: Vec<_> = spec.nics.iter().chain(&more).map(Card::of).collect();
    assert_eq!(cards(&lab).await, all);
    let twice = lab.libvirt.attach_card(spec.id, &more[0]).await;
    assert!(matches!(twice, Err(HypervisorError::Refused { .. })), "{twice:?}");

    // A guest without an operating system lets nothing go; nobody waits for it.
    let asked = Instant::now();
    let answer = lab.libvirt.detach_card(spec.id, more[0].mac).await;
    println!("asked to let go: {answer:?} after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert_eq!(cards(&lab).await.len(), all.len());
    lab.libvirt.destroy(spec.id).await.unwrap();
    lab.ended(spec.id, EndCause::Destroyed, asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_are_plugged_in_and_changed() {
    let mut lab = Lab::start().await;
    let mut spec = lab.spec(&lab.host.make_base("base.qcow2", &guest::obedient(HELLO)));
    let below = lab.disk(None, 1);
    let chained =
        DomainDisk { layers: [below.layers, lab.disk(None, 1).layers].concat(), ..lab.disk(None, 1) };
    spec.disks.push(chained);
    lab.create(&spec).await;
    let volumes = async |lab: &Lab| lab.libvirt.domains().await.unwrap().remove(0).volumes;
    let mut expected: Vec<_> = spec.disks.iter().map(seen).collect();
    assert_eq!(volumes(&lab).await, expected);

    // As many as a guest may have beside as many cards.
    let limits = IoLimits { iops: Some(100), bytes_per_second: Some(1 << 20) };
    let shared = |n: u32| n.is_multiple_of(2);
    let more: Vec<_> =
        (0..12).map(|n| DomainDisk { limits, shared: shared(n), ..lab.disk(None, 1) }).collect();
    for disk in &more {
        lab.libvirt.attach_disk(spec.id, disk).await.unwrap();
        expected.push(seen(disk));
    }
    assert_eq!(volumes(&lab).await, expected);
    let twice = lab.libvirt.attach_disk(spec.id, &more[0]).await;
    assert!(matches!(twice, Err(HypervisorError::Refused { .. })), "{twice:?}");
    let shared = DomainDisk { volume: VolumeId::from_uuid(Uuid::now_v7()), ..more[0].clone() };
    let shared = lab.libvirt.attach_disk(spec.id, &shared).await;
    assert!(matches!(shared, Err(HypervisorError::Refused { .. })), "a file has one writer: {shared:?}");

    let xml = || lab.host.virsh(&["dumpxml", &format!("cumulo-{}", spec.id)]);
    let serial = format!("<serial>{}</serial>", more[0].volume.serial());
    assert!(xml().contains(&serial) && xml().contains("<total_iops_sec>100</total_iops_sec>"));
    let large = DomainDisk { size_gib: SizeGib(3), limits: IoLimits::default(), ..more[0].clone() };
    let tune = async |lab: &Lab, limits: IoLimits| {
        lab.libvirt.tune_disk(spec.id, large.volume, large.size_gib, limits).await.unwrap();
    };
    for _ in 0..2 {
        tune(&lab, large.limits).await;
    }
    assert_eq!(disk_size(&large.layers[0]), 3 << 30);
    assert_eq!(xml().matches("<total_iops_sec>").count(), more.len() - 1, "no limit is left on it");
    tune(&lab, limits).await;
    assert_eq!(xml().matches("<total_iops_sec>100<").count(), more.len());

    // A guest without an operating system lets nothing go; nobody waits for it.
    let asked = Instant::now();
    let answer = lab.libvirt.detach_disk(spec.id, large.volume).await;
    println!("asked to let go: {answer:?} after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert_eq!(volumes(&lab).await.len(), expected.len());
    lab.libvirt.destroy(spec.id).await.unwrap();
    lab.ended(spec.id, EndCause::Destroyed, asked).await;
    assert_eq!(ownership(&spec.disks[1].layers[1]), "0:0 600", "it is ours again after the run");
}

/// An agent that is killed leaves libvirt at work on what the next one asks for again. Both callers may find the disk as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_asked_for_twice_is_taken_once() {
    let lab = Lab::start().await;
    let spec = lab.spec(&lab.host.make_base("base.qcow2", &guest::obedient(HELLO)));
    lab.create(&spec).await;
    let (disk, mut layers) = (&spec.disks[0], spec.disks[0].layers.clone());
    let memory = |name: &str| Beside::Memory { file: lab.host.root().join(name), size: spec.memory_mib };
    for (one, other) in [(memory("one"), memory("other")), (Beside::Nothing, Beside::Nothing)] {
        let layer = lab.host.make_overlay(layers.last().unwrap(), Uuid::now_v7());
        layers.push(layer.clone());
        let new = [NewLayer { volume: disk.volume, shared: disk.shared, layer }];
        let take = |beside| lab.libvirt.snapshot(spec.id, &new, beside);
        let taken: [_; 2] = tokio::join!(take(&one), take(&other)).into();
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1, "{taken:?}");
        // Nor by who asks when it is there.
        let late = take(&one).await;
        assert!(matches!(late, Err(HypervisorError::Refused { .. })), "{late:?}");
        let domain = lab.libvirt.domains().await.unwrap().remove(0);
        assert_eq!(domain.volumes[0], seen(&DomainDisk { layers: layers.clone(), ..disk.clone() }));
        assert_eq!(domain.state, DomainState::Running);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_keep_what_was_and_what_is_between_merges() {
    let mut lab = Lab::start().await;
    let mut spec = lab.spec(&lab.host.make_base("base.qcow2", &guest::obedient(HELLO)));
    spec.disks.push(DomainDisk { shared: true, ..lab.disk(None, 1) });
    lab.create(&spec).await;
    let write = |disk: &DomainDisk, byte: u8, place: &str| {
        let device = format!("/machine/peripheral/ua-{}/virtio-backend", disk.volume);
        let command = format!(r#"qemu-io -d {device} "write -P {byte} {place}""#);
        let name = format!("cumulo-{}", spec.id);
        // What it says goes to QEMU's log; what it did is seen below.
        lab.host.virsh(&["qemu-monitor-command", "--hmp", &name, &command]);
    };
    let holds = |path: &Utf8Path, byte: u8, place: &str| {
        let read = format!("read -P {byte} {place}");
        let said = run("qemu-io", &["-U", "-r", "-f", "qcow2", "-c", &read, path.as_str()]);
        said.contains("read ") && !said.contains("verification failed")
    };
    let volumes = async |lab: &Lab| lab.libvirt.domains().await.unwrap().remove(0).volumes;
    let [root, data] = [spec.disks[0].clone(), spec.disks[1].clone()];
    let mut layers = vec![(root.layers[0].clone(), data.layers[0].clone())];
    write(&data, 1, "0 192k");
    for (byte, place) in [(2, "64k 128k"), (3, "128k 64k")] {
        let (old_root, old_data) = layers.last().unwrap();
        let [root_top, data_top] = [old_root, old_data].map(|old| lab.host.make_overlay(old, Uuid::now_v7()));
        let new = [(&root, &root_top), (&data, &data_top)].map(|(of, layer)| NewLayer {
            volume: of.volume,
            shared: of.shared,
            layer: layer.clone(),
        });
        let taken = Instant::now();
        lab.libvirt.snapshot(spec.id, &new, &Beside::Nothing).await.unwrap();
        println!("snapshot of two disks taken in {:?}", taken.elapsed());
        layers.push((root_top, data_top));
        write(&data, byte, place);
    }
    let chain = |layers: &[Utf8PathBuf]| seen(&DomainDisk { layers: layers.to_vec(), ..data.clone() });
    let of_data: Vec<_> = layers.iter().map(|(_, data)| data.clone()).collect();
    assert_eq!(volumes(&lab).await[1], chain(&of_data));
    assert!(holds(&of_data[0], 1, "0 192k"), "what was there at the first snapshot stays");
    assert!(holds(&of_data[1], 1, "0 64k") && holds(&of_data[1], 2, "64k 128k"));

    // A guest without the agent cannot be frozen: nothing happens, and nothing is left frozen.
    let layer = lab.host.make_overlay(of_data.last().unwrap(), Uuid::now_v7());
    let new = NewLayer { volume: data.volume, shared: true, layer };
    let frozen = lab.libvirt.snapshot(spec.id, &[new], &Beside::Rest).await;
    assert!(matches!(frozen, Err(HypervisorError::NoGuestAgent)), "{frozen:?}");
    assert_eq!(volumes(&lab).await[1], chain(&of_data));

    // The middle into the lowest; never what is written to.
    let merge = |from: usize| {
        let (into, from) = (of_data[from - 1].clone(), of_data[from].clone());
        Merge { volume: data.volume, into, from }
    };
    let top = lab.libvirt.merge(spec.id, &merge(2)).await;
    assert!(matches!(top, Err(HypervisorError::Refused { .. })), "{top:?}");
    let left = chain(&[of_data[0].clone(), of_data[2].clone()]);
    let deadline = Instant::now() + PATIENCE;
    while volumes(&lab).await[1] != left {
        assert!(Instant::now() < deadline, "the merge comes to no end");
        lab.libvirt.merge(spec.id, &merge(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    write(&data, 4, "256k 64k");
    let ended = Instant::now();
    lab.libvirt.destroy(spec.id).await.unwrap();
    lab.ended(spec.id, EndCause::Destroyed, ended).await;
    for layer in &of_data {
        let kept = ownership(layer);
        assert!(
            !kept.starts_with("0:") && kept.ends_with(" 600"),
            "what other hosts reach stays QEMU's: {kept}"
        );
    }
    assert_eq!(ownership(&layers.last().unwrap().0), "0:0 600", "and the rest is ours again");
    fs::remove_file(&of_data[1]).unwrap();
    for (byte, place) in [(1, "0 64k"), (2, "64k 64k"), (3, "128k 64k"), (4, "256k 64k")] {
        assert!(holds(&of_data[2], byte, place), "{byte} at {place}");
    }
    assert!(holds(&of_data[0], 1, "0 64k") && holds(&of_data[0], 2, "64k 128k"), "it has what was merged");
    [0, 2].iter().for_each(|place| drop(run("qemu-img", &["check", "-q", of_data[*place].as_str()])));
}

fn seen(disk: &DomainDisk) -> SeenVolume {
    let layers = disk.layers.iter().map(|path| path.file_stem().unwrap().parse().unwrap()).collect();
    SeenVolume { id: disk.volume, layers }
}

/// As its qcow2 header says.
fn disk_size(path: &Utf8Path) -> u64 {
    u64::from_be_bytes(fs::read(path).unwrap()[24..32].try_into().unwrap())
}

fn nic(n: u8) -> Nic {
    Nic {
        port_id: Uuid::new_v4().into(),
        network_id: Uuid::from_u128(7).into(),
        vni: Vni::try_from(7).unwrap(),
        mac: MacAddress::from_bytes([0x02, 0, 0, 0, 0, n]).unwrap(),
        mtu: 1450,
        addresses: Vec::new(),
    }
}
