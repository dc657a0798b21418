//! The memory of a real guest: it goes on where it was, with the disks that it had then.

use std::time::{Duration, Instant};

use compute_agent::host_storage::{Doomed, HostStorage as _};
use compute_agent::hypervisor::Hypervisor as _;
use compute_agent::reconcile::Outcome;
use protocol::agent::{InstanceSpec, MemoryFile, ObservedState, Power, SaveMemory, VolumeState};

use crate::agent::{NEVER, Site, instance, layer, next};
use crate::instants::{cached_guest, number, says, serial};

/// Counts in memory alone, and writes each number to the second disk before it says it.
const COUNTER: &str = r#"
counter() {
  number=0
  echo 'counter: begins'
  while true; do
    number=$((number + 1))
    printf '%010d' $number | dd of=/dev/vdc bs=512 conv=sync,fsync 2> /dev/null
    echo "counter: $number"
    sleep 0.1
  done
}
counter < /dev/null &
"#;
const PATIENCE: Duration = Duration::from_secs(60);

fn counts(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.trim().strip_prefix("counter: ")?.parse().ok()).collect()
}

fn counted(site: &Site, spec: &InstanceSpec, from: usize, beyond: u64) -> Vec<u64> {
    let began = Instant::now();
    loop {
        let said = counts(serial(site, spec).get(from..).unwrap_or_default());
        if said.last().is_some_and(|last| *last > beyond) {
            return said;
        }
        assert!(began.elapsed() < PATIENCE, "it counts no further than {said:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each disk gets a layer, with the memory of the same instant.
fn with_memory(spec: &InstanceSpec) -> (InstanceSpec, MemoryFile) {
    let (file, mut spec) = (MemoryFile { id: layer(), pool: None }, next(spec));
    spec.disks.iter_mut().for_each(|disk| disk.volume.layers.push(layer()));
    let above = spec.disks.iter().filter_map(|disk| disk.volume.top()).collect();
    (InstanceSpec { save_memory: Some(SaveMemory { file: file.clone(), above }), ..spec }, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_goes_on_from_its_memory_with_the_disks_that_it_had() {
    let mut site = Site::start();
    let image = site.image(&cached_guest("fast"));
    let first = instance(Some(&image), 2, Some(format!("#!/bin/sh\n{COUNTER}")));
    let id = first.id;
    let mut agent = site.agent(NEVER).await;
    agent.want(&first);
    agent.settle(id).await;
    says(&site, &first, "counter: 20");

    let (taken, file) = with_memory(&first);
    agent.want(&taken);
    let began = Instant::now();
    agent.settle(id).await;
    println!("taken in {:?}", began.elapsed());
    let report = agent.report(id);
    assert_eq!((report.saved_memory, report.not_taken), (Some(file.id), None));
    assert!(report.volumes.iter().all(|volume| volume.state == VolumeState::Ready));
    let then = number(&site.layer(taken.disks[1].volume.layers[0]));
    let late = *counted(&site, &taken, 0, then + 30).last().unwrap();

    // An agent dies in the middle of another: the layers are those of the memory, or there is none.
    let (cut_off, lost) = with_memory(&taken);
    agent.want(&cut_off);
    let reconciler = std::sync::Arc::clone(&agent.reconciler);
    let pass = tokio::spawn(async move { reconciler.pass(id).await });
    tokio::time::sleep(Duration::from_millis(60)).await;
    pass.abort();
    drop(agent);
    let mut agent = site.agent(NEVER).await;
    // What the other had begun goes on without it for a while.
    let ready = async {
        loop {
            agent.settle(id).await;
            let report = agent.report(id);
            if report.volumes.iter().all(|volume| volume.state == VolumeState::Ready) {
                return report;
            }
        }
    };
    let report = tokio::time::timeout(PATIENCE, ready).await.expect("the disks are ready");
    println!("an agent that was killed left {:?}", report.saved_memory);
    assert_eq!(report.saved_memory.is_some(), site.pool.memory(&lost).await.unwrap().is_some());
    counted(&site, &cut_off, 0, late);

    let off = InstanceSpec { power: Power::Stopped, save_memory: None, ..next(&cut_off) };
    agent.want(&off);
    agent.settle(id).await;
    let from = serial(&site, &off).len();
    let mut back =
        InstanceSpec { power: Power::Running, boot: 2, load_memory: Some(file.clone()), ..next(&off) };
    for disk in &mut back.disks {
        disk.volume.layers = vec![disk.volume.layers[0], layer()];
    }
    // One that has lost a disk is no guest that could go on.
    let lacking = InstanceSpec { disks: vec![back.disks[0].clone()], ..back.clone() };
    agent.want(&lacking);
    assert!(matches!(agent.reconciler.pass(id).await, Outcome::Failed(_)));
    assert_eq!(agent.report(id).state, ObservedState::Failed);
    assert!(agent.libvirt.domains().await.unwrap().is_empty());

    let back = next(&back);
    agent.want(&back);
    let began = Instant::now();
    agent.settle(id).await;
    println!("back in {:?}", began.elapsed());
    let domains = agent.libvirt.domains().await.unwrap();
    assert_eq!((domains[0].boot, domains[0].generation), (2, back.generation));
    let record = agent.boots.get(id).unwrap();
    assert!(record.loaded && !record.to_resume);
    let said = counted(&site, &back, from, then + 20);
    println!("{then} then, {late} later, and it went on with {:?}", &said[..3]);
    assert!(said[0] >= then && said[0] <= then + 1, "{then} then, and it went on with {said:?}");
    assert!(said.windows(2).all(|two| two[1] == two[0] + 1), "{said:?}");
    assert_eq!(serial(&site, &back).matches("counter: begins").count(), 1, "it has not booted");
    assert!(number(&site.top(&back.disks[1])) > then + 10);
    let layers = [file.id, lost.id];
    site.pool.remove_layers(Doomed { layers: &layers, pools: &[] }).await.unwrap();
    assert_eq!(site.pool.memory(&file).await.unwrap(), None);
}
