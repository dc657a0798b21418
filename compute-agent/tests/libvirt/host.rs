//! A host of its own: libvirtd and virtlogd in a mount and a network namespace, with private directories.
//!
//! Namespaces belong to a thread, and children inherit those of the thread that starts them: so one thread
//! per host unshares, mounts, and starts every process of the host. The socket is reached from outside by its
//! real path.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::InstanceId;
use tempfile::TempDir;
use uuid::Uuid;

use crate::{guest, reaper};

const PRIVATE: [&str; 5] =
    ["/run", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/etc/libvirt"];
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Host {
    commands: Option<Sender<(Command, Sender<Child>)>>,
    thread: Option<JoinHandle<()>>,
    virtlogd: Child,
    libvirtd: Child,
    folder: TempDir,
}

impl Host {
    pub fn start() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make namespaces and need root");
        reaper::start();
        let folder = tempfile::Builder::new().prefix("cumulo-host-").tempdir().unwrap();
        // QEMU runs as a user of its own and must reach its disks.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let root = Utf8PathBuf::from_path_buf(folder.path().to_path_buf()).unwrap();
        configure(&root);
        let (commands, inbox) = channel::<(Command, Sender<Child>)>();
        let inside = root.clone();
        let thread = thread::spawn(move || {
            enter(&inside);
            for (mut command, started) in inbox {
                started.send(command.spawn().unwrap()).unwrap();
            }
        });
        let virtlogd = spawn(&commands, &root, "virtlogd");
        wait_until("virtlogd listens", || root.join("run/libvirt/virtlogd-sock").exists());
        let libvirtd = spawn(&commands, &root, "libvirtd");
        Self { commands: Some(commands), thread: Some(thread), virtlogd, libvirtd, folder }
    }

    pub fn root(&self) -> &Utf8Path {
        Utf8Path::from_path(self.folder.path()).unwrap()
    }

    pub fn uri(&self) -> String {
        format!("qemu:///system?socket={}/run/libvirt/libvirt-sock", self.root())
    }

    pub fn signal_libvirtd(&self, signal: Signal) {
        kill(pid_of(&self.libvirtd), signal).unwrap();
    }

    pub fn kill_libvirtd(&mut self) {
        self.libvirtd.kill().unwrap();
        self.libvirtd.wait().unwrap();
    }

    pub fn start_libvirtd(&mut self) {
        self.libvirtd = spawn(self.commands.as_ref().unwrap(), self.root(), "libvirtd");
    }

    /// Runs a command in the host's namespaces, to its end.
    pub fn run_inside(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments);
        let (started, child) = channel();
        self.commands.as_ref().unwrap().send((command, started)).unwrap();
        assert!(child.recv().unwrap().wait().unwrap().success(), "{program} {arguments:?}");
    }

    /// The process of an instance's domain.
    pub fn qemu(&self, id: InstanceId) -> Pid {
        let file = self.root().join(format!("run/libvirt/qemu/cumulo-{id}.pid"));
        Pid::from_raw(fs::read_to_string(file).unwrap().trim().parse().unwrap())
    }

    /// The pool: a base made from `boot_sector`, and seeds and disks of instances.
    pub fn make_base(&self, name: &str, boot_sector: &[u8]) -> Utf8PathBuf {
        let (raw, base) = (self.root().join("base.raw"), self.root().join(name));
        fs::write(&raw, boot_sector).unwrap();
        fs::OpenOptions::new().write(true).open(&raw).unwrap().set_len(guest::DISK_BYTES).unwrap();
        run("qemu-img", &["convert", "-q", "-f", "raw", "-O", "qcow2", raw.as_str(), base.as_str()]);
        fs::set_permissions(&base, Permissions::from_mode(0o644)).unwrap();
        base
    }

    pub fn virsh(&self, arguments: &[&str]) -> String {
        run("virsh", &[&["-c", &self.uri()], arguments].concat())
    }

    /// Like [`Host::virsh`], of what may be refused: `None` then.
    pub fn try_virsh(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("virsh").args(["-c", &self.uri()]).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Like [`Host::virsh`], not waited for.
    pub fn begin_virsh(&self, arguments: &[&str]) -> Child {
        Command::new("virsh").args(["-c", &self.uri()]).args(arguments).spawn().unwrap()
    }

    pub fn make_disk(&self, base: Option<&Utf8Path>, id: Uuid, gib: u32) -> Utf8PathBuf {
        let (disk, size) = (self.root().join(format!("{id}.qcow2")), format!("{gib}G"));
        let mut arguments = vec!["create", "-q", "-f", "qcow2"];
        if let Some(base) = base {
            arguments.extend(["-F", "qcow2", "-b", base.as_str()]);
        }
        run("qemu-img", &[&arguments[..], &[disk.as_str(), &size]].concat());
        fs::set_permissions(&disk, Permissions::from_mode(0o600)).unwrap();
        disk
    }

    /// An empty layer over one that may be in use.
    pub fn make_overlay(&self, below: &Utf8Path, id: Uuid) -> Utf8PathBuf {
        let layer = self.root().join(format!("{id}.qcow2"));
        let over = ["create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", below.as_str()];
        run("qemu-img", &[&over[..], &[layer.as_str(), "1G"]].concat());
        fs::set_permissions(&layer, Permissions::from_mode(0o600)).unwrap();
        layer
    }

    pub fn make_seed(&self, id: InstanceId) -> Utf8PathBuf {
        let seed = self.root().join(format!("{id}.seed"));
        fs::write(&seed, vec![0; 64 << 10]).unwrap();
        fs::set_permissions(&seed, Permissions::from_mode(0o600)).unwrap();
        seed
    }
}

impl Drop for Host {
    /// Ends every process of the host by its pid: libvirtd first, so that it starts no other.
    fn drop(&mut self) {
        // A stopped process can be killed, too.
        let _ = self.libvirtd.kill();
        let _ = self.libvirtd.wait();
        for pid in pids_in(&self.root().join("run/libvirt/qemu")) {
            let _ = kill(pid, Signal::SIGKILL);
            wait_until("QEMU has ended", || !Path::new(&format!("/proc/{pid}")).exists());
        }
        let _ = self.virtlogd.kill();
        let _ = self.virtlogd.wait();
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn configure(root: &Utf8Path) {
    for target in PRIVATE {
        fs::create_dir_all(inside(root, target)).unwrap();
    }
    let host_uuid = Uuid::now_v7();
    let config =
        format!("host_uuid = \"{host_uuid}\"\nauth_unix_rw = \"none\"\nunix_sock_rw_perms = \"0700\"\n");
    fs::write(root.join("etc/libvirt/libvirtd.conf"), config).unwrap();
}

fn inside(root: &Utf8Path, target: &str) -> Utf8PathBuf {
    root.join(target.trim_start_matches('/'))
}

/// Moves this thread into namespaces of its own.
fn enter(root: &Utf8Path) {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    for target in PRIVATE {
        fs::create_dir_all(target).unwrap();
        mount(Some(inside(root, target).as_std_path()), target, none, MsFlags::MS_BIND, none).unwrap();
    }
}

fn spawn(commands: &Sender<(Command, Sender<Child>)>, root: &Utf8Path, daemon: &str) -> Child {
    let log =
        fs::OpenOptions::new().create(true).append(true).open(root.join(format!("{daemon}.log"))).unwrap();
    let mut command = Command::new(format!("/usr/sbin/{daemon}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
    let (started, child) = channel();
    commands.send((command, started)).unwrap();
    child.recv().unwrap()
}

fn pids_in(folder: &Utf8Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok().map(Pid::from_raw))
        .collect()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Runs a program to its good end; gives what it said.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Looks at a condition until it holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Owner and permissions of a file, as in `0:0 644`.
pub fn ownership(path: &Utf8Path) -> String {
    let metadata = fs::metadata(path).unwrap();
    format!("{}:{} {:o}", metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
}
