//! From counters to rates.
//!
//! A rate is a difference of two samples of one start over the time between them. Where a counter has begun anew,
//! because the guest was started or the device plugged in again, nothing is known of that time.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::sample::{At, Kept, used_bytes};
use super::types::{DiskRates, MetricsPoint, NetworkRates, PortMetrics, VolumeMetrics};

/// Over a longer gap an average says nothing.
const LONGEST_GAP_SECONDS: f64 = 120.0;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub from: OffsetDateTime,
    pub to: OffsetDateTime,
    /// In seconds.
    pub step: i64,
}

/// How much some counters have grown, each in how many seconds.
#[derive(Debug, Clone, Copy)]
struct Growth<const N: usize> {
    sums: [f64; N],
    seconds: f64,
}

impl<const N: usize> Default for Growth<N> {
    fn default() -> Self {
        Self { sums: [0.0; N], seconds: 0.0 }
    }
}

impl<const N: usize> Growth<N> {
    /// Takes in what lies between two readings, unless one of the counters has begun anew.
    fn add(&mut self, before: [u64; N], after: [u64; N], seconds: f64) {
        if before.iter().zip(&after).any(|(before, after)| after < before) {
            return;
        }
        for (sum, (before, after)) in self.sums.iter_mut().zip(before.iter().zip(&after)) {
            *sum += (after - before) as f64;
        }
        self.seconds += seconds;
    }

    fn rates(&self) -> Option<[f64; N]> {
        (self.seconds > 0.0).then(|| self.sums.map(|sum| rounded(sum / self.seconds)))
    }
}

/// What falls into one step.
#[derive(Default)]
struct Step {
    last: Option<Kept>,
    /// Nanoseconds of processor time, and of all virtual CPUs.
    cpu: Growth<1>,
    vcpu_seconds: f64,
    disks: BTreeMap<protocol::VolumeId, Growth<4>>,
    cards: BTreeMap<protocol::PortId, Growth<6>>,
}

/// The points of that window, from samples in the order of time that begin a little before it.
pub(super) fn points(samples: &[At], window: &Window) -> Vec<MetricsPoint> {
    let mut steps: BTreeMap<i64, Step> = BTreeMap::new();
    for (index, sample) in samples.iter().enumerate() {
        if sample.at < window.from || sample.at >= window.to {
            continue;
        }
        let step = steps.entry(sample.at.unix_timestamp().div_euclid(window.step)).or_default();
        if let Some(before) = index.checked_sub(1).map(|before| &samples[before]) {
            step.grow(before, sample);
        }
        step.last = Some(sample.kept.clone());
    }
    steps.into_iter().filter_map(|(number, step)| step.point(number * window.step)).collect()
}

impl Step {
    fn grow(&mut self, before: &At, after: &At) {
        let seconds = (after.at - before.at).as_seconds_f64();
        let (old, new) = (&before.kept, &after.kept);
        if old.run != new.run || seconds <= 0.0 || seconds > LONGEST_GAP_SECONDS {
            return;
        }
        if let (Some(before), Some(after)) = (old.cpu_ns, new.cpu_ns)
            && after >= before
        {
            self.cpu.add([before], [after], seconds);
            self.vcpu_seconds += seconds * f64::from(new.vcpus);
        }
        let disks: BTreeMap<_, _> = old.disks().collect();
        for (id, counters) in new.disks() {
            if let Some(before) = disks.get(&id) {
                self.disks.entry(id).or_default().add(*before, counters, seconds);
            }
        }
        let cards: BTreeMap<_, _> = old.cards().collect();
        for (id, counters) in new.cards() {
            if let Some(before) = cards.get(&id) {
                self.cards.entry(id).or_default().add(*before, counters, seconds);
            }
        }
    }

    fn point(self, at: i64) -> Option<MetricsPoint> {
        let last = self.last?;
        let memory = last.memory();
        let disks: Vec<_> = self.disks.iter().map(|(id, growth)| (*id, growth.rates())).collect();
        let cards: Vec<_> = self.cards.iter().map(|(id, growth)| (*id, growth.rates())).collect();
        let busy = (self.vcpu_seconds > 0.0).then(|| self.cpu.sums[0] / 1e9 / self.vcpu_seconds * 100.0);
        Some(MetricsPoint {
            at: OffsetDateTime::from_unix_timestamp(at).ok()?,
            vcpus: last.vcpus,
            cpu_percent: busy.map(rounded),
            memory_used_bytes: used_bytes(&memory),
            memory_available_bytes: memory.available_bytes,
            memory_size_bytes: memory.size_bytes,
            memory_resident_bytes: memory.resident_bytes,
            disk: disk(sum(disks.iter().map(|(_, rates)| *rates))),
            network: network(sum(cards.iter().map(|(_, rates)| *rates))),
            volumes: disks
                .into_iter()
                .map(|(volume_id, rates)| VolumeMetrics { volume_id, rates: disk(rates) })
                .collect(),
            ports: cards
                .into_iter()
                .map(|(port_id, rates)| PortMetrics { port_id, rates: network(rates) })
                .collect(),
        })
    }
}

/// Of those that are known; `None` when none is.
fn sum<const N: usize>(all: impl Iterator<Item = Option<[f64; N]>>) -> Option<[f64; N]> {
    all.flatten().reduce(|mut sums, rates| {
        sums.iter_mut().zip(rates).for_each(|(sum, rate)| *sum = rounded(*sum + rate));
        sums
    })
}

fn disk(rates: Option<[f64; 4]>) -> DiskRates {
    let at = |index: usize| rates.map(|rates| rates[index]);
    DiskRates {
        read_bytes_per_second: at(0),
        read_requests_per_second: at(1),
        written_bytes_per_second: at(2),
        write_requests_per_second: at(3),
    }
}

fn network(rates: Option<[f64; 6]>) -> NetworkRates {
    let at = |index: usize| rates.map(|rates| rates[index]);
    NetworkRates {
        received_bytes_per_second: at(0),
        received_packets_per_second: at(1),
        received_drops_per_second: at(2),
        sent_bytes_per_second: at(3),
        sent_packets_per_second: at(4),
        sent_drops_per_second: at(5),
    }
}

/// Nobody reads more than two digits.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::VolumeId;
    use protocol::agent::{DiskCounters, Sample, VolumeSample};
    use time::{Duration, macros::datetime};
    use uuid::Uuid;

    use super::*;

    const START: OffsetDateTime = datetime!(2030-01-01 00:00 UTC);

    fn at(seconds: i64, run: u32, cpu_ms: u64, read_bytes: Option<u64>) -> At {
        let counters = |read_bytes| DiskCounters { read_bytes, ..DiskCounters::default() };
        let disk =
            |bytes| VolumeSample { id: VolumeId::from_uuid(Uuid::from_u128(1)), counters: counters(bytes) };
        let sample = Sample {
            id: Uuid::from_u128(7).into(),
            run,
            age_ms: 0,
            vcpus: 2,
            cpu_ns: Some(cpu_ms * 1_000_000),
            memory: Default::default(),
            volumes: read_bytes.map(disk).into_iter().collect(),
            ports: Vec::new(),
        };
        At { at: START + Duration::seconds(seconds), kept: Kept::of(&sample, |_| true) }
    }

    fn window(step: i64) -> Window {
        Window { from: START, to: START + Duration::HOUR, step }
    }

    fn shown(samples: &[At], step: i64) -> Vec<(i64, Option<f64>, Option<f64>)> {
        let of = |point: MetricsPoint| {
            ((point.at - START).whole_seconds(), point.cpu_percent, point.disk.read_bytes_per_second)
        };
        points(samples, &window(step)).into_iter().map(of).collect()
    }

    #[test]
    fn a_rate_is_what_was_added_in_the_time_between() {
        let samples = [
            at(-15, 1, 0, Some(0)),
            at(0, 1, 15_000, Some(1500)),
            at(15, 1, 45_000, Some(4500)),
            at(75, 1, 45_000, Some(4500)),
        ];
        let expected =
            [(0, Some(50.0), Some(100.0)), (15, Some(100.0), Some(200.0)), (75, Some(0.0), Some(0.0))];
        assert_eq!(shown(&samples, 15), expected);
        assert_eq!(shown(&samples, 60), [(0, Some(75.0), Some(150.0)), (60, Some(0.0), Some(0.0))]);
    }

    #[test]
    fn of_a_time_in_which_a_counter_has_begun_anew_nothing_is_said() {
        let samples = [
            at(0, 1, 100_000, Some(9000)),
            // Another start, whatever the counters say.
            at(15, 2, 200_000, Some(10_000)),
            at(30, 2, 201_500, Some(10_150)),
            // The disk was plugged in again.
            at(45, 2, 203_000, Some(10)),
            at(60, 2, 204_500, None),
            at(75, 2, 206_000, Some(20)),
            // The control plane was away for long.
            at(900, 2, 209_000, Some(2000)),
        ];
        let busy = Some(5.0);
        let expected = [
            (0, None, None),
            (15, None, None),
            (30, busy, Some(10.0)),
            (45, busy, None),
            (60, busy, None),
            (75, busy, None),
            (900, None, None),
        ];
        assert_eq!(shown(&samples, 15), expected);
    }

    proptest! {
        #[test]
        fn no_rate_is_negative_or_no_number_whatever_hosts_say(
            samples in proptest::collection::vec((0i64..4000, 0u32..3, 0u64..u64::MAX / 1_000_000, any::<Option<u64>>()), 0..60),
            step in 15i64..3600,
        ) {
            let mut samples: Vec<_> =
                samples.into_iter().map(|(seconds, run, cpu, read)| at(seconds, run, cpu, read)).collect();
            samples.sort_by_key(|sample| sample.at);
            for point in points(&samples, &window(step)) {
                let rates = [point.cpu_percent, point.disk.read_bytes_per_second];
                prop_assert!(rates.iter().flatten().all(|rate| rate.is_finite() && *rate >= 0.0));
                prop_assert!(point.at >= START - Duration::seconds(step) && point.at < START + Duration::HOUR);
            }
        }
    }
}
