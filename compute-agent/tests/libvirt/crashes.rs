//! Snapshots and merges, whoever is killed on the way: what was written is what is read.

use std::time::{Duration, Instant};

use compute_agent::host_storage::{Doomed, HostStorage as _};
use compute_agent::reconcile::Outcome;
use nix::sys::signal::{Signal, kill};
use protocol::LayerId;
use protocol::agent::{EndReason, InstanceSpec, ObservedState, Power, VolumeState};

use crate::agent::{Content, NEVER, Site, instance, next, snapshot};
use crate::host::{run, wait_until};

/// A layer with so much data takes a while to be merged; 64 KiB each.
const MUCH: u64 = 16 * 64;

/// The second layer of each disk is to be merged into the first.
fn merge(spec: &InstanceSpec) -> InstanceSpec {
    let mut spec = next(spec);
    spec.disks.iter_mut().for_each(|disk| disk.volume.merges = vec![disk.volume.layers[1]]);
    spec
}

/// The control plane has heard of the merge, and has what was merged removed.
async fn forget_merged(site: &Site, spec: &InstanceSpec) -> InstanceSpec {
    let mut spec = next(spec);
    for disk in &mut spec.disks {
        site.pool.remove_layers(Doomed { layers: &disk.volume.merges, pools: &[] }).await.unwrap();
        disk.volume.layers = disk.volume.kept().collect();
        disk.volume.merges.clear();
    }
    spec
}

fn to_merge(spec: &InstanceSpec) -> Vec<LayerId> {
    spec.disks.iter().flat_map(|disk| disk.volume.merges.clone()).collect()
}

fn check(site: &Site, spec: &InstanceSpec) {
    for layer in spec.disks.iter().flat_map(|disk| disk.volume.kept()) {
        run("qemu-img", &["check", "-U", "-q", site.layer(layer).as_str()]);
    }
}

/// The instance that all these tests have: two disks, no operating system.
async fn site() -> (Site, InstanceSpec, [Content; 2]) {
    let (site, spec) = (Site::start(), instance(None, 2, None));
    let mut agent = site.agent(NEVER).await;
    agent.want(&spec);
    agent.settle(spec.id).await;
    let mut contents = [Content::default(), Content::default()];
    for (disk, content) in spec.disks.iter().zip(&mut contents) {
        (0..3).for_each(|place| content.write(&site, spec.id, disk, place, 1));
    }
    (site, spec, contents)
}

/// Killed before a step, after it and once it is noted, at every step of a snapshot, then at every one of a merge;
/// written to in between, and once more by the next agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_step_of_a_snapshot_or_a_merge_changes_nothing() {
    let (site, mut spec, mut contents) = site().await;
    let id = spec.id;
    let mut byte = 1_u8;
    let mut write = |spec: &InstanceSpec, contents: &mut [Content; 2], place: u64| {
        byte = byte.checked_add(1).unwrap_or(1);
        for (disk, content) in spec.disks.iter().zip(contents) {
            content.write(&site, id, disk, place % 64, byte);
        }
    };
    for dies_at in 0.. {
        write(&spec, &mut contents, dies_at);
        let sealed = spec.clone();
        let mut at_snapshot = contents.clone();
        spec = snapshot(&spec);
        let mut agent = site.agent(dies_at).await;
        agent.want(&spec);
        let taking = agent.until_quiet(id).await;
        drop(agent);
        let mut agent = site.agent(NEVER).await;
        let taken = agent.chains(id).await[0].len() == spec.disks[0].volume.layers.len();
        write(&spec, &mut contents, dies_at + 1);
        if !taken {
            at_snapshot = contents.clone();
        }
        agent.settle(id).await;
        write(&spec, &mut contents, dies_at + 2);
        for (disk, content) in sealed.disks.iter().zip(&at_snapshot) {
            content.assert_is(&site, &site.top(disk));
        }
        assert!(agent.report(id).volumes.iter().all(|volume| volume.state == VolumeState::Ready));
        drop(agent);

        // Once there are three layers, the middle one goes.
        let mut merging = Outcome::Settled;
        if spec.disks[0].volume.layers.len() == 3 {
            spec = merge(&spec);
            let mut agent = site.agent(dies_at).await;
            agent.want(&spec);
            merging = agent.until_quiet(id).await;
            drop(agent);
            write(&spec, &mut contents, dies_at + 3);
            let mut agent = site.agent(NEVER).await;
            agent.settle(id).await;
            assert_eq!(agent.merged(id), to_merge(&spec), "died at {dies_at}");
            spec = forget_merged(&site, &spec).await;
            agent.want(&spec);
            agent.settle(id).await;
            write(&spec, &mut contents, dies_at + 4);
            for (disk, content) in spec.disks.iter().zip(&contents) {
                content.assert_is(&site, &site.top(disk));
            }
        }
        println!("died at {dies_at}: {taking:?}, {merging:?}");
        if (taking, merging, dies_at > 0) == (Outcome::Settled, Outcome::Settled, true) {
            assert!(dies_at > 4, "there were steps to die at");
            break;
        }
    }
    let mut agent = site.agent(NEVER).await;
    agent.want(&InstanceSpec { power: Power::Stopped, ..next(&spec) });
    agent.settle(id).await;
    for (disk, content) in spec.disks.iter().zip(&contents) {
        content.assert_is(&site, &site.top(disk));
    }
    check(&site, &spec);
}

fn write_much(site: &Site, spec: &InstanceSpec, contents: &mut [Content; 2], byte: u8) {
    for (disk, content) in spec.disks.iter().zip(contents) {
        site.write(spec.id, disk, byte, &format!("128k {}k", MUCH * 64));
        content.set(2..MUCH + 2, byte);
    }
}

/// Who ends in the middle of a merge.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Qemu,
    QemuAndBootsAgain,
    Libvirtd,
    Merge,
    /// Not dead, but a new layer comes on top.
    BySnapshot,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_in_the_middle_of_a_merge_the_content_stays() {
    let (mut site, mut spec, mut contents) = site().await;
    let id = spec.id;
    let mut agent = site.agent(NEVER).await;
    let mut byte = 100;
    for victim in
        [Victim::Libvirtd, Victim::Merge, Victim::BySnapshot, Victim::QemuAndBootsAgain, Victim::Qemu]
    {
        while spec.disks[0].volume.layers.len() < 3 {
            spec = snapshot(&spec);
            agent.want(&spec);
            agent.settle(id).await;
            byte += 1;
            write_much(&site, &spec, &mut contents, byte);
        }
        spec = merge(&spec);
        agent.want(&spec);
        let domain = format!("cumulo-{id}");
        let place = |disk: usize| if disk == 0 { "vda" } else { "vdc" };
        // Begun by an earlier agent, so to say, and slow: it is not done before its time.
        for (at, disk) in spec.disks.iter().enumerate() {
            let [into, from] = [0, 1].map(|layer: usize| site.layer(disk.volume.layers[layer]));
            let commit = ["--base", into.as_str(), "--top", from.as_str(), "--bandwidth", "1"];
            site.host.virsh(&[&["blockcommit", &domain, place(at)], &commit[..]].concat());
        }
        agent.reconciler.pass(id).await;
        let jobs = || (0..2).map(|disk| site.host.virsh(&["blockjob", &domain, place(disk), "--info"]));
        jobs().for_each(|job| assert!(job.contains("1048576"), "{victim:?}: {job:?} is not under way"));
        assert_eq!(agent.merged(id), []);
        match victim {
            Victim::Libvirtd => {
                site.host.kill_libvirtd();
                site.host.start_libvirtd();
                agent = site.agent(NEVER).await;
            }
            Victim::Merge => {
                (0..2).for_each(|disk| drop(site.host.virsh(&["blockjob", &domain, place(disk), "--abort"])));
            }
            Victim::BySnapshot => {
                spec = snapshot(&spec);
                agent.want(&spec);
                agent.reconciler.pass(id).await;
                assert_eq!(agent.chains(id).await[0].len(), 4, "nobody waits for the merge");
                assert!(agent.report(id).volumes.iter().all(|volume| volume.state == VolumeState::Ready));
                byte += 1;
                write_much(&site, &spec, &mut contents, byte);
            }
            Victim::Qemu | Victim::QemuAndBootsAgain => {
                let pid = site.host.qemu(id);
                kill(pid, Signal::SIGKILL).unwrap();
                wait_until("QEMU has ended", || kill(pid, None).is_err());
            }
        }
        if matches!(victim, Victim::QemuAndBootsAgain) {
            spec = InstanceSpec { boot: spec.boot + 1, ..next(&spec) };
            agent.want(&spec);
        }
        let began = Instant::now();
        // Jobs that go on do so slowly.
        let speed_up = async |site: &Site| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for disk in 0..2 {
                site.host.try_virsh(&["blockjob", &domain, place(disk), "--bandwidth", "0"]);
            }
        };
        tokio::join!(agent.settle(id), speed_up(&site));
        println!("{victim:?}: merged after {:?}", began.elapsed());
        assert_eq!(agent.merged(id), to_merge(&spec), "{victim:?}");
        let state = agent.report(id).state;
        match victim {
            Victim::Qemu => assert_eq!(state, ObservedState::Stopped { reason: EndReason::Crashed }),
            _ => assert_eq!(state, ObservedState::Running, "{victim:?}"),
        }
        spec = forget_merged(&site, &spec).await;
        agent.want(&spec);
        agent.settle(id).await;
        for (disk, content) in spec.disks.iter().zip(&contents) {
            content.assert_is(&site, &site.top(disk));
        }
    }
    check(&site, &spec);
}

/// The power of the guest goes the moment a merge is told: the files have it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_to_be_merged_needs_no_qemu_any_more() {
    let (site, spec, mut contents) = site().await;
    let id = spec.id;
    let mut agent = site.agent(NEVER).await;
    let mut spec = spec;
    for byte in [2, 3] {
        spec = snapshot(&spec);
        agent.want(&spec);
        agent.settle(id).await;
        for (disk, content) in spec.disks.iter().zip(&mut contents) {
            (byte..40).for_each(|place| content.write(&site, id, disk, place.into(), byte));
        }
    }
    spec = merge(&spec);
    agent.want(&spec);
    while agent.merged(id) != to_merge(&spec) {
        agent.reconciler.pass(id).await;
    }
    let pid = site.host.qemu(id);
    kill(pid, Signal::SIGKILL).unwrap();
    wait_until("QEMU has ended", || kill(pid, None).is_err());
    spec = forget_merged(&site, &spec).await;
    for (disk, content) in spec.disks.iter().zip(&contents) {
        content.assert_is(&site, &site.top(disk));
    }
    spec = InstanceSpec { boot: 2, ..spec };
    agent.want(&spec);
    agent.settle(id).await;
    assert!(agent.report(id).volumes.iter().all(|volume| volume.state == VolumeState::Ready));
}
