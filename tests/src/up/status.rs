//! `lab status`: what of `make up` runs.

use anyhow::Result;

use super::libvirt;
use super::record::Record;
use super::settings::Settings;
use super::steps::{AGENT, API};

pub async fn status() -> Result<()> {
    let settings = Settings::from_env()?;
    if !settings.state.exists() {
        say!("there is no cloud in {}", settings.state);
        return Ok(());
    }
    let record = Record::open(&settings.state)?;
    for name in [API, AGENT, libvirt::LIBVIRTD, libvirt::VIRTLOGD] {
        match record.running(name) {
            Some(started) => say!("  {name:<14} pid {}, log {}", started.process.pid, settings.log(name)),
            None => say!("  {name:<14} not started by `make up`"),
        }
    }
    say!("  {:<14} {}", "libvirt", if libvirt::virsh().answers() { "answers" } else { "does not answer" });
    say!("  {:<14} {}", "API", record.url().unwrap_or("none"));
    Ok(())
}
