//! The agent of one host: it makes the host look like what the control plane wants, and says what it saw.
//!
//! [`desired`] keeps the wishes, [`reconcile`] carries them out through [`hypervisor`] and
//! [`host_storage`] on [`networks`], [`metadata`] answers its guests, [`report`] tells, [`consoles`] shows, [`control_plane`] is the line and [`identity`] the passport.
//! [`guard`] ends guests when the host is cut off from their disks,
//! and runs without the agent. [`agent`] puts them together, [`verify`] compares the host with all of it and changes nothing, which [`drift`] does regularly. To the host the agent only ever dials
//! out: it listens nowhere but inside the tenants' networks, for their metadata.

pub mod agent;
mod backoff;
pub mod clock;
pub mod consoles;
pub mod control_plane;
pub mod desired;
mod drift;
mod durable;
pub mod guard;
pub mod host_storage;
pub mod hypervisor;
pub mod identity;
mod image_cache;
mod insight;
mod inventory;
mod kept;
pub mod metadata;
pub mod migration;
pub mod networks;
pub mod reconcile;
pub mod report;
#[cfg(test)]
mod samples;
mod session;
pub mod simulate;
pub mod verify;

/// An error and its causes in one line, for the log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
