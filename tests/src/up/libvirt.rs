//! libvirt on this machine: the system's own where systemd runs, else started by hand.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::record::Record;
use super::service::Service;
use super::settings::Settings;
use crate::machine::said_or_failed;
use crate::virsh::Virsh;
use crate::wait;

pub(crate) const LIBVIRTD: &str = "libvirtd";
pub(crate) const VIRTLOGD: &str = "virtlogd";

/// The machine's libvirt.
pub(crate) fn virsh() -> Virsh {
    Virsh::new("/run/libvirt")
}

/// Makes sure that libvirt answers; says what was done.
pub(crate) async fn ensure(settings: &Settings, record: &mut Record) -> Result<String> {
    let virsh = virsh();
    if virsh.answers() {
        return Ok("answers".to_owned());
    }
    if Path::new("/run/systemd/system").exists() {
        let started = Command::new("systemctl").args(["start", "libvirtd"]).output();
        said_or_failed(started, || "systemctl start libvirtd".to_owned())?;
        wait_answers(&virsh).await?;
        return Ok("started by systemd".to_owned());
    }
    let (virtlogd, libvirtd) = (by_hand(VIRTLOGD, settings)?, by_hand(LIBVIRTD, settings)?);
    virtlogd.ensure(record)?;
    libvirtd.ensure(record)?;
    wait_answers(&virsh).await.with_context(|| libvirtd.last_words())?;
    Ok("started".to_owned())
}

/// The first start on a machine probes QEMU, which takes seconds.
async fn wait_answers(virsh: &Virsh) -> Result<()> {
    wait::eventually("libvirtd to answer", Duration::from_secs(120), async || virsh.run(&["version"]))
        .await?;
    Ok(())
}

fn by_hand(name: &'static str, settings: &Settings) -> Result<Service> {
    let Some(program) =
        ["/usr/sbin", "/usr/bin"].iter().map(|dir| format!("{dir}/{name}")).find(|p| Path::new(p).exists())
    else {
        bail!("{name} is not installed; deploy/packages host installs it");
    };
    Ok(Service { name, command: vec![program], log: settings.log(name) })
}
