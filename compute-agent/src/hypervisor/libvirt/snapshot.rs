//! Snapshots of a running domain, of a guest at rest if that is wanted.
//!
//! Freezing, snapshot and thawing are three calls. libvirt could do it in one, but holds the domain all the time that
//! the guest takes to freeze, and with it every listing of the domains: one guest would blind the agent for all. So a
//! guest is left frozen by an agent or a libvirtd that dies in between, by a guest's agent that says too late that it has
//! frozen, and by a thaw that fails. Whoever asked is to ask for [`thaw`] after everything but success.

use std::time::{Duration, Instant};

use protocol::InstanceId;
use virt::domain::Domain as Handle;
use virt::error::Error;

use super::{BoxError, refused, sys, xml};
use crate::hypervisor::{Beside, HypervisorError, NewLayer};

/// How long a guest may take to write down what it has in memory. Without it, libvirt would wait for ever.
pub(super) const AGENT_PATIENCE_SECONDS: u16 = 30;
/// What taking a frozen guest's snapshot may last: nothing is begun that may end after the caller has given it up and
/// thawed the guest.
const TAKING: Duration = Duration::from_secs(45);

/// Takes the snapshot for a caller who waits `until` then.
pub(super) fn take(
    domain: &Handle,
    id: InstanceId,
    layers: &[NewLayer],
    beside: &Beside,
    until: Instant,
) -> Result<(), HypervisorError> {
    let attempted = "take a snapshot";
    let failed = |error: Error| refused(attempted, error);
    let described = domain.get_xml_desc(0).map_err(failed)?;
    let unread = |error| refused(attempted, error);
    if *beside == Beside::Rest && !xml::has_agent(&described).map_err(unread)? {
        return Err(HypervisorError::NoGuestAgent);
    }
    // libvirt would make a snapshot of each disk that is not named.
    let running = xml::found(&described).map_err(unread)?;
    let is_there = |new: &NewLayer| running.iter().any(|disk| disk.volume_id() == Some(new.volume));
    if !layers.iter().all(is_there) {
        return Err(HypervisorError::NotFound(id));
    }
    // Another call came before this one.
    if layers.iter().any(|new| running.iter().any(|disk| disk.file.as_ref() == Some(&new.layer))) {
        return Err(refused(attempted, "a disk has its new layer already"));
    }
    let memory = match beside {
        Beside::Memory { file, .. } => Some(file.as_path()),
        Beside::Nothing | Beside::Rest => None,
    };
    let xml = xml::snapshot(&running, layers, memory).map_err(|error| refused(attempted, error))?;
    for disk in running.iter().filter(|disk| layers.iter().any(|new| Some(new.volume) == disk.volume_id())) {
        // A disk whose layers are being merged gets no new one; the merge can be begun again.
        if sys::has_block_job(domain, &disk.target).map_err(failed)? {
            sys::cancel_block_job(domain, &disk.target).map_err(failed)?;
        }
    }
    match beside {
        Beside::Rest => take_at_rest(domain, &xml, until),
        Beside::Nothing | Beside::Memory { .. } => {
            sys::snapshot(domain, &xml, memory.is_some()).map_err(failed)
        }
    }
}

fn take_at_rest(domain: &Handle, xml: &str, until: Instant) -> Result<(), HypervisorError> {
    let failed = |error: Error| refused("take a snapshot of a guest at rest", error);
    sys::set_agent_patience(domain, AGENT_PATIENCE_SECONDS).map_err(failed)?;
    sys::freeze(domain).map_err(|error| HypervisorError::NotFrozen(error.into()))?;
    if Instant::now() + TAKING > until {
        return Err(HypervisorError::NotFrozen("it took too long".into()));
    }
    let taken = sys::snapshot(domain, xml, false);
    let thawed = sys::thaw(domain);
    taken.and(thawed).map_err(failed)
}

/// Thaws once nothing else changes the domain: a snapshot that an earlier agent asked for is only worth something
/// when the guest was at rest until its end.
pub(super) fn thaw(domain: &Handle) -> Result<(), BoxError> {
    if let Some(disk) = xml::found(&domain.get_xml_desc(0)?)?.first() {
        sys::has_block_job(domain, &disk.target)?;
    }
    sys::set_agent_patience(domain, AGENT_PATIENCE_SECONDS)?;
    Ok(sys::thaw(domain)?)
}
