//! From the specification of a domain to its XML.

use camino::Utf8Path;
use protocol::VolumeId;
use protocol::agent::{Acceleration, Architecture, CpuModel, CpuTopology, DiskBus};
use thiserror::Error;

use super::cards::interfaces;
use super::disks::disks;
use super::machines;
use super::model::{
    Balloon, BalloonStats, Channel, ChannelTarget, Clock, Console, Controller, Cpu, Devices, Domain,
    FirmwareFeature, FirmwareWanted, Graphics, Instance, Listen, Log, Memory, Metadata, NamedCpu, Os, OsType,
    Rng, RngBackend, Serial, SerialTarget, Topology, Video, VideoModel,
};
use super::{NAMESPACE, domain_name};
use crate::hypervisor::DomainSpec;

/// Seven for the devices that every domain has, the rest for cards and disks.
const ROOT_PORTS: usize = 30;

/// How often QEMU asks a guest's balloon driver about its memory.
const BALLOON_SECONDS: u32 = 10;

/// The channel that the agent in a guest listens to, by its usual name.
pub(super) const GUEST_AGENT: &str = "org.qemu.guest_agent.0";

/// Why a specification has no XML.
#[derive(Debug, Error)]
pub(in super::super) enum RenderError {
    #[error("guests for {} boot with UEFI only", .0.as_str())]
    NoBios(Architecture),
    #[error("the path {0:?} is not absolute or has characters that XML does not carry")]
    Path(String),
    #[error("volume {0} has no layer")]
    NoLayer(VolumeId),
    #[error("the domain cannot be written as XML")]
    Serialize(#[from] quick_xml::SeError),
    #[error("the guest had a disk that the instance has no more")]
    OtherDisks,
    #[error("what was saved does not describe a domain")]
    Saved,
    #[error("what was saved cannot be read as XML")]
    Read(#[from] quick_xml::Error),
    #[error("the domain cannot be written")]
    Write(#[from] std::io::Error),
}

/// The XML of a domain that runs under `acceleration`.
pub(in super::super) fn domain(spec: &DomainSpec, acceleration: Acceleration) -> Result<String, RenderError> {
    let machine = machines::of(spec.architecture);
    if !spec.architecture.has_bios() && spec.uefi_variables.is_none() {
        return Err(RenderError::NoBios(spec.architecture));
    }
    // Other processors than the host's are emulated, whatever it can.
    let acceleration = if machine.is_hosts { acceleration } else { Acceleration::Tcg };
    let domain = Domain {
        kind: if acceleration == Acceleration::Kvm { "kvm" } else { "qemu" },
        name: domain_name(spec.id),
        uuid: spec.id,
        title: spec.hostname.as_str(),
        metadata: element(spec),
        memory: Memory { unit: "MiB", amount: spec.memory_mib.0 },
        vcpu: spec.vcpus,
        os: os(spec, machine.name)?,
        features: machine.features,
        cpu: cpu(spec, acceleration),
        clock: Clock { offset: "utc", timer: machine.timers },
        on_poweroff: "destroy",
        on_reboot: "restart",
        on_crash: "destroy",
        pm: machine.sleep,
        devices: devices(spec, machine.devices)?,
    };
    Ok(quick_xml::se::to_string(&domain)?)
}

/// The same of one that waits for a guest. The place of every device follows from the specification alone, so a guest that had
/// one plugged in since its start may not fit; QEMU says so before the guest stops running where it is.
pub(in super::super) fn waiting(
    spec: &DomainSpec,
    acceleration: Acceleration,
) -> Result<String, RenderError> {
    const OPEN: &str = "<domain ";
    const CLOSE: &str = "</domain>";
    let rendered = domain(spec, acceleration)?;
    let inner =
        rendered.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE)).ok_or(RenderError::Saved)?;
    Ok(format!(
        "{OPEN}xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\" {inner}<qemu:commandline><qemu:arg value=\"-incoming\"/>\
         <qemu:arg value=\"defer\"/></qemu:commandline>{CLOSE}"
    ))
}

/// Images are not signed for any key that we know of, so UEFI starts what it finds.
fn os<'a>(spec: &'a DomainSpec, machine: &'static str) -> Result<Os<'a>, RenderError> {
    let kind = OsType { arch: spec.architecture, machine, virtualization: "hvm" };
    let nvram = spec.uefi_variables.as_deref().map(path).transpose()?;
    let wanted = FirmwareWanted { feature: FirmwareFeature { enabled: "no", name: "secure-boot" } };
    Ok(Os { firmware: nvram.map(|_| "efi"), kind, wanted: nvram.map(|_| wanted), nvram })
}

/// What a domain carries of the desired state, as its XML has it.
pub(super) fn metadata(spec: &DomainSpec) -> Result<String, RenderError> {
    Ok(quick_xml::se::to_string_with_root("metadata", &element(spec))?)
}

fn element(spec: &DomainSpec) -> Metadata {
    let xmlns = NAMESPACE.to_owned();
    let (generation, boot, request_id) = (spec.generation, spec.boot, spec.request_id);
    Metadata { instance: Instance { xmlns, generation, boot, request_id } }
}

/// Everything that the host, or the emulator, can give, unless a model is asked for.
fn cpu(spec: &DomainSpec, acceleration: Acceleration) -> Cpu<'_> {
    let of = |CpuTopology { sockets, cores, threads }| Topology { sockets, cores, threads };
    let topology = spec.hardware.topology.map(of);
    let cpu =
        Cpu { mode: "maximum", check: "partial", migratable: None, matching: None, model: None, topology };
    match &spec.hardware.cpu_model {
        CpuModel::HostPassthrough => {
            let mode = if acceleration == Acceleration::Kvm { "host-passthrough" } else { "maximum" };
            Cpu { mode, check: "none", migratable: Some("on"), ..cpu }
        }
        CpuModel::HostModel => Cpu { mode: "host-model", ..cpu },
        CpuModel::Named(name) => {
            let model = Some(NamedCpu { fallback: "forbid", name });
            Cpu { mode: "custom", matching: Some("exact"), model, ..cpu }
        }
    }
}

fn devices(spec: &DomainSpec, machine: machines::OfMachine) -> Result<Devices<'_>, RenderError> {
    Ok(Devices {
        disk: disks(spec)?,
        controller: controllers(spec.hardware.disk_bus),
        interface: interfaces(spec),
        serial: Serial {
            kind: "pty",
            log: Log { file: path(&spec.serial_log)?, append: "on" },
            target: SerialTarget { kind: machine.serial, port: 0 },
        },
        console: Console { kind: "pty", target: SerialTarget { kind: Some("serial"), port: 0 } },
        channel: Channel { kind: "unix", target: ChannelTarget { kind: "virtio", name: GUEST_AGENT } },
        input: machine.input,
        // Listens nowhere: whoever is to see it is handed to QEMU by libvirt.
        graphics: Graphics { kind: "vnc", listen: Listen { kind: "none" } },
        video: Video { model: VideoModel { kind: machine.video } },
        memballoon: Balloon { model: "virtio", stats: BalloonStats { period: BALLOON_SECONDS } },
        rng: Rng { model: "virtio", backend: RngBackend { model: "random", device: "/dev/urandom" } },
    })
}

/// USB for the pointer, and a place for every device: nothing is plugged in where no root port was at the start.
fn controllers(bus: DiskBus) -> Vec<Controller> {
    let controller = |kind, index, model| Controller { kind, index, model };
    let mut controllers = vec![controller("usb", None, "qemu-xhci"), controller("pci", Some(0), "pcie-root")];
    let port = || controller("pci", None, "pcie-root-port");
    controllers.extend(std::iter::repeat_with(port).take(ROOT_PORTS));
    if bus == DiskBus::VirtioScsi {
        controllers.push(controller("scsi", Some(0), "virtio-scsi"));
    }
    controllers
}

/// XML carries no control characters, and its readers turn line breaks in attributes into spaces: such a
/// path would name another file.
pub(super) fn path(path: &Utf8Path) -> Result<&str, RenderError> {
    let carried = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    if path.is_absolute() && path.as_str().chars().all(carried) {
        Ok(path.as_str())
    } else {
        Err(RenderError::Path(path.to_string()))
    }
}
