//! The guard as a process, killed, stopped and cut off from its pools, with processes that stand for QEMU.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::{HostId, InstanceId, Name};
use storage::Pool;
use uuid::Uuid;

use super::super::clock::{BootClock, KernelClock, Moment};
use super::super::entries::{self, Fenced};
use super::super::machine::{SharedMachine, ThisMachine};
use super::super::status::{self, Status};
use super::super::{Entry, FOLDER, Held, Options, Times, run, second};
use super::{FakeGuard, guards};
use crate::durable::{self, Survive};

/// Ten times as fast as the real one.
const TIMES: Times = Times {
    lease: Duration::from_secs(4),
    write: Duration::from_millis(500),
    retry: Duration::from_millis(200),
    round: Duration::from_millis(100),
    decide: Duration::from_millis(50),
    dying: Duration::from_millis(400),
};
const STATE_DIR: &str = "CUMULO_TEST_GUARD_STATE_DIR";
const WATCHDOG: &str = "CUMULO_TEST_GUARD_WATCHDOG";
const PATIENCE: Duration = Duration::from_secs(20);
const HOST: HostId = HostId::from_uuid(Uuid::from_u128(7));
const MACHINE_BOOT: Uuid = Uuid::from_u128(9);

/// What [`Site::start`] starts.
#[test]
#[ignore = "no test: the process that the others start, which ends at once by itself"]
fn as_a_process() {
    let Ok(state_dir) = std::env::var(STATE_DIR) else { return };
    let watchdog = std::env::var(WATCHDOG).ok().map(Utf8PathBuf::from);
    let state_dir = Utf8PathBuf::from(state_dir);
    let options = Options { state_dir, host: HOST, machine_boot: MACHINE_BOOT, watchdog, times: TIMES };
    let ended = run(&options);
    std::process::exit(i32::from(ended.is_err()));
}

/// A host with a pool, and what runs on it.
struct Site {
    _dir: tempfile::TempDir,
    state_dir: Utf8PathBuf,
    folder: Utf8PathBuf,
    root: Utf8PathBuf,
    watchdog: Option<Utf8PathBuf>,
    guard: Option<Child>,
}

/// A process that is QEMU by its command line.
struct Guest {
    id: InstanceId,
    child: Child,
}

impl Guest {
    fn start() -> Self {
        Self::of(InstanceId::from_uuid(Uuid::now_v7()))
    }

    fn of(id: InstanceId) -> Self {
        let name = format!("guest=cumulo-{id},debug-threads=on");
        let child = Command::new("sh")
            .args(["-c", "while :; do sleep 1; done", "qemu", "-name", &name, "-S", "-uuid", &id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { id, child }
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn wait_killed(&mut self) {
        wait("the guest is killed", || !self.is_alive());
        assert_eq!(self.child.try_wait().unwrap().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }

    fn lives_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            assert!(self.is_alive(), "the guest is dead");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pool() -> Name {
    "fast".parse().unwrap()
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let work = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        let root = work.join("shared");
        fs::create_dir(&root).unwrap();
        Pool::make_shared(&pool(), &root).unwrap();
        Self::with_pool(dir, &work, root)
    }

    fn with_pool(dir: tempfile::TempDir, work: &Utf8Path, root: Utf8PathBuf) -> Self {
        let state_dir = work.join("agent");
        let folder = state_dir.join(FOLDER);
        entries::make(&folder).unwrap();
        let settings = serde_json::json!({"protected_networks": [], "shared_pools": {"fast": root}});
        durable::write(&state_dir.join("settings.json"), settings.to_string().as_bytes(), Survive::Process)
            .unwrap();
        Self { _dir: dir, state_dir, folder, root, watchdog: None, guard: None }
    }

    fn start(&mut self) {
        let name = concat!(module_path!(), "::as_a_process");
        let name = name.split_once("::").unwrap().1;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(STATE_DIR, &self.state_dir).stdin(Stdio::null());
        if let Some(watchdog) = &self.watchdog {
            command.env(WATCHDOG, watchdog);
        }
        self.guard = Some(command.spawn().unwrap());
    }

    /// With the lease held.
    fn started() -> Self {
        let mut site = Self::new();
        site.start();
        site.wait_held();
        site
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.guard.as_ref().unwrap().id().cast_signed()), signal).unwrap();
    }

    fn kill_guard(&mut self) {
        let mut guard = self.guard.take().unwrap();
        guard.kill().unwrap();
        guard.wait().unwrap();
    }

    fn status(&self) -> Option<Status> {
        status::read(&self.folder).unwrap()
    }

    fn term(&self) -> u64 {
        self.status().unwrap().leases[&pool()].term
    }

    fn wait_held(&self) {
        let now = || KernelClock.now();
        wait("the lease is held", || {
            let own = self.guard.as_ref().unwrap().id().cast_signed();
            let status = self.status().filter(|status| status.process.pid == own);
            status
                .and_then(|status| status.leases.get(&pool()).copied())
                .is_some_and(|lease| !lease.is_lapsed(now(), TIMES.lease))
        });
    }

    /// Lets a guest be guarded from now on.
    fn guard(&self, guest: &Guest) {
        let held = Held { root: self.root.clone(), term: self.term() };
        let entry = Entry { boot: 3, pools: [(pool(), held)].into(), written: KernelClock.now() };
        entries::put(&self.folder, guest.id, &entry).unwrap();
        wait("the guard knows", || self.status().unwrap().guests.get(&guest.id) == Some(&entry.written));
    }

    fn fenced(&self, guest: &Guest) -> Option<Fenced> {
        entries::fenced(&self.folder, guest.id).unwrap()
    }

    /// The pool is not mounted any more.
    fn lose_pool(&self) {
        fs::rename(&self.root, self.root.with_extension("away")).unwrap();
        fs::create_dir(&self.root).unwrap();
    }

    fn regain_pool(&self) {
        fs::remove_dir(&self.root).unwrap();
        fs::rename(self.root.with_extension("away"), &self.root).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

#[test]
fn a_guest_whose_pool_is_lost_is_killed_and_others_are_not() {
    let site = Site::started();
    let (mut guarded, mut other) = (Guest::start(), Guest::start());
    site.guard(&guarded);
    guarded.lives_for(TIMES.lease + Duration::from_secs(1));
    site.lose_pool();
    let lost = Instant::now();
    guarded.lives_for(TIMES.lease - TIMES.write - Duration::from_millis(200));
    guarded.wait_killed();
    assert!(lost.elapsed() < TIMES.lease + Duration::from_secs(2), "{:?}", lost.elapsed());
    let fenced = site.fenced(&guarded).unwrap();
    assert_eq!((fenced.boot, fenced.pool), (3, pool()));
    assert_eq!(site.root.read_dir_utf8().unwrap().count(), 0, "nothing is written into what is no pool");
    assert!(site.status().unwrap().faults[&pool()].contains("mounted"));

    // What appears late is killed, too, also when the lease is held again: that is another term.
    let mut late = Guest::of(guarded.id);
    late.wait_killed();
    let term = site.term();
    site.regain_pool();
    site.wait_held();
    assert!(site.term() > term);
    let mut late = Guest::of(guarded.id);
    late.wait_killed();
    site.guard(&guarded);
    let mut allowed = Guest::of(guarded.id);
    allowed.lives_for(TIMES.lease);
    assert!(other.is_alive());
}

#[test]
fn a_guard_that_is_killed_is_replaced_without_harm_and_one_that_comes_late_makes_up_for_it() {
    let mut site = Site::started();
    let mut guest = Guest::start();
    site.guard(&guest);
    let (term, counter) = (site.term(), site.status().unwrap().leases[&pool()].counter);
    for _ in 0..3 {
        site.kill_guard();
        guest.lives_for(Duration::from_secs(1));
        site.start();
        let counted = || site.status().unwrap().leases[&pool()].counter;
        let before = counted();
        wait("the lease is renewed", || counted() > before);
    }
    assert_eq!(site.term(), term, "the lease was held all the time");
    assert!(site.status().unwrap().leases[&pool()].counter > counter);
    guest.lives_for(TIMES.lease);

    site.kill_guard();
    guest.lives_for(TIMES.lease + Duration::from_secs(1));
    site.start();
    guest.wait_killed();
    wait("it is written down", || site.fenced(&guest).is_some());
    site.wait_held();
    assert!(site.term() > term);
}

#[test]
fn a_pool_whose_place_another_takes_is_lost() {
    let site = Site::started();
    let mut guest = Guest::start();
    site.guard(&guest);
    site.lose_pool();
    Pool::make_shared(&pool(), &site.root).unwrap();
    guest.wait_killed();
    assert!(site.status().unwrap().faults[&pool()].contains("taken its place"));
}

#[test]
fn a_guard_that_stood_still_kills_before_all_else() {
    let site = Site::started();
    let mut guest = Guest::start();
    site.guard(&guest);
    site.signal(Signal::SIGSTOP);
    guest.lives_for(TIMES.lease + Duration::from_secs(1));
    site.signal(Signal::SIGCONT);
    guest.wait_killed();
    site.wait_held();
    let mut again = Guest::of(guest.id);
    again.wait_killed();
}

#[test]
fn there_is_one_guard_and_it_ends_when_nothing_is_left_to_guard() {
    let mut site = Site::started();
    let mut second = Site::started();
    second.kill_guard();
    second.state_dir.clone_from(&site.state_dir);
    second.start();
    assert!(!second.guard.as_mut().unwrap().wait().unwrap().success(), "two guards");

    let mut guest = Guest::start();
    site.guard(&guest);
    site.signal(Signal::SIGTERM);
    wait("it says that it ends", || site.status().unwrap().ending);
    guest.lives_for(TIMES.lease);
    assert!(site.guard.as_mut().unwrap().try_wait().unwrap().is_none());
    guest.child.kill().unwrap();
    guest.child.wait().unwrap();
    let mut ended = None;
    wait("the guard ends", || {
        ended = site.guard.as_mut().unwrap().try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
    assert!(site.fenced(&guest).is_none());
}

#[test]
fn the_watchdog_is_fed_and_disarmed_in_the_end_alone() {
    let mut site = Site::new();
    let device = site.state_dir.join("watchdog");
    fs::write(&device, "").unwrap();
    site.watchdog = Some(device.clone());
    let fed = || fs::read(&device).unwrap();
    site.start();
    site.wait_held();
    let before = fed().len();
    wait("it is fed", || fed().len() > before + 3);
    site.kill_guard();
    assert!(fed().iter().all(|byte| *byte == 0), "it was told that this end was meant");
    site.start();
    site.wait_held();
    site.signal(Signal::SIGTERM);
    assert!(site.guard.as_mut().unwrap().wait().unwrap().success());
    assert_eq!(fed().last(), Some(&b'V'));
}

/// A pool on a file system of its own, which can be made to hang.
struct Frozen<'a>(&'a Utf8Path);

impl<'a> Frozen<'a> {
    fn freeze(root: &'a Utf8Path) -> Self {
        command("fsfreeze", &["--freeze", root.as_str()]);
        Self(root)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        command("fsfreeze", &["--unfreeze", self.0.as_str()]);
    }
}

fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Site {
    fn on_file_system() -> Self {
        // The mount goes with this thread and what it starts.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let work = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        let (image, root) = (work.join("image"), work.join("shared"));
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        command("mkfs.ext4", &["-q", image.as_str()]);
        fs::create_dir(&root).unwrap();
        command("mount", &["-o", "loop", image.as_str(), root.as_str()]);
        Pool::make_shared(&pool(), &root).unwrap();
        Self::with_pool(dir, &work, root)
    }
}

#[test]
fn a_pool_that_hangs_stops_no_clock_and_no_successor() {
    let mut site = Site::on_file_system();
    site.watchdog = Some(site.state_dir.join("watchdog"));
    fs::write(site.watchdog.as_ref().unwrap(), "").unwrap();
    site.start();
    site.wait_held();
    let mut guest = Guest::start();
    site.guard(&guest);
    let root = site.root.clone();
    let frozen = Frozen::freeze(&root);
    let hung = Instant::now();
    guest.lives_for(TIMES.lease - TIMES.write - Duration::from_millis(200));
    guest.wait_killed();
    assert!(hung.elapsed() < TIMES.lease + Duration::from_secs(2), "{:?}", hung.elapsed());
    assert!(site.fenced(&guest).is_some());

    // The guard is killed, and a thread of it hangs on: the next one takes its place all the same.
    let mut dead = site.guard.take().unwrap();
    dead.kill().unwrap();
    site.start();
    let own = site.guard.as_ref().unwrap().id().cast_signed();
    wait("the next one speaks", || site.status().is_some_and(|status| status.process.pid == own));
    let mut late = Guest::of(guest.id);
    late.wait_killed();
    drop(frozen);
    dead.wait().unwrap();
    let term = site.term();
    wait("the lease is held again", || site.term() > term);
    let mut late = Guest::of(guest.id);
    late.wait_killed();
}

#[test]
fn the_agent_stands_in_for_a_guard_that_is_dead_and_for_no_other() {
    let site = Site::new();
    let mut fake = FakeGuard::new(&site.state_dir, MACHINE_BOOT);
    let mut guest = Guest::start();
    let guards = guards(&site.state_dir, MACHINE_BOOT, Arc::new(KernelClock));
    let now = KernelClock.now();
    let ago = |seconds: u64| Moment(now.0.saturating_sub(seconds * 1000));
    let lease = Times::default().lease.as_secs();
    fake.renew(ago(lease - 15));
    let held = Held { root: site.root.clone(), term: fake.status.leases[&pool()].term };
    let entry = Entry { boot: 3, pools: [(pool(), held)].into(), written: now };
    guards.put(guest.id, &entry).unwrap();
    let mut told = BTreeSet::new();
    let machine: SharedMachine = Arc::new(ThisMachine);

    // Dead, but the lease has not lapsed.
    fake.look(ago(20));
    second::look(&machine, &guards, &mut told);
    guest.lives_for(Duration::from_millis(200));
    // Lapsed, but it is the guard's own business.
    fake.status.leases.get_mut(&pool()).unwrap().renewed = Some(ago(lease + 1));
    fake.look(KernelClock.now());
    second::look(&machine, &guards, &mut told);
    guest.lives_for(Duration::from_millis(200));
    assert!(!fake.has_record(guest.id));

    fake.look(ago(20));
    second::look(&machine, &guards, &mut told);
    guest.wait_killed();
    assert_eq!(site.fenced(&guest).unwrap().boot, 3);
}
