//! Snapshots under a guest that writes, and of a guest that is at rest.

use std::fs;
use std::io::Read as _;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use compute_agent::host_storage::HostStorage as _;
use compute_agent::hypervisor::{Beside, Hypervisor as _, NewLayer};
use compute_agent::reconcile::Outcome;
use protocol::agent::{Disk, InstanceSpec, NOT_FROZEN, ObservedState, VolumeState};

use crate::agent::{Agent, NEVER, Site, instance, layer, next, snapshot};
use crate::host::{run, wait_until};

/// Snapshots that are taken of the writing guest.
const SNAPSHOTS: usize = 20;
/// What the guest may take to boot, or to say something, on a busy machine.
const BOOT: Duration = Duration::from_secs(200);
/// The text that the writer writes: a number of ten digits.
const DIGITS: usize = 10;

/// Writes one number after the other, each to the first disk and then to the second, and waits for either until it
/// is on the disk. While there is a file `/run/frozen` it writes nothing, and says so.
const WRITER: &str = r#"
writer() {
  number=0
  while true; do
    if [ -e /run/frozen ]; then
      touch /run/resting
      while [ -e /run/frozen ]; do sleep 0.1; done
      rm /run/resting
    fi
    number=$((number + 1))
    for disk in vdc vdd; do
      printf '%010d' $number | dd of=/dev/$disk bs=512 conv=sync,fsync 2> /dev/null
    done
    [ $((number % 50)) = 0 ] && echo "writer: $number"
  done
}
writer < /dev/null &
"#;

/// An agent that speaks as QEMU's does: <https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>. It knows what
/// libvirt asks, freezes the writer, and misbehaves as each freeze in turn is told to.
const GUEST_AGENT: &str = r#"
agent() {
  port=
  while [ -z "$port" ]; do
    name=$(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name) && port=/dev/$(basename $(dirname $name))
    sleep 0.1
  done
  freezes=0
  exec 3<> $port
  echo 'agent: listens'
  while true; do
    read -r line <&3 || { sleep 0.1; continue; }
    case "$line" in
      *guest-sync*) answer=$(echo "$line" | sed 's/.*"id": *\([0-9]*\).*/\1/') ;;
      *guest-fsfreeze-freeze*)
        freezes=$((freezes + 1))
        echo "agent: freeze $freezes"
        way=$(echo $WAYS | cut -d ' ' -f $freezes)
        if [ "$way" = refuses ]; then
          echo '{"error": {"class": "GenericError", "desc": "not today"}}' >&3
          continue
        fi
        touch /run/frozen
        while [ ! -e /run/resting ]; do sleep 0.1; done
        echo "agent: frozen $freezes"
        [ "$way" = slow ] && sleep 6
        [ "$way" = silent ] && continue
        answer=2 ;;
      *guest-fsfreeze-thaw*)
        rm -f /run/frozen
        while [ -e /run/resting ]; do sleep 0.1; done
        echo "agent: thawed"
        answer=2 ;;
      *) answer='{}' ;;
    esac
    echo "{\"return\": $answer}" >&3
  done
}
agent < /dev/null &
"#;

/// A test guest, from the cache of its builder.
pub fn cached_guest(name: &str) -> Utf8PathBuf {
    let builder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/cached");
    run(builder, &[name]).trim().into()
}

/// A guest that runs the script and has two disks beside its root.
async fn guest(script: &str) -> (Site, Agent, InstanceSpec) {
    let mut site = Site::start();
    let image = site.image(&cached_guest("fast"));
    let spec = instance(Some(&image), 3, Some(format!("#!/bin/sh\n{script}")));
    let mut agent = site.agent(NEVER).await;
    agent.want(&spec);
    agent.settle(spec.id).await;
    says(&site, &spec, "cumulo-test: ready");
    says(&site, &spec, "writer: 50");
    (site, agent, spec)
}

pub fn serial(site: &Site, spec: &InstanceSpec) -> String {
    let log = site.host.root().join(format!("pool/instances/{}/serial.log", spec.id));
    fs::read_to_string(log).unwrap_or_default()
}

pub fn says(site: &Site, spec: &InstanceSpec, line: &str) {
    let began = Instant::now();
    while !serial(site, spec).contains(line) {
        assert!(began.elapsed() < BOOT, "in vain: {line}; it says {}", serial(site, spec));
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn number(path: &Utf8Path) -> u64 {
    let raw = path.with_extension("raw");
    run(
        "qemu-img",
        &[
            "dd",
            "-U",
            "-f",
            "qcow2",
            "-O",
            "raw",
            "bs=512",
            "count=1",
            &format!("if={path}"),
            &format!("of={raw}"),
        ],
    );
    let mut digits = [0; DIGITS];
    fs::File::open(&raw).unwrap().read_exact(&mut digits).unwrap();
    fs::remove_file(raw).unwrap();
    String::from_utf8(digits.to_vec()).unwrap().parse().unwrap()
}

/// What the two disks of the writer held when these layers were sealed.
fn numbers(site: &Site, disks: &[Disk]) -> (u64, u64) {
    let [first, second] = [1, 2].map(|disk: usize| number(&site.top(&disks[disk])));
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_snapshot_has_what_was_written_later_without_what_was_written_before() {
    let (site, mut agent, mut spec) = guest(WRITER).await;
    let mut last = 0;
    for taken in 0..SNAPSHOTS {
        tokio::time::sleep(Duration::from_millis(17 * taken as u64)).await;
        let sealed = spec.clone();
        spec = snapshot(&spec);
        agent.want(&spec);
        agent.settle(spec.id).await;
        let (first, second) = numbers(&site, &sealed.disks);
        assert!(
            first == second || first == second + 1,
            "{first} was on the first disk, {second} on the second"
        );
        assert!(first > last, "the guest writes on");
        last = first;
    }
    println!("{last} numbers in {SNAPSHOTS} snapshots");

    // There is no agent in it. That is told, and it gets its snapshot when it need not be at rest.
    spec = frozen(&spec);
    agent.want(&spec);
    for _ in 0..2 {
        assert!(matches!(agent.reconciler.pass(spec.id).await, Outcome::Failed(_)));
        let report = agent.report(spec.id);
        assert_eq!((report.state, report.detail.as_deref()), (ObservedState::Running, Some(NOT_FROZEN)));
        assert!(report.volumes.iter().all(|volume| volume.state == VolumeState::Preparing));
        assert!(!agent.boots.get(spec.id).unwrap().freezing);
    }
    spec = InstanceSpec { freeze: false, ..next(&spec) };
    agent.want(&spec);
    agent.settle(spec.id).await;
    assert!(all_ready(&agent, &spec) && agent.report(spec.id).detail.is_none());
    assert_writes(&site, &spec);

    // The test can tell: of two that are taken one after the other that is not true.
    let sealed = spec.clone();
    for disk in &spec.disks[1..] {
        let (top, new) = (disk.volume.top().unwrap(), layer());
        site.pool.add_layer(&disk.volume, new, top).await.unwrap();
        let new = NewLayer { volume: disk.volume.id, shared: false, layer: site.layer(new) };
        agent.libvirt.snapshot(spec.id, &[new], &Beside::Nothing).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (first, second) = numbers(&site, &sealed.disks);
    assert!(second > first, "{first} was on the first disk, {second} on the second");
}

fn frozen(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec { freeze: true, ..snapshot(spec) }
}

fn all_ready(agent: &Agent, spec: &InstanceSpec) -> bool {
    agent.report(spec.id).volumes.iter().all(|volume| volume.state == VolumeState::Ready)
}

/// The writer goes on.
fn assert_writes(site: &Site, spec: &InstanceSpec) {
    let words = || serial(site, spec).matches("writer: ").count();
    let before = words();
    wait_until("the guest writes", || words() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "one of many journeys: make chaos"]
async fn a_frozen_guest_is_thawed_whoever_dies_or_keeps_silent() {
    let ways = "WAYS='good refuses slow good slow slow silent good'\n";
    let (mut site, mut agent, mut spec) = guest(&[WRITER, ways, GUEST_AGENT].concat()).await;
    says(&site, &spec, "agent: listens");
    let (id, domain) = (spec.id, format!("cumulo-{}", spec.id));
    // At rest: both disks hold the same, every time.
    let assert_rested = |site: &Site, spec: &InstanceSpec| {
        let (first, second) = numbers(site, &sealed_below(spec));
        assert_eq!(first, second);
    };

    spec = frozen(&spec);
    agent.want(&spec);
    agent.settle(id).await;
    assert!(serial(&site, &spec).contains("agent: frozen 1") && all_ready(&agent, &spec));
    assert_rested(&site, &spec);
    assert_writes(&site, &spec);

    // A guest that refuses is told, and not frozen.
    spec = frozen(&spec);
    agent.want(&spec);
    assert!(matches!(agent.reconciler.pass(id).await, Outcome::Failed(_)));
    assert_eq!(agent.report(id).detail.as_deref(), Some(NOT_FROZEN));
    assert!(!agent.boots.get(id).unwrap().freezing);
    assert_writes(&site, &spec);

    // The agent dies while the guest freezes: what it asked for goes on without it. The next one thaws the guest
    // once it is frozen, and takes the snapshot.
    let mut record = agent.boots.get(id).unwrap();
    record.freezing = true;
    agent.boots.put(id, record).unwrap();
    drop(agent);
    let mut dying = site.host.begin_virsh(&["domfsfreeze", &domain]);
    says(&site, &spec, "agent: frozen 3");
    dying.kill().unwrap();
    dying.wait().unwrap();
    agent = site.agent(NEVER).await;
    let began = Instant::now();
    agent.settle(id).await;
    println!("thawed and taken {:?} after the agent's death", began.elapsed());
    assert!(!agent.boots.get(id).unwrap().freezing && all_ready(&agent, &spec));
    assert_rested(&site, &spec);
    assert_writes(&site, &spec);

    // A guest that takes its time holds up nobody else.
    spec = frozen(&spec);
    agent.want(&spec);
    let passing = agent.reconciler.clone();
    let pass = tokio::spawn(async move { passing.pass(id).await });
    says(&site, &spec, "agent: frozen 5");
    let asked = Instant::now();
    agent.libvirt.domains().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "listed after {:?}", asked.elapsed());
    assert!(!pass.is_finished());
    assert_eq!(pass.await.unwrap(), Outcome::Settled);
    assert_rested(&site, &spec);

    // libvirtd dies, and the agent with it: the guest would stay frozen for ever.
    spec = frozen(&spec);
    agent.want(&spec);
    let dying = agent.reconciler.clone();
    let pass = tokio::spawn(async move { dying.pass(id).await });
    says(&site, &spec, "agent: frozen 6");
    site.host.kill_libvirtd();
    pass.abort();
    drop(agent);
    site.host.start_libvirtd();
    let mut agent = site.agent(NEVER).await;
    assert!(agent.boots.get(id).unwrap().freezing);
    // Thawed, then frozen anew by a guest that does not say so, thawed again, and taken.
    let began = Instant::now();
    agent.settle(id).await;
    println!("thawed and taken {:?} after libvirtd's death", began.elapsed());
    assert!(!agent.boots.get(id).unwrap().freezing && all_ready(&agent, &spec));
    for frozen in 6..=8 {
        assert!(serial(&site, &spec).contains(&format!("agent: frozen {frozen}")));
    }
    assert_rested(&site, &spec);
    assert_writes(&site, &spec);
}

/// The chains without their tops.
fn sealed_below(spec: &InstanceSpec) -> Vec<Disk> {
    let mut disks = spec.disks.clone();
    disks.iter_mut().for_each(|disk| disk.volume.layers.truncate(disk.volume.layers.len() - 1));
    disks
}
