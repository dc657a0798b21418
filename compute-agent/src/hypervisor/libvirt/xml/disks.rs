//! The disks of a domain: rendered for its start and for hot-plug, and read back.
//!
//! A disk is told by its alias, which holds the id of its volume. The guest tells it by its serial number.

use camino::{Utf8Path, Utf8PathBuf};
use protocol::VolumeId;
use protocol::agent::{DiskBus, IoLimits};
use serde::Serialize;

use super::model::Boot;
use super::render::{RenderError, path};
use crate::hypervisor::{DomainDisk, DomainSpec, NewLayer, SeenVolume};

/// The prefix that libvirt leaves to its users.
pub(super) const ALIAS: &str = "ua-";

#[derive(Debug, Serialize)]
#[serde(rename = "disk")]
pub(super) struct Disk<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    driver: Driver,
    source: Source<'a>,
    #[serde(rename = "backingStore")]
    backing_store: BackingStore<'a>,
    target: DiskTarget,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iotune: Option<IoTune>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<Alias>,
}

#[derive(Debug, Serialize)]
struct Alias {
    #[serde(rename = "@name")]
    name: String,
}

#[derive(Debug, Serialize)]
struct IoTune {
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes_sec: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_iops_sec: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Driver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    format: &'static str,
    /// What happens to a guest whose write fails, or finds no room.
    #[serde(rename = "@error_policy")]
    write_errors: &'static str,
    #[serde(rename = "@rerror_policy")]
    read_errors: &'static str,
    /// What others write is seen at once, and nothing of ours is kept back.
    #[serde(rename = "@cache", skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(rename = "@discard", skip_serializing_if = "Option::is_none")]
    discard: Option<&'static str>,
}

impl Driver {
    /// The guest is paused, whatever fails: it never hears of it, and what it has asked for is done when it goes on. Told
    /// of a failed write, guests lose what they believed to be written, or never write again.
    fn new(format: &'static str, discard: Option<&'static str>) -> Self {
        Self { name: "qemu", format, write_errors: "stop", read_errors: "stop", cache: None, discard }
    }
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    #[serde(rename = "@file")]
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seclabel: Option<SecurityLabel>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct SecurityLabel {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "@relabel")]
    relabel: &'static str,
}

/// Whose the file is stays as it is when the domain begins, and when it ends.
const UNTOUCHED: SecurityLabel = SecurityLabel { model: "dac", relabel: "no" };

impl<'a> Source<'a> {
    /// libvirt gives the files of a disk to QEMU's user, and takes them back at the end, which would be the end of a guest
    /// that has gone to another host meanwhile. What other hosts reach is QEMU's for good: see `owner.rs`.
    fn of_layer(file: &'a Utf8Path, shared: bool) -> Result<Self, RenderError> {
        Ok(Self { file: path(file)?, seclabel: shared.then_some(UNTOUCHED) })
    }
}

/// Empty ends the chain.
#[derive(Debug, Default, Serialize)]
struct BackingStore<'a> {
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source<'a>>,
    #[serde(rename = "backingStore", skip_serializing_if = "Option::is_none")]
    backing_store: Option<Box<BackingStore<'a>>>,
}

#[derive(Debug, Serialize)]
struct Format {
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct DiskTarget {
    #[serde(rename = "@dev")]
    dev: String,
    #[serde(rename = "@bus")]
    bus: &'static str,
}

/// All disks that a domain starts with. The seed keeps the second place, whatever else there is.
pub(super) fn disks(spec: &DomainSpec) -> Result<Vec<Disk<'_>>, RenderError> {
    let mut disks = Vec::with_capacity(spec.disks.len() + 1);
    let bus = spec.hardware.disk_bus;
    let (order, _) = spec.hardware.boot_order.places();
    for (index, one) in spec.disks.iter().enumerate() {
        let place = if index == 0 { 0 } else { index + 1 };
        disks.push(Disk { boot: (index == 0).then_some(Boot { order }), ..disk(one, at(bus, place))? });
    }
    disks.insert(disks.len().min(1), seed(&spec.seed, bus)?);
    Ok(disks)
}

fn disk(disk: &DomainDisk, target: DiskTarget) -> Result<Disk<'_>, RenderError> {
    let (top, below) = disk.layers.split_last().ok_or(RenderError::NoLayer(disk.volume))?;
    Ok(Disk {
        kind: "file",
        device: "disk",
        driver: Driver { cache: disk.shared.then_some("none"), ..Driver::new("qcow2", Some("unmap")) },
        source: Source::of_layer(top, disk.shared)?,
        backing_store: backing_store(disk.base.as_deref(), below, disk.shared)?,
        target,
        readonly: None,
        boot: None,
        serial: Some(disk.volume.serial()),
        iotune: io_tune(disk.limits),
        alias: Some(Alias { name: format!("{ALIAS}{}", disk.volume) }),
    })
}

/// The files of a disk, as its XML has them.
pub(super) fn files(one: &DomainDisk) -> Result<String, RenderError> {
    let disk = disk(one, at(DiskBus::Virtio, 0))?;
    let source = quick_xml::se::to_string_with_root("source", &disk.source)?;
    Ok(source + &quick_xml::se::to_string_with_root("backingStore", &disk.backing_store)?)
}

/// The chain under the top layer, `layers` from the bottom to the top.
fn backing_store<'a>(
    base: Option<&'a Utf8Path>,
    layers: &'a [Utf8PathBuf],
    shared: bool,
) -> Result<BackingStore<'a>, RenderError> {
    let over = |source, under| BackingStore {
        kind: Some("file"),
        format: Some(Format { kind: "qcow2" }),
        source: Some(source),
        backing_store: Some(Box::new(under)),
    };
    let mut chain = BackingStore::default();
    if let Some(base) = base {
        // The base is shared by instances of many owners: it stays root's, world-readable, so that no QEMU can
        // ever write it. libvirt would otherwise hand it to QEMU's user.
        chain = over(Source { file: path(base)?, seclabel: Some(UNTOUCHED) }, chain);
    }
    for layer in layers {
        chain = over(Source::of_layer(layer, shared)?, chain);
    }
    Ok(chain)
}

/// QEMU has no disks on SATA that are only read: there, the seed is on USB.
fn seed(seed: &Utf8Path, bus: DiskBus) -> Result<Disk<'_>, RenderError> {
    let of_its_kind = at(bus, 1);
    let target = if bus == DiskBus::Sata { DiskTarget { bus: "usb", ..of_its_kind } } else { of_its_kind };
    Ok(Disk {
        kind: "file",
        device: "disk",
        driver: Driver::new("raw", None),
        source: Source { file: path(seed)?, seclabel: None },
        backing_store: BackingStore::default(),
        target,
        readonly: Some(()),
        boot: None,
        serial: None,
        iotune: None,
        alias: None,
    })
}

fn io_tune(limits: IoLimits) -> Option<IoTune> {
    (limits != IoLimits::default())
        .then_some(IoTune { total_bytes_sec: limits.bytes_per_second, total_iops_sec: limits.iops })
}

/// A place for a disk.
fn at(bus: DiskBus, place: usize) -> DiskTarget {
    let prefix = match bus {
        DiskBus::Virtio => "vd",
        DiskBus::VirtioScsi | DiskBus::Sata => "sd",
    };
    DiskTarget { dev: format!("{prefix}{}", letters(place)), bus: bus.as_str() }
}

/// The name of a place for a disk on virtio: `vda`, `vdb`, … `vdz`, `vdaa`, ….
fn target(place: usize) -> String {
    format!("vd{}", letters(place))
}

fn letters(place: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = place + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    letters.iter().rev().collect()
}

/// The element that plugs a disk into the running domain with this XML, at its first free place.
pub(in super::super) fn disk_for(running: &[Found], one: &DomainDisk) -> Result<String, RenderError> {
    let is_free = |place: &usize| !running.iter().any(|found| found.target == target(*place));
    let place = (2..).find(is_free).unwrap_or(2);
    Ok(quick_xml::se::to_string(&disk(one, at(DiskBus::Virtio, place))?)?)
}

/// The element by which a disk is pulled out: libvirt finds it by its place.
pub(in super::super) fn disk_at(target: &str) -> Result<String, quick_xml::SeError> {
    #[derive(Serialize)]
    #[serde(rename = "disk")]
    struct At {
        #[serde(rename = "@type")]
        kind: &'static str,
        #[serde(rename = "@device")]
        device: &'static str,
        target: DiskTarget,
    }
    // Nothing is pulled out of SATA.
    let bus = if target.starts_with("sd") { DiskBus::VirtioScsi } else { DiskBus::Virtio };
    let target = DiskTarget { dev: target.to_owned(), bus: bus.as_str() };
    quick_xml::se::to_string(&At { kind: "file", device: "disk", target })
}

/// The snapshot that gives these volumes their new layers and leaves all other disks as they are. The guest's memory goes
/// to a file, if one is named.
///
/// INVARIANT: a disk that gets a layer is named by the file that it writes to, which libvirt looks for when its turn has come. Of
/// two callers who have seen the same, as an agent that was killed and the next one, the second is refused: by its place, the
/// disk would get the layer over itself, and the guest could never go on.
pub(in super::super) fn snapshot(
    running: &[Found],
    layers: &[NewLayer],
    memory: Option<&Utf8Path>,
) -> Result<String, RenderError> {
    #[derive(Serialize)]
    #[serde(rename = "domainsnapshot")]
    struct Snapshot<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<Memory<'a>>,
        disks: Disks<'a>,
    }
    #[derive(Serialize)]
    struct Memory<'a> {
        #[serde(rename = "@snapshot")]
        snapshot: &'static str,
        #[serde(rename = "@file")]
        file: &'a str,
    }
    #[derive(Serialize)]
    struct Disks<'a> {
        disk: Vec<OfDisk<'a>>,
    }
    #[derive(Serialize)]
    struct OfDisk<'a> {
        #[serde(rename = "@name")]
        name: &'a str,
        #[serde(rename = "@snapshot")]
        snapshot: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        driver: Option<Format>,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<Source<'a>>,
    }
    let mut disk = Vec::with_capacity(running.len());
    for found in running {
        let new = layers.iter().find(|new| Some(new.volume) == found.volume_id());
        let written = found.file.as_deref().filter(|_| new.is_some()).map(path).transpose()?;
        disk.push(OfDisk {
            name: written.unwrap_or(&found.target),
            snapshot: if new.is_some() { "external" } else { "no" },
            driver: new.map(|_| Format { kind: "qcow2" }),
            source: new.map(|new| Source::of_layer(&new.layer, new.shared)).transpose()?,
        });
    }
    let memory = memory.map(path).transpose()?.map(|file| Memory { snapshot: "external", file });
    Ok(quick_xml::se::to_string(&Snapshot { memory, disks: Disks { disk } })?)
}

/// A disk of a running domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Found {
    /// Its place.
    pub(in super::super) target: String,
    /// What it writes to.
    pub(in super::super) file: Option<Utf8PathBuf>,
    /// What it has of a volume; the seed is none.
    pub(in super::super) volume: Option<SeenVolume>,
}

impl Found {
    pub(in super::super) fn volume_id(&self) -> Option<VolumeId> {
        self.volume.as_ref().map(|volume| volume.id)
    }
}

/// The disks in the XML of a running domain.
pub(in super::super) fn found(domain: &str) -> Result<Vec<Found>, quick_xml::DeError> {
    let domain: read::Domain = quick_xml::de::from_str(domain)?;
    let disks = domain.devices.map(|devices| devices.disk).unwrap_or_default();
    Ok(disks.into_iter().map(read::Disk::into_found).collect())
}

/// What is read of a domain's XML; the rest is passed over.
mod read {
    use camino::{Utf8Path, Utf8PathBuf};
    use protocol::{LayerId, VolumeId};
    use serde::Deserialize;

    use super::{ALIAS, Found};
    use crate::hypervisor::SeenVolume;

    #[derive(Deserialize)]
    pub(super) struct Domain {
        pub(super) devices: Option<Devices>,
    }

    #[derive(Deserialize)]
    pub(super) struct Devices {
        #[serde(default)]
        pub(super) disk: Vec<Disk>,
    }

    #[derive(Deserialize)]
    pub(super) struct Disk {
        #[serde(flatten)]
        file: File,
        target: Option<Target>,
        alias: Option<Alias>,
    }

    /// One file of a chain, and what it stands on.
    #[derive(Deserialize)]
    struct File {
        source: Option<Source>,
        #[serde(rename = "backingStore")]
        backing_store: Option<Box<File>>,
    }

    #[derive(Deserialize)]
    struct Source {
        #[serde(rename = "@file")]
        file: Option<Utf8PathBuf>,
    }

    #[derive(Deserialize)]
    struct Target {
        #[serde(rename = "@dev")]
        dev: String,
    }

    #[derive(Deserialize)]
    struct Alias {
        #[serde(rename = "@name")]
        name: String,
    }

    impl Disk {
        pub(super) fn into_found(self) -> Found {
            let layers: Vec<_> = self.file.layers();
            let by_alias = self.alias.and_then(|alias| alias.name.strip_prefix(ALIAS)?.parse().ok());
            let top = self.file.source.and_then(|source| source.file);
            let volume = by_alias.or_else(|| former_root_disk(top.as_deref()?).map(VolumeId::from_uuid));
            Found {
                target: self.target.map(|target| target.dev).unwrap_or_default(),
                file: top,
                volume: volume.map(|id| SeenVolume { id, layers }),
            }
        }
    }

    impl File {
        /// From the bottom to the top; a cached image is none.
        fn layers(&self) -> Vec<LayerId> {
            let mut layers = self.backing_store.as_ref().map(|below| below.layers()).unwrap_or_default();
            let file = self.source.as_ref().and_then(|source| source.file.as_deref());
            layers.extend(file.and_then(layer_of));
            layers
        }
    }

    fn layer_of(file: &Utf8Path) -> Option<LayerId> {
        let by_name = || file.file_name()?.strip_suffix(".qcow2")?.parse().ok();
        former_root_disk(file).map(LayerId::from_uuid).or_else(by_name)
    }

    /// The instance whose root disk it is, if a release before volumes started it: `…/instances/<uuid>/root.qcow2`.
    fn former_root_disk(file: &Utf8Path) -> Option<uuid::Uuid> {
        (file.file_name()? == "root.qcow2").then_some(())?;
        file.parent()?.file_name()?.parse().ok()
    }
}
