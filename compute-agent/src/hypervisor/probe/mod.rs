//! What the host can really do, found out by running a guest.
//!
//! `/dev/kvm` may open, and libvirt may offer `type='kvm'`, on a machine whose KVM runs no kernel at all. So
//! hardware virtualization is believed only when a guest has run on it: a boot sector that enters long mode,
//! turns paging on, uses SSE and is woken from a halt by the timer (see `boot_sector.S`), on the same
//! machine type, processor and disk bus as the domains of instances. When it fails, or fails to end in time,
//! the host emulates, and the inventory says why.

mod guest;
mod host;

use std::time::Duration;

use camino::Utf8Path;
use protocol::agent::Acceleration;
use thiserror::Error;

pub(super) use guest::Outcome;
pub(super) use host::{boot_id, cpu_model, nests, pool_size};

/// Hardware runs the guest in about 0.2 s; this much is for a busy machine.
const HARDWARE_LIMIT: Duration = Duration::from_secs(5);
/// Emulation takes about as long, but starves first when the machine is busy.
const EMULATION_LIMIT: Duration = Duration::from_secs(30);
/// A device node says nothing about what is behind it, but without one there is nothing.
const KVM_DEVICE: &str = "/dev/kvm";

/// How guests run here, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) acceleration: Acceleration,
    /// A sentence for the operator.
    pub(super) detail: String,
}

/// No guest runs here, not even an emulated one.
#[derive(Debug, Error)]
#[error("ran no guest with {emulator}: {outcome}")]
pub(super) struct NoGuestRuns {
    emulator: String,
    outcome: Outcome,
}

/// Runs the probe guest with `emulator`, on hardware first and emulated if that fails.
pub(super) async fn acceleration(emulator: &Utf8Path) -> Result<Verdict, NoGuestRuns> {
    let why_not = match hardware(emulator).await {
        Ok(detail) => return Ok(Verdict { acceleration: Acceleration::Kvm, detail }),
        Err(why_not) => why_not,
    };
    match guest::run(emulator, guest::Accelerator::Tcg, EMULATION_LIMIT).await {
        Outcome::Ran => Ok(emulated(&why_not)),
        outcome => Err(NoGuestRuns { emulator: emulator.to_string(), outcome }),
    }
}

/// The verdict for a host that emulates because of `why_not`.
pub(super) fn emulated(why_not: &str) -> Verdict {
    Verdict { acceleration: Acceleration::Tcg, detail: format!("guests are emulated: {why_not}") }
}

async fn hardware(emulator: &Utf8Path) -> Result<String, String> {
    if !Utf8Path::new(KVM_DEVICE).exists() {
        return Err(format!("there is no {KVM_DEVICE}"));
    }
    match guest::run(emulator, guest::Accelerator::Kvm, HARDWARE_LIMIT).await {
        Outcome::Ran => Ok("a guest ran on KVM".to_owned()),
        outcome => Err(format!("KVM is offered but runs no guest ({outcome})")),
    }
}

#[cfg(test)]
mod tests;
