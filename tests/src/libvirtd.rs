//! A libvirtd of a machine's own, started by hand: no systemd, no sockets but its own.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::virsh::Virsh;
use crate::wait;

/// libvirtd and virtlogd of one machine, not started yet.
pub(crate) fn prepare(machine: &Machine) -> Result<(Daemon, Daemon)> {
    let config = machine.outside("/etc/libvirt");
    // Each host needs its own id, or libvirt refuses to migrate between them.
    let libvirtd = format!("host_uuid = \"{}\"\nlog_outputs = \"3:stderr\"\n", uuid::Uuid::new_v4());
    // The lab's hosts share one cgroup tree, where a killed QEMU would leave folders behind; and the
    // distribution's confinement profiles know nothing of the lab's folders.
    let qemu = "cgroup_controllers = []\nsecurity_driver = \"none\"\n";
    for (file, text) in [
        ("libvirtd.conf", libvirtd.as_str()),
        ("qemu.conf", qemu),
        ("virtlogd.conf", "log_outputs = \"3:stderr\"\n"),
    ] {
        let path = config.join(file);
        fs::write(&path, text).with_context(|| format!("write {path}"))?;
    }
    Ok((daemon(machine, "libvirtd"), daemon(machine, "virtlogd")))
}

fn daemon(machine: &Machine, program: &'static str) -> Daemon {
    let log = machine.dir.join(format!("{program}.log"));
    let machine = machine.clone();
    Daemon::new(format!("{program} of {}", machine.name), log, move || machine.command(program))
}

/// How a libvirtd of this machine is reached.
pub(crate) fn virsh(machine: &Machine) -> Virsh {
    Virsh::new(machine.outside("/run/libvirt"))
}

/// Waits until libvirtd answers. The very first start on a machine probes QEMU, which takes seconds.
pub(crate) async fn wait_ready(libvirtd: &Daemon, virsh: &Virsh) -> Result<()> {
    let ready =
        wait::eventually(format!("{} to answer", libvirtd.name), Duration::from_secs(120), async || {
            libvirtd.process()?;
            virsh.run(&["version"])
        });
    ready.await.map(|_| ()).with_context(|| libvirtd.log_tail(30))
}
