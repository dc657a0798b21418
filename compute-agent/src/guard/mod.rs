//! The guard: what makes it certain that the guests of a host that is cut off do not run any more.
//!
//! ```text
//! agent ──► <state>/guard/<instance>.json ──► rounds ──► decision ──► SIGKILL by pidfd
//!   ▲                                           │           ▲
//!   └───────── <state>/guard/status ◄───────────┘        writers, one thread per pool ──► <pool>/leases/<host>
//! ```
//! The guard is a process of its own that needs neither libvirt, agent nor control plane. It renews the host's lease in each
//! shared pool. When no write has completed that began less than [`Times::lease`] ago, the guests that have a disk in that
//! pool lose their power, and so does whatever appears of them until the agent allows a new start.
//!
//! INVARIANT: the thread that decides ([`decision`]) touches no file system. A pool that hangs costs its own writer, a
//! disk of the host that hangs costs the rounds ([`rounds`]); what is known by then is enough to decide and to kill.
//!
//! A lapse cannot be taken back: a lease that is regained has another *term*, and what was allowed to run in an
//! earlier one is not allowed any more. So it is enough to look at the clock afterwards, also for a machine that stood still.
//!
//! The agent writes down what is guarded ([`Guards`]), reads what other hosts' guards do ([`witness`]), and stands in when its own
//! guard is dead ([`second`]).

pub mod clock;
mod decision;
mod entries;
mod guards;
mod harden;
pub mod lease;
mod lock;
pub(crate) mod machine;
mod processes;
mod recorder;
mod rounds;
pub mod run;
mod sealed;
pub mod second;
pub(crate) mod state;
mod status;
mod terms;
#[cfg(test)]
pub(crate) mod tests;
mod watchdog;
pub mod witness;
mod writer;

use std::time::Duration;

use protocol::agent::{LEASE_SECONDS, LEASE_WRITE_SECONDS};

pub use entries::{Entry, Held};
pub use guards::{Guarding, Guards, Unready};
pub(crate) use machine::SharedMachine;
pub use run::{Options, run};
pub use terms::Lease;

/// The folder of the guard in the agent's.
pub const FOLDER: &str = "guard";

/// How long things take; others than [`Times::default`] are for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long a lease lasts from the beginning of the write that renewed it.
    pub lease: Duration,
    /// From the beginning of a write to that of the next.
    pub write: Duration,
    /// From a write that failed to the next.
    pub retry: Duration,
    /// From one look at what is guarded and runs to the next.
    pub round: Duration,
    /// From one decision to the next.
    pub decide: Duration,
    /// How long whoever was killed may take to be gone before the watchdog is left to bite.
    pub dying: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(LEASE_SECONDS as u64),
            write: Duration::from_secs(LEASE_WRITE_SECONDS as u64),
            retry: Duration::from_secs(1),
            round: Duration::from_millis(500),
            decide: Duration::from_millis(200),
            dying: Duration::from_secs(4),
        }
    }
}
