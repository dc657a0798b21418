//! The memory of guests: when to stop one whose memory is saved, and how to begin with one that was.

use std::time::{Duration, Instant};

use camino::Utf8Path;
use protocol::agent::memory_seconds;
use protocol::{MIB, MemoryMib};
use virt::connect::Connect;
use virt::domain::Domain as Handle;

use super::{owner, raw, refused, xml};
use crate::hypervisor::{DomainSpec, HypervisorError};

/// How long a guest goes on while its memory is saved. One that changes it faster than it is written would never end.
const LIVE: Duration = Duration::from_secs(30);

/// How long that may take in all.
pub(super) fn limit(size: MemoryMib) -> Duration {
    Duration::from_secs(memory_seconds(size).into())
}

/// A memory that is being saved.
#[derive(Debug)]
pub(super) struct Saving {
    begun: Instant,
    size: MemoryMib,
    pub(super) is_stopped: bool,
    is_given_up: bool,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Let the guest stand still, so that what is left to write is no more than there is.
    Stop,
    GiveUp,
}

impl Saving {
    pub(super) fn begin(size: MemoryMib) -> Self {
        Self { begun: Instant::now(), size, is_stopped: false, is_given_up: false }
    }

    /// What is to be done now, each once, when so many bytes are written.
    pub(super) fn due(&mut self, written: u64, now: Instant) -> Due {
        let elapsed = now.saturating_duration_since(self.begun);
        let all = u64::from(self.size.0) * MIB;
        if elapsed >= limit(self.size) && !self.is_given_up {
            self.is_given_up = true;
            Due::GiveUp
        } else if (elapsed >= LIVE || written >= all) && !self.is_stopped {
            self.is_stopped = true;
            Due::Stop
        } else {
            Due::Nothing
        }
    }
}

/// Starts a domain with what was saved. It stands still.
///
/// The saved description is what its memory fits to, down to the places of its devices. Only what no guest sees of it is
/// the present one's: the files of the disks, and our metadata.
pub(super) fn load(connect: &Connect, spec: &DomainSpec, memory: &Utf8Path) -> Result<(), HypervisorError> {
    let attempted = "load the memory";
    owner::give(connect, &owner::shared(&spec.disks))?;
    let saved = Handle::save_image_get_xml_desc(connect, memory.as_str(), 0);
    let saved = saved.map_err(|error| refused(attempted, error))?;
    let described = xml::resumed(&saved, spec).map_err(|error| refused(attempted, error))?;
    let flags = raw::VIR_DOMAIN_SAVE_PAUSED;
    match Handle::domain_restore_flags(connect, memory.as_str(), Some(&described), flags) {
        Ok(()) => Ok(()),
        Err(_) if Handle::lookup_by_uuid(connect, spec.id.as_uuid()).is_ok() => {
            Err(HypervisorError::Exists(spec.id))
        }
        Err(error) => Err(refused(attempted, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_changes_its_memory_too_fast_is_stopped_once_and_given_up_once() {
        let mut saving = Saving::begin(MemoryMib(64));
        let at = |seconds| saving.begun + Duration::from_secs(seconds);
        let moments = [at(1), at(29), at(30), at(31), at(121), at(122), at(123)];
        let due = moments.map(|moment| saving.due(1, moment));
        let nothing = Due::Nothing;
        assert_eq!(due, [nothing, nothing, Due::Stop, nothing, nothing, Due::GiveUp, nothing]);
        let mut saving = Saving::begin(MemoryMib(64));
        assert_eq!(saving.due(64 * MIB - 1, Instant::now()), Due::Nothing);
        assert_eq!(saving.due(64 * MIB, Instant::now()), Due::Stop);
    }
}
