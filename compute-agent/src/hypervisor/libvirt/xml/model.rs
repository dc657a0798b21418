//! The elements of libvirt's domain XML that we use (<https://libvirt.org/formatdomain.html>).

use protocol::agent::Architecture;
use protocol::{Generation, InstanceId, RequestId};
use serde::{Deserialize, Serialize};

use super::cards::Interface;
use super::disks::Disk;

#[derive(Debug, Serialize)]
#[serde(rename = "domain")]
pub(super) struct Domain<'a> {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) uuid: InstanceId,
    pub(super) title: &'a str,
    pub(super) metadata: Metadata,
    pub(super) memory: Memory,
    pub(super) vcpu: u32,
    pub(super) os: Os<'a>,
    pub(super) features: Features,
    pub(super) cpu: Cpu<'a>,
    pub(super) clock: Clock,
    pub(super) on_poweroff: &'static str,
    pub(super) on_reboot: &'static str,
    pub(super) on_crash: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pm: Option<PowerManagement>,
    pub(super) devices: Devices<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct Metadata {
    pub(super) instance: Instance,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "instance")]
pub(super) struct Instance {
    #[serde(rename = "@xmlns", default)]
    pub(super) xmlns: String,
    #[serde(rename = "@generation")]
    pub(super) generation: Generation,
    #[serde(rename = "@boot")]
    pub(super) boot: i64,
    #[serde(rename = "@request_id", default, skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<RequestId>,
}

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    #[serde(rename = "@unit")]
    pub(super) unit: &'static str,
    #[serde(rename = "$text")]
    pub(super) amount: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Os<'a> {
    /// `efi`; a BIOS without it.
    #[serde(rename = "@firmware", skip_serializing_if = "Option::is_none")]
    pub(super) firmware: Option<&'static str>,
    #[serde(rename = "type")]
    pub(super) kind: OsType,
    #[serde(rename = "firmware", skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<FirmwareWanted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nvram: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(super) struct FirmwareWanted {
    pub(super) feature: FirmwareFeature,
}

#[derive(Debug, Serialize)]
pub(super) struct FirmwareFeature {
    #[serde(rename = "@enabled")]
    pub(super) enabled: &'static str,
    #[serde(rename = "@name")]
    pub(super) name: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct OsType {
    #[serde(rename = "@arch")]
    pub(super) arch: Architecture,
    #[serde(rename = "@machine")]
    pub(super) machine: &'static str,
    #[serde(rename = "$text")]
    pub(super) virtualization: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Features {
    pub(super) acpi: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) apic: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gic: Option<Gic>,
}

/// The interrupt controller of an aarch64 machine.
#[derive(Debug, Serialize)]
pub(super) struct Gic {
    #[serde(rename = "@version")]
    pub(super) version: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Cpu<'a> {
    #[serde(rename = "@mode")]
    pub(super) mode: &'static str,
    #[serde(rename = "@check")]
    pub(super) check: &'static str,
    #[serde(rename = "@migratable", skip_serializing_if = "Option::is_none")]
    pub(super) migratable: Option<&'static str>,
    #[serde(rename = "@match", skip_serializing_if = "Option::is_none")]
    pub(super) matching: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<NamedCpu<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topology: Option<Topology>,
}

#[derive(Debug, Serialize)]
pub(super) struct NamedCpu<'a> {
    #[serde(rename = "@fallback")]
    pub(super) fallback: &'static str,
    #[serde(rename = "$text")]
    pub(super) name: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct Topology {
    #[serde(rename = "@sockets")]
    pub(super) sockets: u32,
    #[serde(rename = "@cores")]
    pub(super) cores: u32,
    #[serde(rename = "@threads")]
    pub(super) threads: u32,
}

/// The place of a device among those that the firmware looks for a system on.
#[derive(Debug, Serialize)]
pub(super) struct Boot {
    #[serde(rename = "@order")]
    pub(super) order: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Clock {
    #[serde(rename = "@offset")]
    pub(super) offset: &'static str,
    pub(super) timer: Vec<Timer>,
}

#[derive(Debug, Serialize)]
pub(super) struct Timer {
    #[serde(rename = "@name")]
    pub(super) name: &'static str,
    #[serde(rename = "@tickpolicy", skip_serializing_if = "Option::is_none")]
    pub(super) tick_policy: Option<&'static str>,
    #[serde(rename = "@present", skip_serializing_if = "Option::is_none")]
    pub(super) present: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct PowerManagement {
    #[serde(rename = "suspend-to-mem")]
    pub(super) suspend_to_mem: Enabled,
    #[serde(rename = "suspend-to-disk")]
    pub(super) suspend_to_disk: Enabled,
}

#[derive(Debug, Serialize)]
pub(super) struct Enabled {
    #[serde(rename = "@enabled")]
    pub(super) enabled: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Devices<'a> {
    pub(super) disk: Vec<Disk<'a>>,
    pub(super) controller: Vec<Controller>,
    pub(super) interface: Vec<Interface>,
    pub(super) serial: Serial<'a>,
    pub(super) console: Console,
    pub(super) channel: Channel,
    pub(super) input: Vec<Input>,
    pub(super) graphics: Graphics,
    pub(super) video: Video,
    pub(super) memballoon: Balloon,
    pub(super) rng: Rng,
}

#[derive(Debug, Serialize)]
pub(super) struct Controller {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@index", skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<u32>,
    #[serde(rename = "@model")]
    pub(super) model: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Serial<'a> {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) log: Log<'a>,
    pub(super) target: SerialTarget,
}

#[derive(Debug, Serialize)]
pub(super) struct Log<'a> {
    #[serde(rename = "@file")]
    pub(super) file: &'a str,
    #[serde(rename = "@append")]
    pub(super) append: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct SerialTarget {
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(rename = "@port")]
    pub(super) port: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Console {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) target: SerialTarget,
}

#[derive(Debug, Serialize)]
pub(super) struct Channel {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) target: ChannelTarget,
}

#[derive(Debug, Serialize)]
pub(super) struct ChannelTarget {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@name")]
    pub(super) name: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Balloon {
    #[serde(rename = "@model")]
    pub(super) model: &'static str,
    pub(super) stats: BalloonStats,
}

#[derive(Debug, Serialize)]
pub(super) struct BalloonStats {
    /// In seconds.
    #[serde(rename = "@period")]
    pub(super) period: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Rng {
    #[serde(rename = "@model")]
    pub(super) model: &'static str,
    pub(super) backend: RngBackend,
}

#[derive(Debug, Serialize)]
pub(super) struct RngBackend {
    #[serde(rename = "@model")]
    pub(super) model: &'static str,
    #[serde(rename = "$text")]
    pub(super) device: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Input {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    #[serde(rename = "@bus")]
    pub(super) bus: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Graphics {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
    pub(super) listen: Listen,
}

#[derive(Debug, Serialize)]
pub(super) struct Listen {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Video {
    pub(super) model: VideoModel,
}

#[derive(Debug, Serialize)]
pub(super) struct VideoModel {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
}
