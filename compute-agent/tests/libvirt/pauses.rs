//! Guests whose disks fail: nothing that they were told is written is lost, and they go on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;

use compute_agent::hypervisor::DomainState;
use protocol::agent::PauseReason;
use serde_json::{Value, json};

use super::*;
use crate::writer::{self, Progress, assert_written};

/// As the pool makes its layers.
const LAYER_OPTIONS: &str = "extended_l2=on,cluster_size=131072";
/// How often each place fails.
const ERRORS: usize = 3;

/// A file system of its own for a pool, in a file.
struct SmallFileSystem {
    folder: tempfile::TempDir,
}

impl SmallFileSystem {
    /// To be made before the host that shall see it.
    fn mount(mib: u64) -> Self {
        let this = Self { folder: tempfile::Builder::new().prefix("cumulo-pool-").tempdir().unwrap() };
        let (file, at) = (this.path().join("file"), this.root());
        fs::create_dir(&at).unwrap();
        fs::File::create(&file).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", "-N", "64", "-O", "^has_journal", file.as_str()]);
        run("mount", &["-o", "loop", file.as_str(), at.as_str()]);
        for folder in [this.path(), at.as_path()] {
            fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        }
        this
    }

    fn path(&self) -> &Utf8Path {
        Utf8Path::from_path(self.folder.path()).unwrap()
    }

    fn root(&self) -> Utf8PathBuf {
        self.path().join("pool")
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.root().as_str()]).status();
    }
}

impl Lab {
    /// An instance that writes so many chunks to its disk, whose layer is in this folder.
    fn writer(&self, chunks: u16, folder: &Utf8Path) -> DomainSpec {
        let base = self.host.make_base("base.qcow2", &writer::sector(chunks));
        let mut spec = self.spec(&base);
        let layer = folder.join(format!("{}.qcow2", Uuid::now_v7()));
        let create = ["create", "-q", "-f", "qcow2", "-o", LAYER_OPTIONS, "-F", "qcow2", "-b", base.as_str()];
        run("qemu-img", &[&create[..], &[layer.as_str(), "1G"]].concat());
        spec.disks[0].layers = vec![layer];
        spec
    }

    async fn state(&self, id: InstanceId) -> DomainState {
        let domains = self.libvirt.domains().await.unwrap();
        domains.into_iter().find(|domain| domain.id == id).unwrap().state
    }

    /// Waits until the guest stands still, and that it was told of by an event.
    async fn until_paused(&mut self, id: InstanceId, reason: PauseReason) {
        let stands_still = async {
            while self.state(id).await != DomainState::Paused(reason) {
                assert_eq!(self.events.recv().await.unwrap(), Event::Changed { id });
            }
        };
        timeout(3 * PATIENCE, stands_still).await.expect("the guest is paused");
    }

    /// Lets the guest go on, not before the error is told that has stopped it: see `reconcile/pauses.rs`.
    async fn resume(&self, id: InstanceId) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.libvirt.resume(id).await.unwrap();
    }

    /// Ends the guest, and compares its disk with what it was told is written.
    async fn assert_nothing_is_lost(&mut self, spec: &DomainSpec) -> Progress {
        let progress = writer::progress(&spec.serial_log);
        let ended = Instant::now();
        self.libvirt.destroy(spec.id).await.unwrap();
        self.ended(spec.id, EndCause::Destroyed, ended).await;
        let (layer, raw) = (&spec.disks[0].layers[0], self.host.root().join("copy.raw"));
        run("qemu-img", &["check", "-q", "-f", "qcow2", layer.as_str()]);
        run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", layer.as_str(), raw.as_str()]);
        assert_written(&raw, progress.chunks);
        progress
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_stands_still_in_a_full_pool_and_goes_on_when_there_is_room() {
    const CHUNKS: u16 = 180;
    let pool = SmallFileSystem::mount(8);
    let ballast = pool.root().join("ballast");
    fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let mut lab = Lab::start().await;
    let spec = lab.writer(CHUNKS, &pool.root());
    lab.libvirt.create(&spec).await.unwrap();
    lab.until_paused(spec.id, PauseReason::PoolFull).await;
    let full = writer::progress(&spec.serial_log);
    println!("full after {full:?}");
    assert!(full.chunks > 50 && !full.is_done);

    // Told to go on without room it stops again, as often as one likes. Whoever comes anew is told the same.
    for _ in 0..3 {
        lab.resume(spec.id).await;
        lab.until_paused(spec.id, PauseReason::PoolFull).await;
    }
    lab.host.kill_libvirtd();
    expect(&mut lab.events, &Event::Disconnected).await;
    lab.host.start_libvirtd();
    expect(&mut lab.events, &Event::Connected).await;
    assert_eq!(lab.state(spec.id).await, DomainState::Paused(PauseReason::PoolFull));

    fs::remove_file(&ballast).unwrap();
    lab.resume(spec.id).await;
    wait_until("the guest ends its work", || writer::progress(&spec.serial_log).is_done);
    assert_eq!(lab.state(spec.id).await, DomainState::Running);
    let progress = lab.assert_nothing_is_lost(&spec).await;
    assert_eq!(progress.chunks, usize::from(CHUNKS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_full_pool_outlives_the_guest() {
    let pool = SmallFileSystem::mount(4);
    let mut lab = Lab::start().await;
    let spec = lab.writer(4000, &pool.root());
    lab.libvirt.create(&spec).await.unwrap();
    lab.until_paused(spec.id, PauseReason::PoolFull).await;
    let progress = lab.assert_nothing_is_lost(&spec).await;
    assert!(progress.chunks > 50, "{progress:?}");
}

/// Without libvirt, which knows no failing disks: the same policies, and errors that QEMU makes itself.
#[test]
fn a_guest_hears_nothing_of_a_disk_that_fails_for_a_while() {
    const CHUNKS: u16 = 70;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| Utf8Path::from_path(folder.path()).unwrap().join(name);
    let (base, layer, log, socket) = (path("base"), path("layer"), path("log"), path("socket"));
    let mut disk = writer::sector(CHUNKS).to_vec();
    disk.resize(1 << 20, 0);
    fs::write(&base, disk).unwrap();
    let create = ["create", "-q", "-f", "qcow2", "-o", LAYER_OPTIONS, "-F", "raw", "-b", base.as_str()];
    run("qemu-img", &[&create[..], &[layer.as_str(), "1G"]].concat());
    let fails = |kind: &str, mib: u64| {
        let sector = mib << 11;
        vec![json!({"event": "none", "iotype": kind, "errno": 5, "once": true, "sector": sector}); ERRORS]
    };
    let errors = [fails("write", 1), fails("read", 2)].concat();
    let debug = json!({"driver": "blkdebug", "node-name": "debug",
        "image": {"driver": "file", "filename": layer},
        "inject-error": errors});
    let format = json!({"driver": "qcow2", "node-name": "disk", "file": "debug"});
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-M", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none"])
        .args(["-serial", &format!("file:{log}"), "-qmp", &format!("unix:{socket},server=on,wait=off")])
        .args(["-blockdev", &debug.to_string(), "-blockdev", &format.to_string()])
        .args(["-device", "virtio-blk-pci,drive=disk,bootindex=1,werror=stop,rerror=stop"])
        .spawn()
        .unwrap();
    wait_until("QEMU listens", || socket.exists());
    let mut monitor = UnixStream::connect(&socket).unwrap();
    let said = BufReader::new(monitor.try_clone().unwrap());
    let mut say = |command: &str| writeln!(monitor, "{}", json!({"execute": command})).unwrap();
    say("qmp_capabilities");
    let mut stops = 0;
    for line in said.lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "STOP" {
            stops += 1;
            say("cont");
        }
        if stops == 2 * ERRORS {
            break;
        }
    }
    wait_until("the guest ends its work", || writer::progress(&log).is_done);
    say("quit");
    assert!(qemu.wait().unwrap().success());
    let raw = path("raw");
    run("qemu-img", &["check", "-q", "-f", "qcow2", layer.as_str()]);
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", layer.as_str(), raw.as_str()]);
    assert_eq!(writer::progress(&log).chunks, usize::from(CHUNKS));
    assert_written(&raw, usize::from(CHUNKS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_suspended_by_hand_is_told_from_one_whose_disk_fails() {
    let lab = Lab::start().await;
    let spec = lab.spec(&lab.host.make_base("base.qcow2", &guest::obedient(HELLO)));
    lab.create(&spec).await;
    lab.host.virsh(&["suspend", &format!("cumulo-{}", spec.id)]);
    assert_eq!(lab.state(spec.id).await, DomainState::Paused(PauseReason::Suspended));
    lab.libvirt.resume(spec.id).await.unwrap();
    assert_eq!(lab.state(spec.id).await, DomainState::Running);
    lab.libvirt.resume(spec.id).await.unwrap();
}
