//! The rest of the inventory, as the kernel tells it.

use std::fs;
use std::io;

use camino::Utf8Path;
use nix::sys::statvfs::statvfs;
use protocol::{GIB, SizeGib};
use uuid::Uuid;

/// The processor as the kernel names it; the machine's architecture where it names none.
pub(in crate::hypervisor) fn cpu_model() -> io::Result<String> {
    Ok(model_name(&fs::read_to_string("/proc/cpuinfo")?).unwrap_or(std::env::consts::ARCH).to_owned())
}

fn model_name(cpuinfo: &str) -> Option<&str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map(|(_, value)| value.trim())
}

/// Whether KVM lets guests run guests of their own: its modules say `Y` or `1`.
pub(in crate::hypervisor) fn nests() -> bool {
    ["kvm_intel", "kvm_amd"].into_iter().any(|module| {
        let says = fs::read_to_string(format!("/sys/module/{module}/parameters/nested"));
        says.is_ok_and(|says| matches!(says.trim(), "Y" | "1"))
    })
}

/// Changes at each boot of the machine.
pub(in crate::hypervisor) fn boot_id() -> io::Result<Uuid> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Uuid::try_parse(text.trim()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Size of the file system that holds `pool`, rounded down.
pub(in crate::hypervisor) fn pool_size(pool: &Utf8Path) -> io::Result<SizeGib> {
    let stat = statvfs(pool.as_std_path())?;
    let bytes = stat.blocks().saturating_mul(stat.fragment_size());
    Ok(SizeGib(u32::try_from(bytes / GIB).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_model_among_the_other_lines() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7571\nflags\t: fpu\n";
        assert_eq!(model_name(cpuinfo), Some("AMD EPYC 7571"));
        assert_eq!(model_name("CPU implementer : 0x41\n"), None);
    }

    #[test]
    fn reads_this_machine() {
        assert!(!cpu_model().unwrap().is_empty());
        assert!(!boot_id().unwrap().is_nil());
        assert!(pool_size("/".into()).unwrap() > SizeGib(0));
        assert_eq!(pool_size("/no/such/pool".into()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
