//! From libvirt's bulk statistics to what is measured of our domains.

use camino::Utf8Path;
use protocol::LayerId;
use protocol::agent::{CardCounters, DiskCounters, MAX_MEASURED, MemorySample};

use super::sys::values::{Record, Values};
use super::xml;
use crate::hypervisor::{Measured, MeasuredCard, MeasuredDisk};

/// `None` when the domain is not ours.
pub(super) fn read(record: &Record) -> Option<Measured> {
    let id = xml::instance_of(&record.name, record.uuid)?;
    let values = &record.values;
    let disks = (0..values.count("block.count", MAX_MEASURED)).filter_map(|at| disk(values, at));
    let cards = (0..values.count("net.count", MAX_MEASURED)).filter_map(|at| card(values, at));
    Some(Measured {
        id,
        run: record.run,
        cpu_ns: values.number("cpu.time"),
        memory: memory(values),
        disks: disks.collect(),
        cards: cards.collect(),
    })
}

/// libvirt counts memory in KiB.
fn memory(values: &Values) -> MemorySample {
    let bytes = |name: &str| values.number(name).map(|kib| kib.saturating_mul(1024));
    MemorySample {
        size_bytes: bytes("balloon.current"),
        total_bytes: bytes("balloon.available"),
        available_bytes: bytes("balloon.usable"),
        resident_bytes: bytes("balloon.rss"),
    }
}

/// A volume; the seed is none.
fn disk(values: &Values, at: usize) -> Option<MeasuredDisk> {
    let layer = layer_of(Utf8Path::new(values.text(&format!("block.{at}.path"))?))?;
    let number = |name: &str| values.number(&format!("block.{at}.{name}"));
    let counters = DiskCounters {
        read_bytes: number("rd.bytes")?,
        read_requests: number("rd.reqs")?,
        written_bytes: number("wr.bytes")?,
        write_requests: number("wr.reqs")?,
    };
    Some(MeasuredDisk { layer, counters })
}

/// A root disk of a release before volumes is in the folder of its instance and has its id.
fn layer_of(file: &Utf8Path) -> Option<LayerId> {
    match file.file_name()? {
        "root.qcow2" => file.parent()?.file_name()?.parse().ok(),
        name => name.strip_suffix(".qcow2")?.parse().ok(),
    }
}

/// libvirt counts as the guest sees it, whichever end of the card it asks.
fn card(values: &Values, at: usize) -> Option<MeasuredCard> {
    let number = |name: &str| values.number(&format!("net.{at}.{name}"));
    let counters = CardCounters {
        received_bytes: number("rx.bytes")?,
        received_packets: number("rx.pkts")?,
        received_drops: number("rx.drop").unwrap_or_default(),
        sent_bytes: number("tx.bytes")?,
        sent_packets: number("tx.pkts")?,
        sent_drops: number("tx.drop").unwrap_or_default(),
    };
    Some(MeasuredCard { tap: values.text(&format!("net.{at}.name"))?.to_owned(), counters })
}

#[cfg(test)]
mod tests {
    use super::super::sys::values::Value::{Number, Text};
    use super::*;
    use uuid::Uuid;

    fn record(values: Values) -> Record {
        let uuid = Uuid::from_u128(7);
        Record { name: format!("cumulo-{uuid}"), uuid, run: 3, values }
    }

    #[test]
    fn reads_what_libvirt_says() {
        let layer = LayerId::from_uuid(Uuid::from_u128(1));
        let path = Text(format!("/pool/layers/{layer}.qcow2"));
        let values = Values::of(&[
            ("cpu.time", Number(5)),
            ("balloon.current", Number(1024)),
            ("balloon.rss", Number(2)),
            ("block.count", Number(2)),
            ("block.0.path", path),
            ("block.0.rd.bytes", Number(10)),
            ("block.0.rd.reqs", Number(1)),
            ("block.0.wr.bytes", Number(-1)),
            ("block.0.wr.reqs", Number(2)),
            ("block.1.path", Text("/pool/seed.img".to_owned())),
            ("net.count", Number(1)),
            ("net.0.name", Text("ct1".to_owned())),
            ("net.0.rx.bytes", Number(7)),
            ("net.0.rx.pkts", Number(1)),
            ("net.0.tx.bytes", Number(8)),
            ("net.0.tx.pkts", Number(2)),
            ("net.0.tx.drop", Number(4)),
        ]);
        let read = read(&record(values)).unwrap();
        assert_eq!((read.run, read.cpu_ns), (3, Some(5)));
        let memory =
            MemorySample { size_bytes: Some(1 << 20), resident_bytes: Some(2048), ..MemorySample::default() };
        assert_eq!(read.memory, memory);
        let counters = DiskCounters { read_bytes: 10, read_requests: 1, written_bytes: 0, write_requests: 2 };
        assert_eq!(read.disks, [MeasuredDisk { layer, counters }]);
        assert_eq!((read.cards[0].tap.as_str(), read.cards[0].counters.sent_drops), ("ct1", 4));
    }

    #[test]
    fn of_a_busy_domain_there_is_less_and_of_strangers_nothing() {
        let values = Values::of(&[("block.count", Number(i128::from(u64::MAX))), ("net.count", Number(1))]);
        let busy = read(&record(values)).unwrap();
        assert_eq!((busy.cpu_ns, busy.disks.len(), busy.cards.len()), (None, 0, 0));
        let stranger = Record { name: "win11".to_owned(), ..record(Values::default()) };
        assert_eq!(read(&stranger), None);
    }
}
