//! A running guest goes from one host to another with its disks: two libvirtd that do not know of each other.

use std::os::unix::net::{UnixListener, UnixStream};

use compute_agent::hypervisor::Transfer;

use super::*;

const KIB_64: &str = "64k";

/// Lets QEMU itself write to a disk of a domain.
fn write(lab: &Lab, spec: &DomainSpec, disk: usize, byte: u8, place: &str) {
    let volume = spec.disks[disk].volume;
    let command = format!(
        r#"qemu-io -d /machine/peripheral/ua-{volume}/virtio-backend "write -f -P {byte} {place} {KIB_64}""#
    );
    lab.host.virsh(&["qemu-monitor-command", "--hmp", &format!("cumulo-{}", spec.id), &command]);
}

/// The same domain at another host: what is below is there, and what is written to is empty.
fn twin(at: &Lab, spec: &DomainSpec) -> DomainSpec {
    let disks = spec.disks.iter().map(|disk| {
        let base = disk.base.as_ref().map(|base| {
            let copy = at.host.root().join("base.qcow2");
            fs::copy(base, &copy).unwrap();
            copy
        });
        let layers = vec![at.host.make_disk(base.as_deref(), Uuid::now_v7(), disk.size_gib.0)];
        DomainDisk { base, layers, ..disk.clone() }
    });
    let serial_log = at.host.root().join(format!("{}.log", spec.id));
    DomainSpec { disks: disks.collect(), seed: at.host.make_seed(spec.id), serial_log, ..spec.clone() }
}

/// Lets the domain that waits be written to, and gives a connection for each of its disks.
async fn open(at: &Lab, spec: &DomainSpec) -> Vec<(VolumeId, UnixStream)> {
    let path = at.host.root().join("door");
    let door = UnixListener::bind(&path).unwrap();
    let volumes: Vec<_> = spec.disks.iter().map(|disk| disk.volume).collect();
    let ways = volumes.iter().map(|volume| (*volume, UnixStream::connect(&path).unwrap())).collect();
    fs::remove_file(&path).unwrap();
    at.libvirt.open_disks(spec.id, &volumes, door).await.unwrap();
    ways
}

async fn until(at: &Lab, id: InstanceId, wanted: impl Fn(Transfer) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = at.libvirt.transfer(id).await.unwrap();
        if wanted(seen) {
            return;
        }
        assert!(Instant::now() < deadline, "in vain: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn runs(at: &Lab, id: InstanceId) {
    let domains = at.libvirt.domains().await.unwrap();
    assert_eq!(domains.iter().find(|domain| domain.id == id).unwrap().state, DomainState::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_goes_with_its_disks_and_notices_no_attempt_that_fails() {
    let (mut home, mut away) = (Lab::start().await, Lab::start().await);
    let base = home.host.make_base("base.qcow2", &guest::obedient(HELLO));
    let mut spec = home.spec(&base);
    spec.disks.push(home.disk(None, 1));
    let id = spec.id;
    home.create(&spec).await;
    write(&home, &spec, 0, 2, "20M");
    write(&home, &spec, 1, 3, "0");

    // The other host is lost when it has all but what comes next.
    let there = twin(&away, &spec);
    away.libvirt.create_waiting(&there).await.unwrap();
    let ways = open(&away, &there).await;
    home.libvirt.mirror(id, ways).await.unwrap();
    until(&home, id, |seen| seen == Transfer::Mirrored).await;
    runs(&home, id).await;
    let destroyed = Instant::now();
    away.libvirt.destroy(id).await.unwrap();
    away.ended(id, EndCause::Destroyed, destroyed).await;
    write(&home, &spec, 0, 4, "21M");
    write(&home, &spec, 1, 4, "1M");
    until(&home, id, |seen| seen == Transfer::Idle).await;
    runs(&home, id).await;
    home.libvirt.end_mirrors(id).await.unwrap();

    let there = twin(&away, &spec);
    away.libvirt.create_waiting(&there).await.unwrap();
    let ways = open(&away, &there).await;
    home.libvirt.mirror(id, ways).await.unwrap();
    write(&home, &spec, 0, 5, "22M");
    until(&home, id, |seen| seen == Transfer::Mirrored).await;
    write(&home, &spec, 1, 6, "2M");
    let (from, to) = UnixStream::pair().unwrap();
    away.libvirt.receive(id, to).await.unwrap();
    home.libvirt.send(id, from, 300).await.unwrap();
    until(&home, id, |seen| seen == Transfer::Switching).await;
    assert_eq!(away.libvirt.transfer(id).await.unwrap(), Transfer::Waiting, "nothing of it runs there");
    home.libvirt.switch_over(id).await.unwrap();
    until(&home, id, |seen| seen == Transfer::Sent).await;
    until(&away, id, |seen| seen == Transfer::Idle).await;
    away.libvirt.close_disks(id).await.unwrap();
    away.libvirt.close_disks(id).await.unwrap();
    away.libvirt.resume(id).await.unwrap();
    runs(&away, id).await;
    let destroyed = Instant::now();
    home.libvirt.destroy(id).await.unwrap();
    home.ended(id, EndCause::Destroyed, destroyed).await;
    write(&away, &there, 0, 7, "23M");

    // It has not been started anew, and does what it was to do.
    let pressed = Instant::now();
    away.libvirt.press_power_button(id).await.unwrap();
    away.ended(id, EndCause::GuestShutdown, pressed).await;
    assert!(!says_hello(&there), "it was started there");
    let written: [(usize, u8, &str); 7] =
        [(0, 2, "20M"), (0, 4, "21M"), (0, 5, "22M"), (0, 7, "23M"), (1, 3, "0"), (1, 4, "1M"), (1, 6, "2M")];
    for (disk, byte, place) in written {
        let file = there.disks[disk].layers[0].as_str();
        let read =
            run("qemu-io", &["-r", "-f", "qcow2", "-c", &format!("read -P {byte} {place} {KIB_64}"), file]);
        assert!(read.contains("read 65536/65536") && !read.contains("failed"), "{disk} at {place}: {read}");
    }
}

/// An attempt with disks makes QEMU wait at the end, and QEMU keeps that. One without disks would wait there for nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_with_disks_does_not_decide_how_the_next_one_ends() {
    let home = Lab::start().await;
    let base = home.host.make_base("base.qcow2", &guest::obedient(HELLO));
    let mut spec = home.spec(&base);
    spec.disks.iter_mut().for_each(|disk| disk.shared = true);
    let id = spec.id;
    home.create(&spec).await;
    let ask = |command: &str| home.host.virsh(&["qemu-monitor-command", &format!("cumulo-{id}"), command]);
    let wait = "pause-before-switchover";
    ask(&format!(
        r#"{{"execute": "migrate-set-capabilities",
             "arguments": {{"capabilities": [{{"capability": "{wait}", "state": true}}]}}}}"#
    ));
    let (from, nobody) = UnixStream::pair().unwrap();
    drop(nobody);
    home.libvirt.send(id, from, 300).await.unwrap();
    until(&home, id, |seen| seen == Transfer::Idle).await;
    runs(&home, id).await;
    let said: serde_json::Value =
        serde_json::from_str(&ask(r#"{"execute": "query-migrate-capabilities"}"#)).unwrap();
    let found = said["return"].as_array().unwrap().iter().find(|one| one["capability"] == wait).unwrap();
    assert_eq!(found["state"], false);
}
