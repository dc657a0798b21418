//! Snapshots of a real Debian at rest, by the agent that QEMU's makers give to guests.

use std::time::{Duration, Instant};

use camino::Utf8Path;
use compute_agent::host_storage::HostStorage as _;
use compute_agent::hypervisor::Hypervisor as _;
use protocol::agent::{InstanceSpec, VolumeState};
use protocol::{InstanceId, MemoryMib, SizeGib};

use crate::agent::{NEVER, Site, instance, snapshot};
use crate::host::run;
use crate::instants::cached_guest;

/// Under emulation, on a busy machine.
const BOOT: Duration = Duration::from_secs(480);
/// Where the builder of the image puts the root file system.
const ROOT_AT: u64 = 128 << 20;

/// Asks the agent in the guest; `None` when it does not answer.
fn ask(site: &Site, id: InstanceId, command: &str) -> Option<String> {
    site.host.try_virsh(&["qemu-agent-command", &format!("cumulo-{id}"), command])
}

fn is_frozen(site: &Site, id: InstanceId) -> bool {
    ask(site, id, r#"{"execute": "guest-fsfreeze-status"}"#).unwrap().contains("frozen")
}

/// What the root file system in this layer says of itself.
fn root(site: &Site, layer: &Utf8Path) -> String {
    let raw = site.host.root().join("root.raw");
    run("qemu-img", &["convert", "-U", "-q", "-f", "qcow2", "-O", "raw", layer.as_str(), raw.as_str()]);
    run("/sbin/dumpe2fs", &["-h", &format!("{raw}?offset={ROOT_AT}")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "one of many journeys: make chaos"]
async fn a_debian_is_at_rest_in_its_snapshot_and_writes_on() {
    let mut site = Site::start();
    let image = site.image(&cached_guest("debian"));
    let mut spec = instance(Some(&image), 1, None);
    let id = spec.id;
    spec.memory_mib = MemoryMib(512);
    spec.disks[0].volume.size_gib = SizeGib(2);
    let mut agent = site.agent(NEVER).await;
    agent.want(&spec);
    agent.settle(id).await;
    let began = Instant::now();
    while ask(&site, id, r#"{"execute": "guest-ping"}"#).is_none() {
        assert!(began.elapsed() < BOOT, "its agent does not answer");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    println!("its agent answers after {:?}", began.elapsed());
    let said = agent.libvirt.ask_guest(id).await.unwrap();
    println!("it says {said:?}");
    assert_eq!(said.os.unwrap().id.as_deref(), Some("debian"));
    assert!(said.hostname.is_some() && said.clock_offset_ms.is_some());
    assert!(
        said.filesystems.iter().any(|found| found.mount_point == "/" && found.used_bytes > Some(1 << 20))
    );
    assert!(said.interfaces.iter().any(|interface| interface.name == "lo"));
    let script = "while true; do date > /root/now; sync; done";
    let writer = format!(
        r#"{{"execute": "guest-exec", "arguments": {{"path": "/bin/sh", "arg": ["-c", "{script}"]}}}}"#
    );
    ask(&site, id, &writer).unwrap();

    // A file system that was in use has to recover; one that was at rest has not.
    for (freeze, recovers) in [(false, true), (true, false), (true, false)] {
        let sealed = site.top(&spec.disks[0]);
        spec = InstanceSpec { freeze, ..snapshot(&spec) };
        agent.want(&spec);
        agent.settle(id).await;
        assert!(agent.report(id).volumes.iter().all(|volume| volume.state == VolumeState::Ready));
        assert_eq!(root(&site, &sealed).contains("needs_recovery"), recovers, "frozen: {freeze}");
        assert!(!is_frozen(&site, id));
    }

    // An agent that died at the worst moment left it frozen.
    let mut record = agent.boots.get(id).unwrap();
    record.freezing = true;
    agent.boots.put(id, record).unwrap();
    drop(agent);
    site.host.virsh(&["domfsfreeze", &format!("cumulo-{id}")]);
    assert!(is_frozen(&site, id));
    let mut agent = site.agent(NEVER).await;
    agent.settle(id).await;
    assert!(!is_frozen(&site, id) && !agent.boots.get(id).unwrap().freezing);
    assert_eq!(site.pool.chain(&spec.disks[0].volume).await.unwrap().layers.len(), 4);
}
