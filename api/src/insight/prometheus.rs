//! The newest of a project's instances in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::sample::{Kept, used_bytes};
use super::store::Newest;
use crate::http::Labels;

type Pairs = Vec<(String, String)>;

/// The lines of one metric.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    lines: String,
}

/// All metrics, in the order in which they first came.
#[derive(Default)]
struct Exposition(Vec<Family>);

impl Exposition {
    fn add(
        &mut self,
        (name, kind, help): (&'static str, &'static str, &'static str),
        labels: &Pairs,
        value: f64,
    ) {
        let family = match self.0.iter().position(|family| family.name == name) {
            Some(at) => &mut self.0[at],
            None => {
                self.0.push(Family { name, kind, help, lines: String::new() });
                let last = self.0.len() - 1;
                &mut self.0[last]
            }
        };
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        // Writing into a String does not fail.
        let _ = writeln!(family.lines, "{name}{{{}}} {value}", labels.join(","));
    }

    fn text(self) -> String {
        let family = |Family { name, kind, help, lines }: Family| {
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}")
        };
        self.0.into_iter().map(family).collect()
    }
}

/// Of so many instances a scrape tells at most.
pub(super) const MAX_INSTANCES: usize = 1000;

/// What Prometheus scrapes. A comment says when there are more.
pub(super) fn text(instances: &[Newest]) -> String {
    let mut all = Exposition::default();
    for instance in instances.iter().take(MAX_INSTANCES) {
        let own = vec![
            ("instance_id".to_owned(), instance.id.to_string()),
            ("instance_name".to_owned(), instance.name.clone()),
        ];
        let mut info = own.clone();
        info.push(("instance_type".to_owned(), instance.instance_type.clone()));
        info.extend(labels_named("label_", &instance.labels));
        all.add(("cumulo_instance_info", "gauge", "Each instance, with its labels."), &info, 1.0);
        let measured = if instance.sample.is_some() { 1.0 } else { 0.0 };
        all.add(
            (
                "cumulo_instance_up",
                "gauge",
                "Whether the host has measured it in the last minute, so it runs or is paused.",
            ),
            &own,
            measured,
        );
        let vcpus = ("cumulo_instance_vcpus", "gauge", "Its virtual CPUs.");
        all.add(vcpus, &own, f64::from(instance.vcpus));
        if let Some(sample) = &instance.sample {
            measurements(&mut all, &own, sample);
        }
        for found in instance.info.iter().flat_map(|info| &info.filesystems) {
            let mut labels = own.clone();
            labels.push(("mountpoint".to_owned(), found.mount_point.clone()));
            labels.push(("device".to_owned(), found.device.clone()));
            labels.push(("fstype".to_owned(), found.kind.clone()));
            let size = ("cumulo_instance_filesystem_size_bytes", "gauge", "As its guest agent says.");
            let used = ("cumulo_instance_filesystem_used_bytes", "gauge", "As its guest agent says.");
            for (metric, bytes) in [(size, found.total_bytes), (used, found.used_bytes)] {
                if let Some(bytes) = bytes {
                    all.add(metric, &labels, bytes as f64);
                }
            }
        }
    }
    let text = all.text();
    if instances.len() <= MAX_INSTANCES {
        return text;
    }
    format!(
        "# Only the first {MAX_INSTANCES} instances are here. Scrape this in parts, each with another ?label_selector=.\n{text}"
    )
}

fn measurements(all: &mut Exposition, own: &Pairs, sample: &Kept) {
    if let Some(nanoseconds) = sample.cpu_ns {
        let metric = (
            "cumulo_instance_cpu_seconds_total",
            "counter",
            "Processor time since its start, of all virtual CPUs and of what its host does for it.",
        );
        all.add(metric, own, nanoseconds as f64 / 1e9);
    }
    let memory = sample.memory();
    for (metric, bytes) in [
        (("cumulo_instance_memory_size_bytes", "gauge", "What the guest has been given."), memory.size_bytes),
        (
            ("cumulo_instance_memory_used_bytes", "gauge", "What the guest could not give up."),
            used_bytes(&memory),
        ),
        (
            ("cumulo_instance_memory_available_bytes", "gauge", "What the guest could use without swapping."),
            memory.available_bytes,
        ),
        (
            ("cumulo_instance_memory_resident_bytes", "gauge", "What it takes of its host."),
            memory.resident_bytes,
        ),
    ] {
        if let Some(bytes) = bytes {
            all.add(metric, own, bytes as f64);
        }
    }
    let disk = [
        ("cumulo_instance_volume_read_bytes_total", "counter", "Read since its start."),
        ("cumulo_instance_volume_reads_total", "counter", "Requests to read since its start."),
        ("cumulo_instance_volume_written_bytes_total", "counter", "Written since its start."),
        ("cumulo_instance_volume_writes_total", "counter", "Requests to write since its start."),
    ];
    for (id, counters) in sample.disks() {
        add_all(all, own, ("volume_id", id.to_string()), disk, counters);
    }
    let card = [
        ("cumulo_instance_port_received_bytes_total", "counter", "Received by the guest since its start."),
        ("cumulo_instance_port_received_packets_total", "counter", "Received by the guest since its start."),
        ("cumulo_instance_port_received_drops_total", "counter", "Packets to the guest that were dropped."),
        ("cumulo_instance_port_sent_bytes_total", "counter", "Sent by the guest since its start."),
        ("cumulo_instance_port_sent_packets_total", "counter", "Sent by the guest since its start."),
        ("cumulo_instance_port_sent_drops_total", "counter", "Packets of the guest that were dropped."),
    ];
    for (id, counters) in sample.cards() {
        add_all(all, own, ("port_id", id.to_string()), card, counters);
    }
}

fn add_all<const N: usize>(
    all: &mut Exposition,
    own: &Pairs,
    (name, id): (&str, String),
    metrics: [(&'static str, &'static str, &'static str); N],
    counters: [u64; N],
) {
    let mut labels = own.clone();
    labels.push((name.to_owned(), id));
    for (metric, counter) in metrics.into_iter().zip(counters) {
        all.add(metric, &labels, counter as f64);
    }
}

/// An instance's labels under names that Prometheus takes, none of which is one of its own, like `__address__`. Of two that
/// become one, the first stays.
pub(super) fn labels_named(prefix: &str, labels: &Labels) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    for (key, value) in labels {
        let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        let key: String = key.chars().map(letter).collect();
        let name = format!("{prefix}{}", key.trim_start_matches('_'));
        named.entry(name).or_insert_with(|| value.clone());
    }
    named
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use sqlx::types::Json;
    use uuid::Uuid;

    use super::*;

    fn instances(count: usize) -> Vec<Newest> {
        let one = |number: usize| Newest {
            id: Uuid::from_u128(number as u128),
            name: format!("web-{number}"),
            instance_type: "tiny".to_owned(),
            labels: Json(Labels::new()),
            vcpus: 1,
            sample: None,
            info: None,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_scrape_is_bounded_and_says_so() {
        let shown = |text: &str| text.lines().filter(|line| line.starts_with("cumulo_instance_up{")).count();
        let whole = text(&instances(MAX_INSTANCES));
        assert_eq!((shown(&whole), whole.contains("Only the first")), (MAX_INSTANCES, false));
        let part = text(&instances(MAX_INSTANCES + 1));
        assert_eq!((shown(&part), part.starts_with("# Only the first 1000 ")), (MAX_INSTANCES, true));
    }
}
