//! Snapshots of a running domain, of a guest at rest if that is wanted.
//!
//! libvirtd freezes, takes the snapshot and thaws within one call, and goes on with it when this agent dies. It
//! leaves a guest frozen when it dies itself in between, when the guest's agent answers too late that it has frozen,
//! or when thawing fails. So whoever asked is to ask for [`thaw`] after everything but success.

use protocol::InstanceId;
use virt::domain::Domain as Handle;
use virt::error::{Error, ErrorNumber};

use super::{found_disks, refused, sys, xml};
use crate::hypervisor::{HypervisorError, NewLayer};

/// How long a guest may take to write down what it has in memory. Without it, libvirt would wait for ever.
const AGENT_PATIENCE_SECONDS: u16 = 30;

pub(super) fn take(
    domain: &Handle,
    id: InstanceId,
    layers: &[NewLayer],
    freeze: bool,
) -> Result<(), HypervisorError> {
    let attempted = if freeze { "freeze the guest and take a snapshot" } else { "take a snapshot" };
    let failed = |error: Error| refused(attempted, error);
    let described = domain.get_xml_desc(0).map_err(failed)?;
    let unread = |error| refused(attempted, error);
    if freeze && !xml::has_agent(&described).map_err(unread)? {
        return Err(HypervisorError::NoGuestAgent);
    }
    // libvirt would make a snapshot of each disk that is not named.
    let running = xml::found(&described).map_err(unread)?;
    let is_there = |new: &NewLayer| running.iter().any(|disk| disk.volume_id() == Some(new.volume));
    if !layers.iter().all(is_there) {
        return Err(HypervisorError::NotFound(id));
    }
    let xml = xml::snapshot(&running, layers).map_err(|error| refused(attempted, error))?;
    for disk in running.iter().filter(|disk| layers.iter().any(|new| Some(new.volume) == disk.volume_id())) {
        // A disk whose layers are being merged gets no new one; the merge can be begun again.
        if sys::has_block_job(domain, &disk.target).map_err(failed)? {
            sys::cancel_block_job(domain, &disk.target).map_err(failed)?;
        }
    }
    if freeze {
        sys::set_agent_patience(domain, AGENT_PATIENCE_SECONDS).map_err(failed)?;
    }
    sys::snapshot(domain, &xml, freeze).map_err(|error| {
        if freeze && blames_agent(&error) { HypervisorError::NotFrozen(error.into()) } else { failed(error) }
    })
}

/// Thaws once nothing else changes the domain: a snapshot that an earlier agent asked for is only worth something
/// when the guest was at rest until its end.
pub(super) fn thaw(domain: &Handle, id: InstanceId) -> Result<(), Error> {
    if let Some(disk) = found_disks(id, &domain.get_xml_desc(0)?).first() {
        sys::has_block_job(domain, &disk.target)?;
    }
    sys::set_agent_patience(domain, AGENT_PATIENCE_SECONDS)?;
    sys::thaw(domain)
}

/// There is no agent in the guest, or it does not answer, or it refuses.
fn blames_agent(error: &Error) -> bool {
    use ErrorNumber::{
        AgentCommandFailed, AgentCommandTimeout, AgentUnresponsive, AgentUnsynced, ArgumentUnsupported,
    };
    matches!(
        error.code(),
        AgentCommandFailed | AgentCommandTimeout | AgentUnresponsive | AgentUnsynced | ArgumentUnsupported
    ) || error.message().contains("agent command")
}
