//! What a guest's agent says of the guest.

use std::time::Duration;

use protocol::agent::{GuestAddress, GuestFilesystem, GuestInfo, GuestInterface, GuestOs, MAX_GUEST_ITEMS};
use time::OffsetDateTime;
use virt::domain::Domain as Handle;
use virt::sys as raw;

use super::snapshot::AGENT_PATIENCE_SECONDS;
use super::sys::values::Values;
use super::{BoxError, refused, sys, xml};
use crate::hypervisor::HypervisorError;

/// How long the agent may take for each of some few answers.
const PATIENCE_SECONDS: u16 = 5;
/// That, seven times, and some time for libvirt.
pub(super) const LIMIT: Duration = Duration::from_secs(45);

/// Asks the agent in the guest, if one listens. `now` is asked for the moment of the answer.
pub(super) fn ask(domain: &Handle, now: impl Fn() -> OffsetDateTime) -> Result<GuestInfo, HypervisorError> {
    let attempted = "ask the guest";
    let described = domain.get_xml_desc(0).map_err(|error| refused(attempted, error))?;
    if !xml::has_agent(&described).map_err(|error| refused(attempted, error))? {
        return Err(HypervisorError::NoGuestAgent);
    }
    sys::set_agent_patience(domain, PATIENCE_SECONDS).map_err(|error| refused(attempted, error))?;
    let answer = told(domain, now);
    // A freeze has the patience that it had.
    let reset = sys::set_agent_patience(domain, AGENT_PATIENCE_SECONDS);
    reset.map_err(|error| refused(attempted, error))?;
    answer.map_err(|error| refused(attempted, error))
}

fn told(domain: &Handle, now: impl Fn() -> OffsetDateTime) -> Result<GuestInfo, BoxError> {
    let kinds = raw::VIR_DOMAIN_GUEST_INFO_OS
        | raw::VIR_DOMAIN_GUEST_INFO_TIMEZONE
        | raw::VIR_DOMAIN_GUEST_INFO_HOSTNAME
        | raw::VIR_DOMAIN_GUEST_INFO_FILESYSTEM
        | raw::VIR_DOMAIN_GUEST_INFO_INTERFACES;
    // Of kinds that were named, libvirt wants an answer to each; of all that there are, what there is.
    let all = 0;
    let values = sys::values::guest_info(domain, kinds).or_else(|_| sys::values::guest_info(domain, all))?;
    let mut info = read(&values);
    // Some agents know no time.
    if let Ok(guest) = sys::values::guest_time_ms(domain) {
        let host = i64::try_from(now().unix_timestamp_nanos() / 1_000_000)?;
        info.clock_offset_ms = Some(guest.saturating_sub(host));
    }
    Ok(info.bounded())
}

fn read(values: &Values) -> GuestInfo {
    let text = |name: &str| values.text(name).map(str::to_owned);
    let os = GuestOs {
        id: text("os.id"),
        name: text("os.name"),
        version: text("os.version"),
        version_id: text("os.version-id"),
        pretty_name: text("os.pretty-name"),
        kernel_release: text("os.kernel-release"),
        machine: text("os.machine"),
    };
    let interfaces = 0..values.count("if.count", MAX_GUEST_ITEMS);
    let filesystems = 0..values.count("fs.count", MAX_GUEST_ITEMS);
    GuestInfo {
        hostname: text("hostname"),
        os: (os != GuestOs::default()).then_some(os),
        time_zone: text("timezone.name"),
        utc_offset_seconds: values.signed("timezone.offset").and_then(|offset| offset.try_into().ok()),
        clock_offset_ms: None,
        interfaces: interfaces.filter_map(|at| interface(values, at)).collect(),
        filesystems: filesystems.filter_map(|at| filesystem(values, at)).collect(),
    }
}

fn interface(values: &Values, at: usize) -> Option<GuestInterface> {
    let text = |name: &str| values.text(&format!("if.{at}.{name}"));
    let address = |of: usize| {
        let address = text(&format!("addr.{of}.addr"))?.parse().ok()?;
        let prefix = values.number(&format!("if.{at}.addr.{of}.prefix"))?;
        Some(GuestAddress { address, prefix_length: u8::try_from(prefix).ok().filter(|p| *p <= 128)? })
    };
    let addresses = 0..values.count(&format!("if.{at}.addr.count"), MAX_GUEST_ITEMS);
    Some(GuestInterface {
        name: text("name")?.to_owned(),
        mac: text("hwaddr").and_then(|mac| mac.parse().ok()),
        addresses: addresses.filter_map(address).collect(),
    })
}

fn filesystem(values: &Values, at: usize) -> Option<GuestFilesystem> {
    let text = |name: &str| values.text(&format!("fs.{at}.{name}")).map(str::to_owned);
    Some(GuestFilesystem {
        mount_point: text("mountpoint")?,
        device: text("name").unwrap_or_default(),
        kind: text("fstype").unwrap_or_default(),
        total_bytes: values.number(&format!("fs.{at}.total-bytes")),
        used_bytes: values.number(&format!("fs.{at}.used-bytes")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sys::values::Value::{Number, Text};
    use super::*;

    #[test]
    fn reads_what_an_agent_says_and_passes_over_what_makes_no_sense() {
        let of = |text: &str| Text(text.to_owned());
        let values = Values::of(&[
            ("hostname", of("web")),
            ("os.id", of("debian")),
            ("os.kernel-release", of("6.12")),
            ("timezone.name", of("CET")),
            ("timezone.offset", Number(3600)),
            ("if.count", Number(3)),
            ("if.0.name", of("eth0")),
            ("if.0.hwaddr", of("02:00:00:00:00:01")),
            ("if.0.addr.count", Number(3)),
            ("if.0.addr.0.addr", of("10.0.0.5")),
            ("if.0.addr.0.prefix", Number(24)),
            ("if.0.addr.1.addr", of("not an address")),
            ("if.0.addr.1.prefix", Number(24)),
            ("if.0.addr.2.addr", of("fd00::1")),
            ("if.0.addr.2.prefix", Number(500)),
            ("if.1.name", of("lo")),
            ("if.1.hwaddr", of("nonsense")),
            ("fs.count", Number(1)),
            ("fs.0.mountpoint", of("/")),
            ("fs.0.name", of("vda1")),
            ("fs.0.fstype", of("ext4")),
            ("fs.0.total-bytes", Number(100)),
            ("fs.0.used-bytes", Number(40)),
        ]);
        let info = read(&values);
        assert_eq!(info.os.as_ref().unwrap().id.as_deref(), Some("debian"));
        assert_eq!((info.utc_offset_seconds, info.hostname.as_deref()), (Some(3600), Some("web")));
        assert_eq!(info.interfaces.len(), 2);
        let first = GuestAddress { address: "10.0.0.5".parse().unwrap(), prefix_length: 24 };
        assert_eq!(info.interfaces[0].addresses, [first]);
        assert_eq!(info.interfaces[1].mac, None);
        assert_eq!(info.filesystems[0].used_bytes, Some(40));
        assert_eq!(read(&Values::default()), GuestInfo::default());
    }
}
