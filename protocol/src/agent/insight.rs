//! What a host measures of its guests, and what guests say of themselves.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::agent::Epoch;
use crate::{InstanceId, MacAddress, PortId, VolumeId};

/// The most samples in one batch.
pub const MAX_SAMPLES: usize = 500;
/// The most guests in one batch.
pub const MAX_GUESTS: usize = 8;
/// The most volumes of one sample, and the most ports.
pub const MAX_MEASURED: usize = 64;
/// The most interfaces, file systems, or addresses of one interface, that are told of a guest.
pub const MAX_GUEST_ITEMS: usize = 64;
/// The longest text that is taken from a guest; longer ones are cut.
pub const MAX_GUEST_CHARS: usize = 256;

/// `POST /agent/v1/insight`. What is lost of it is lost: the next one is newer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InsightBatch {
    pub epoch: Epoch,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<GuestReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsightAccepted {
    /// Send samples this often.
    pub sample_seconds: u32,
    /// Ask each guest this often.
    pub guest_seconds: u32,
}

/// The counters of one domain at one instant, all since its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    pub id: InstanceId,
    /// The domain's number on its host. Where it is another one, all counters have begun anew.
    pub run: u32,
    /// How long ago that was when it was sent, by a clock that only goes forward.
    pub age_ms: u32,
    pub vcpus: u32,
    /// Processor time, of guest and emulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<u64>,
    #[serde(default)]
    pub memory: MemorySample,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSample>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSample>,
}

/// What is known of a domain's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySample {
    /// What the guest has been given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What the guest counts in all; told by its balloon driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// What the guest could use without swapping; told by its balloon driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// What it takes of the host's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSample {
    pub id: VolumeId,
    pub counters: DiskCounters,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskCounters {
    pub read_bytes: u64,
    pub read_requests: u64,
    pub written_bytes: u64,
    pub write_requests: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSample {
    pub id: PortId,
    pub counters: CardCounters,
}

/// As the guest sees it: what it received and what it sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardCounters {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_drops: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_drops: u64,
}

/// What came of asking a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestReport {
    pub id: InstanceId,
    /// How long ago it was asked when this was sent.
    pub age_ms: u32,
    pub answer: GuestAnswer,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestAnswer {
    Told(Box<GuestInfo>),
    Silent(GuestSilence),
}

/// Why nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestSilence {
    /// Nobody listens in the guest.
    NoAgent,
    /// Somebody listens, and gave no answer in time, or none that can be read.
    NotAnswering,
}

impl GuestSilence {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAgent => "no_agent",
            Self::NotAnswering => "not_answering",
        }
    }
}

/// What a guest says of itself. None of it is proven, and every text is a stranger's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestInfo {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<GuestOs>,
    /// Like `CET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Of its time zone, east of UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utc_offset_seconds: Option<i32>,
    /// How far its clock is ahead of its host's; negative when it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// At most 64.
    #[serde(default)]
    pub interfaces: Vec<GuestInterface>,
    /// Those that are mounted; at most 64.
    #[serde(default)]
    pub filesystems: Vec<GuestFilesystem>,
}

/// The operating system of a guest, as its `os-release` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestOs {
    /// Like `debian`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Like `Debian GNU/Linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Like `13 (trixie)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Like `13`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// Like `Debian GNU/Linux 13 (trixie)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretty_name: Option<String>,
    /// Like `6.12.48+deb13-amd64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_release: Option<String>,
    /// Like `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestInterface {
    /// In the guest, like `eth0`.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub mac: Option<MacAddress>,
    /// At most 64.
    #[serde(default)]
    pub addresses: Vec<GuestAddress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestAddress {
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ip"))]
    pub address: IpAddr,
    pub prefix_length: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestFilesystem {
    /// Like `/var`.
    pub mount_point: String,
    /// The device in the guest, like `vda1`.
    pub device: String,
    /// Like `ext4`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
}

impl GuestInfo {
    /// The same within our limits, without a character that does more to a terminal than to be seen.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let optional = |text: &mut Option<String>| {
            *text = text.take().map(|text| printable(&text)).filter(|text| !text.is_empty());
        };
        optional(&mut self.hostname);
        optional(&mut self.time_zone);
        if let Some(os) = &mut self.os {
            let GuestOs { id, name, version, version_id, pretty_name, kernel_release, machine } = os;
            for text in [id, name, version, version_id, pretty_name, kernel_release, machine] {
                optional(text);
            }
        }
        self.interfaces.truncate(MAX_GUEST_ITEMS);
        for interface in &mut self.interfaces {
            interface.name = printable(&interface.name);
            interface.addresses.truncate(MAX_GUEST_ITEMS);
        }
        self.filesystems.truncate(MAX_GUEST_ITEMS);
        for found in &mut self.filesystems {
            found.mount_point = printable(&found.mount_point);
            found.device = printable(&found.device);
            found.kind = printable(&found.kind);
            found.total_bytes = found.total_bytes.map(believable);
            found.used_bytes = found.used_bytes.map(believable);
        }
        self.clock_offset_ms = self.clock_offset_ms.map(|offset| offset.clamp(-FAR_OFF, FAR_OFF));
        self
    }
}

/// A thousand years.
const FAR_OFF: i64 = 1000 * 365 * 86_400_000;

/// A number that databases and JSON readers know as an integer.
pub fn believable(number: u64) -> u64 {
    number.min(1 << 62)
}

/// A stranger's text: cut, and without control characters and those that change the direction of what follows.
fn printable(text: &str) -> String {
    let is_order = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().filter(|letter| !is_order(*letter)).take(MAX_GUEST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_bounded_and_obeyed_by_no_terminal() {
        let evil = format!("\u{1b}[2J\u{9b}1m\u{202e}\n\0ok{}", "x".repeat(100_000));
        let system =
            GuestOs { pretty_name: Some(evil.clone()), id: Some("\u{7}".to_owned()), ..GuestOs::default() };
        let address = GuestAddress { address: "10.0.0.1".parse().unwrap(), prefix_length: 24 };
        let interface = GuestInterface { name: evil.clone(), mac: None, addresses: vec![address; 1000] };
        let found = GuestFilesystem {
            mount_point: evil.clone(),
            device: evil.clone(),
            kind: evil.clone(),
            total_bytes: Some(u64::MAX),
            used_bytes: None,
        };
        let told = GuestInfo {
            hostname: Some(evil),
            os: Some(system),
            clock_offset_ms: Some(i64::MIN),
            interfaces: vec![interface; 1000],
            filesystems: vec![found; 1000],
            ..GuestInfo::default()
        };
        let bounded = told.bounded();
        let text = serde_json::to_string(&bounded).unwrap();
        assert!(text.len() < 300_000, "{}", text.len());
        assert!(!text.chars().any(char::is_control) && !text.contains("\\u") && !text.contains('\u{202e}'));
        let os = bounded.os.as_ref().unwrap();
        assert_eq!(os.id, None);
        assert!(os.pretty_name.as_ref().unwrap().starts_with("[2J1mokxxx"));
        assert_eq!((bounded.interfaces.len(), bounded.interfaces[0].addresses.len()), (64, 64));
        assert_eq!(bounded.filesystems[0].total_bytes, Some(1 << 62));
        assert_eq!(bounded.clone().bounded(), bounded);
    }

    #[test]
    fn a_batch_of_another_release_is_read() {
        let batch: InsightBatch = serde_json::from_str(r#"{"epoch":1}"#).unwrap();
        assert!(batch.samples.is_empty() && batch.guests.is_empty());
        let sample = r#"{"id":"0190a0a0-0000-7000-8000-000000000000","run":1,"age_ms":0,"vcpus":1}"#;
        let sample: Sample = serde_json::from_str(sample).unwrap();
        assert_eq!(sample.memory, MemorySample::default());
    }
}
