//! What libvirt knows of the machine: its size, and which guests it can run.

use camino::Utf8PathBuf;
use protocol::agent::Architecture;
use protocol::{MIB, MemoryMib};
use virt::connect::Connect;

use super::{HypervisorError, refused, xml};

/// The emulator that libvirt starts, and why it does not offer KVM, if it does not.
pub(super) fn offered(connect: &Connect) -> Result<(Utf8PathBuf, Option<String>), HypervisorError> {
    let attempted = "name its emulator";
    let arch = Some("x86_64");
    let emulated = connect.get_domain_capabilities(None, arch, Some("q35"), Some("qemu"), 0);
    let emulator =
        xml::emulator(&emulated.map_err(|e| refused(attempted, e))?).map_err(|e| refused(attempted, e))?;
    let on_hardware = connect.get_domain_capabilities(None, arch, Some("q35"), Some("kvm"), 0);
    Ok((emulator, on_hardware.err().map(|error| error.message().to_owned())))
}

/// The architectures other than the host's for which there are an emulator and a UEFI.
pub(super) fn emulated(connect: &Connect) -> Vec<Architecture> {
    let mut emulated = Vec::new();
    for architecture in [Architecture::Aarch64, Architecture::Riscv64] {
        let name = architecture.as_str();
        match connect.get_domain_capabilities(None, Some(name), Some("virt"), Some("qemu"), 0) {
            Ok(capabilities) if xml::boots_with_uefi(&capabilities).unwrap_or(false) => {
                emulated.push(architecture);
            }
            Ok(_) => tracing::info!(architecture = name, "not offered: no UEFI for its guests is installed"),
            Err(error) => tracing::info!(architecture = name, why = error.message(), "not offered"),
        }
    }
    emulated
}

/// The processor models that guests may have by name.
pub(super) fn models(connect: &Connect, kind: &str) -> Result<Vec<String>, HypervisorError> {
    let attempted = "name the processors that guests may have";
    let capabilities = connect.get_domain_capabilities(None, Some("x86_64"), Some("q35"), Some(kind), 0);
    let capabilities = capabilities.map_err(|e| refused(attempted, e))?;
    xml::usable_models(&capabilities).map_err(|e| refused(attempted, e))
}

/// What a machine has.
pub(super) struct Node {
    pub cpus: u32,
    pub memory_mib: MemoryMib,
    pub hypervisor: String,
}

/// The machine and its programs.
pub(super) fn describe(connect: &Connect) -> Result<Node, HypervisorError> {
    let failed = |error| refused("describe the host", error);
    let info = connect.get_node_info().map_err(failed)?;
    let qemu = version(connect.get_hyp_version().map_err(failed)?);
    let libvirt = version(connect.get_lib_version().map_err(failed)?);
    Ok(Node {
        cpus: info.cpus,
        // libvirt counts in KiB.
        memory_mib: MemoryMib(u32::try_from(info.memory * 1024 / MIB).unwrap_or(u32::MAX)),
        hypervisor: format!("QEMU {qemu}, libvirt {libvirt}"),
    })
}

/// libvirt's number form: major * 1,000,000 + minor * 1,000 + release.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}
