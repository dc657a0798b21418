//! B5: policy decisions per second on 50 statements and random requests, beside Cedar with equivalent
//! policies.
//!
//! Both engines get their policies, entities and contexts ready-made, decide with reasons on one thread,
//! and must agree on every request: on the answer and on the statements that made it. Rounds alternate.
//! What is reported is the median of the rounds with minimum and maximum, and the 99th percentile of single
//! decisions, the reading of the clock included. Prints a table and writes `target/bench/b5.json`; asserts
//! no time.

mod cedar;
mod ours;
mod workload;

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use cedar::Cedar;
use ours::Ours;
use workload::Workload;

const REQUESTS: usize = 4_096;
const SEED: u64 = 5;
const ROUNDS: usize = 7;
/// How long each side decides in each round.
const ROUND: Duration = Duration::from_secs(1);
/// Decisions between two looks at the clock.
const BATCH: usize = 256;
/// Decisions that are timed one by one in each round.
const SINGLE: usize = 20_000;

fn main() -> Result<()> {
    let workload = Workload::new(SEED, REQUESTS);
    let ours = Ours::new(&workload)?;
    let requests = ours.requests(&workload);
    let cedar = Cedar::new(&workload)?;
    ensure!(workload.rules.len() == 50, "{} statements instead of 50", workload.rules.len());
    let counts = agree(&ours, &requests, &cedar)?;

    let mut cumulo = Series::new("Cumulo, evaluate (with the deciding statements)");
    let mut peer = Series::new("Cedar, is_authorized (with the deciding policies)");
    for _ in 0..ROUNDS {
        cumulo.round(|index| {
            black_box(policy::evaluate(&ours.policies, &requests[index]));
        });
        peer.round(|index| {
            black_box(cedar.decide(&cedar.requests[index]));
        });
    }
    report(&counts, &cumulo, &peer)
}

/// Asks both engines everything once.
fn agree(ours: &Ours, requests: &[policy::Request<'_>], cedar: &Cedar) -> Result<Value> {
    let (mut allowed, mut denied) = (0, 0);
    for (index, (request, question)) in requests.iter().zip(&cedar.requests).enumerate() {
        let (decision, response) = (policy::evaluate(&ours.policies, request), cedar.decide(question));
        let theirs = (response.decision() == cedar_policy::Decision::Allow, cedar::deciding(&response)?);
        let deciding = (decision.allowed, ours::deciding(&decision));
        ensure!(deciding == theirs, "request {index} {request:?}: {deciding:?} here, {theirs:?} by Cedar");
        allowed += usize::from(decision.allowed);
        denied += usize::from(!decision.allowed && !decision.deciding.is_empty());
    }
    ensure!(
        allowed * 5 > requests.len() && denied * 20 > requests.len(),
        "{allowed} allowed, {denied} denied"
    );
    Ok(json!({"requests": requests.len(), "allowed": allowed, "denied_explicitly": denied}))
}

/// What was measured of one side.
struct Series {
    name: &'static str,
    per_second: Vec<f64>,
    nanoseconds: Vec<u64>,
}

impl Series {
    fn new(name: &'static str) -> Self {
        Self { name, per_second: Vec::new(), nanoseconds: Vec::new() }
    }

    fn round(&mut self, decide: impl Fn(usize)) {
        let mut decisions = 0;
        let start = Instant::now();
        while start.elapsed() < ROUND {
            (decisions..decisions + BATCH).for_each(|index| decide(index % REQUESTS));
            decisions += BATCH;
        }
        self.per_second.push(decisions as f64 / start.elapsed().as_secs_f64());
        for index in 0..SINGLE {
            let start = Instant::now();
            decide(index % REQUESTS);
            self.nanoseconds.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Minimum, median, maximum of the rounds.
    fn rates(&self) -> [f64; 3] {
        let mut sorted = self.per_second.clone();
        sorted.sort_by(f64::total_cmp);
        [sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]]
    }

    /// Microseconds that this share of the single decisions stayed within.
    fn within(&self, share: f64) -> f64 {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * share) as usize;
        sorted[index.min(sorted.len() - 1)] as f64 / 1_000.0
    }

    fn json(&self) -> Value {
        let [min, median, max] = self.rates();
        json!({"name": self.name, "unit": "decisions/s", "median": median, "min": min, "max": max,
            "values": self.per_second, "p50_us": self.within(0.5), "p99_us": self.within(0.99)})
    }
}

fn report(counts: &Value, cumulo: &Series, peer: &Series) -> Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").context("read the load average")?;
    let load = load.split(' ').next().unwrap_or_default();
    let ratio = cumulo.rates()[1] / peer.rates()[1];
    println!("b5, policy decisions per second, 50 statements, {ROUNDS} rounds each, load average {load}");
    println!("both agree on all requests: {counts}\n");
    println!("{:<52} {:>11} {:>11} {:>11} {:>8} {:>8}", "", "median", "min", "max", "p50 µs", "p99 µs");
    for series in [cumulo, peer] {
        let [min, median, max] = series.rates();
        let (p50, p99) = (series.within(0.5), series.within(0.99));
        println!("{:<52} {median:>11.0} {min:>11.0} {max:>11.0} {p50:>8.2} {p99:>8.2}", series.name);
    }
    println!(
        "\nratio of the medians {ratio:.1} (goal: at least 2), p99 {:.2} µs (goal: at most 20)",
        cumulo.within(0.99)
    );
    let document = json!({"bench": "b5", "load_average": load, "agreement": counts, "ours": cumulo.json(),
        "peer": peer.json(), "ratio": ratio});
    std::fs::create_dir_all("target/bench").context("make target/bench")?;
    std::fs::write("target/bench/b5.json", serde_json::to_vec_pretty(&document)?)
        .context("write target/bench/b5.json")
}
