//! The guard as it is shipped, against a real QEMU whose libvirtd is dead.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use compute_agent::desired::Wanted;
use compute_agent::guard::clock::KernelClock;
use compute_agent::guard::{Guarding, Guards};
use protocol::agent::{LEASE_SECONDS, OnHostFailure};
use serde_json::json;

use super::*;
use crate::agent::instance;

/// Killed when the test ends in whatever way.
struct Guard(Child);

impl Guard {
    fn start(state_dir: &Utf8Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cumulo-agent"));
        command.args(["guard", "--state-dir", state_dir.as_str()]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder of an agent that has joined, and knows of a shared pool.
fn state_dir(work: &Utf8Path, pool: &Utf8Path) -> Utf8PathBuf {
    let state_dir = work.join("agent");
    let identity = state_dir.join("identity");
    fs::create_dir_all(&identity).unwrap();
    let id = Uuid::now_v7();
    let membership = json!({"control_plane": "https://127.0.0.1:8443", "host_id": id, "name": "host-1"});
    fs::write(identity.join("control-plane.json"), membership.to_string()).unwrap();
    // The guard has nothing to say to anybody.
    for file in ["key.pem", "certificate.pem", "ca.pem"] {
        fs::write(identity.join(file), "").unwrap();
    }
    let settings = json!({"protected_networks": [], "shared_pools": {"fast": pool}});
    fs::write(state_dir.join("settings.json"), settings.to_string()).unwrap();
    state_dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_whose_pool_is_lost_ends_without_libvirt_and_its_neighbour_does_not() {
    let mut lab = Lab::start().await;
    let base = lab.host.make_base("base.qcow2", &guest::obedient(HELLO));
    let (spec, other) = (lab.spec(&base), lab.spec(&base));
    let shared = lab.host.root().join("shared");
    fs::create_dir(&shared).unwrap();
    storage::Pool::make_shared(&"fast".parse().unwrap(), &shared).unwrap();
    let state_dir = state_dir(lab.host.root(), &shared);
    let machine_boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().parse().unwrap();
    let guard = Guard::start(&state_dir);

    let pools = [("fast".parse().unwrap(), shared.clone())].into();
    let guards = Guards::open(&state_dir, pools, machine_boot, Arc::new(KernelClock)).unwrap();
    let mut wanted = instance(None, 1, None);
    (wanted.id, wanted.boot, wanted.on_host_failure) = (spec.id, spec.boot, OnHostFailure::Restart);
    wanted.disks[0].volume.pool = Some("fast".parse().unwrap());
    let wanted = Wanted::Instance(Box::new(wanted));
    let look = || -> Guarding { guards.look(&wanted, Some(spec.boot), None).unwrap() };
    wait_until("the host may start it", || {
        guards.heard(guards.now());
        look().wanted.is_some()
    });
    guards.put(spec.id, &look().wanted.unwrap()).unwrap();
    wait_until("the guard knows of it", || look().is_watched);
    assert_eq!(guards.guarded_pools().len(), 1);
    tokio::join!(lab.create(&spec), lab.create(&other));

    lab.host.kill_libvirtd();
    let alive = |spec: &DomainSpec| Path::new(&format!("/proc/{}", lab.host.qemu(spec.id))).exists();
    assert!(alive(&spec) && alive(&other));
    fs::rename(&shared, lab.host.root().join("away")).unwrap();
    let lost = Instant::now();
    wait_until("its power is cut", || !alive(&spec));
    let took = lost.elapsed().as_secs();
    assert!((u64::from(LEASE_SECONDS) - 6..u64::from(LEASE_SECONDS) + 5).contains(&took), "{took} s");
    assert!(alive(&other));
    wait_until("that is written down", || look().is_fenced);
    assert!(look().unready.is_some());
    assert_eq!(guards.guarded_pools().len(), 0);
    assert_eq!(guards.faults().len(), 1);
    drop(guard);
    assert!(alive(&other));

    lab.host.start_libvirtd();
    expect(&mut lab.events, &Event::Disconnected).await;
    expect(&mut lab.events, &Event::Connected).await;
    let ids: Vec<_> = lab.libvirt.domains().await.unwrap().into_iter().map(|domain| domain.id).collect();
    assert_eq!(ids, [other.id]);
}
