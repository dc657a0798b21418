//! B7: placement of 100,000 instances, each in a group of ten that stay apart, on 10,000 hosts until nine tenths of them
//! are full; beside a tight loop over arrays that looks for the host with the largest share left and knows nothing else.
//!
//! Blocks of 10,000 decisions alternate between the two, on one thread. What is reported is decisions per second of
//! processor time of each block, so that a busy machine does not count, and the 99th percentile of single decisions by the
//! clock, where it does.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::scheduler::{
    Candidate, Fleet, Group, GroupPolicy, Needs, Request, Rule, Scope, Size, Strength, Weights, choose,
};
use protocol::HostId;
use protocol::agent::Architecture;
use serde_json::json;
use uuid::Uuid;

use crate::compare::{Series, write};

const HOSTS: usize = 10_000;
const BLOCKS: usize = 10;
const BLOCK: usize = 10_000;
const GROUP: usize = 10;
const WHOLE: Size = Size { vcpus: 64, memory_mib: 33 << 10, disk_gib: 1000 };

pub(crate) fn run() -> Result<()> {
    let (mut cloud, mut arrays) = (Cloud::new(), Arrays::new());
    let mut ours = Series::new("Cumulo, place (filters, groups, weights)");
    let mut peer = Series::new("a loop over arrays");
    let mut slowest = Vec::with_capacity(BLOCKS * BLOCK);
    for block in 0..BLOCKS {
        let began = processor_seconds()?;
        for index in block * BLOCK..(block + 1) * BLOCK {
            let decision = Instant::now();
            cloud.place(index).with_context(|| format!("no host took instance {index}"))?;
            slowest.push(decision.elapsed());
        }
        ours.values.push(BLOCK as f64 / (processor_seconds()? - began));
        let began = processor_seconds()?;
        for index in block * BLOCK..(block + 1) * BLOCK {
            black_box(arrays.place(size(index)));
        }
        peer.values.push(BLOCK as f64 / (processor_seconds()? - began));
        println!("block {block}: {:.0}/s, {:.0}/s", ours.values[block], peer.values[block]);
    }
    slowest.sort_unstable();
    let p99 = slowest[slowest.len() * 99 / 100].as_secs_f64() * 1000.0;
    let (empty, full) = (ours.values[0], ours.values[BLOCKS - 1]);
    crate::compare::report("b7", "decisions per second of processor time", &ours, &peer)?;
    println!("empty {empty:.0}/s, full {full:.0}/s, 99th percentile {p99:.2} ms, {:.0} % full", cloud.full());
    let values = json!({"ours": ours.values, "peer": peer.values});
    write("b7", &json!({"bench": "b7", "values": values, "p99_ms": p99, "percent_full": cloud.full()}))
}

/// What this thread has had of a processor (proc(5), `schedstat`).
fn processor_seconds() -> Result<f64> {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").context("read the scheduler's statistics")?;
    let nanoseconds: u64 = text.split(' ').next().unwrap_or_default().parse().context("read a time")?;
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// From two to four GiB, in an order that repeats.
const fn size(index: usize) -> Size {
    let (vcpus, memory_mib) = match index * 7 % 3 {
        0 => (1, 2048),
        1 => (2, 3072),
        _ => (4, 4096),
    };
    Size { vcpus, memory_mib, disk_gib: 20 }
}

/// The scheduler's own snapshot.
struct Cloud {
    fleet: Fleet,
    groups: BTreeMap<usize, Vec<HostId>>,
}

impl Cloud {
    fn new() -> Self {
        let host = |number: usize| Candidate {
            id: Uuid::from_u128(number as u128 + 1).into(),
            ready: true,
            cordoned: false,
            pool_low: false,
            architectures: vec![Architecture::X86_64],
            features: Vec::new(),
            pools: Vec::new(),
            guarded: Vec::new(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            rack: Some(format!("{}/{}", number / 1000, number / 40)),
            zone: Some((number / 1000).to_string()),
            starting: 0,
            free: WHOLE,
            total: WHOLE,
        };
        let weights = Weights { image: 0.05, load: 0.0, ..Weights::default() };
        Self {
            fleet: Fleet::new((0..HOSTS).map(host).collect(), weights, Vec::new()),
            groups: BTreeMap::new(),
        }
    }

    /// The members of a group come far apart, as instances of many projects do.
    fn place(&mut self, index: usize) -> Option<HostId> {
        let group = index % (BLOCKS * BLOCK / GROUP);
        let rule = Rule { policy: GroupPolicy::AntiAffinity, strength: Strength::Hard, scope: Scope::Host };
        let members = self.groups.entry(group).or_default();
        let id = Uuid::from_u128(group as u128);
        let size = size(index);
        let request = Request {
            group: Some(Group { id, name: String::new(), rule, members: members.clone() }),
            ..Request::of_type(Architecture::X86_64, "bench", size, Needs::default())
        };
        let host = choose(&self.fleet, &request)?;
        self.fleet.take(host, size);
        members.push(host);
        Some(host)
    }

    /// How much of the memory is taken, in per cent.
    fn full(&self) -> f64 {
        let free: i64 = self.fleet.hosts().iter().map(|host| i64::from(host.free.memory_mib)).sum();
        100.0 - free as f64 * 100.0 / (HOSTS as f64 * f64::from(WHOLE.memory_mib))
    }
}

/// The floor.
struct Arrays {
    vcpus: Vec<i32>,
    memory: Vec<i32>,
    disk: Vec<i32>,
}

impl Arrays {
    fn new() -> Self {
        Self {
            vcpus: vec![WHOLE.vcpus; HOSTS],
            memory: vec![WHOLE.memory_mib; HOSTS],
            disk: vec![WHOLE.disk_gib; HOSTS],
        }
    }

    fn place(&mut self, size: Size) -> Option<usize> {
        let (mut best, mut most) = (None, f64::MIN);
        for host in 0..HOSTS {
            let left = [
                (self.vcpus[host] - size.vcpus, WHOLE.vcpus),
                (self.memory[host] - size.memory_mib, WHOLE.memory_mib),
                (self.disk[host] - size.disk_gib, WHOLE.disk_gib),
            ];
            if left.iter().any(|(left, _)| *left < 0) {
                continue;
            }
            let share =
                left.iter().map(|(left, whole)| f64::from(*left) / f64::from(*whole)).fold(1.0, f64::min);
            if share > most {
                (best, most) = (Some(host), share);
            }
        }
        let host = best?;
        self.vcpus[host] -= size.vcpus;
        self.memory[host] -= size.memory_mib;
        self.disk[host] -= size.disk_gib;
        Some(host)
    }
}
