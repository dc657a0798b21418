//! A fleet of simulated hosts in one process: for rehearsals, load tests and demonstrations.
//!
//! Each host has joined for itself, has an identity and a state folder of its own, and is the agent itself: everything
//! below [`agent::run`](crate::agent::run) is what runs on a real host, the line with its client certificate included.
//! What is simulated is the machine: its [hypervisor](crate::hypervisor::simulated), disks and networks. Those are kept on
//! disk, so to the control plane the end of this process is the end of N agents, whose guests run on.
//!
//! All share one runtime; a host at rest is a handful of timers and two connections.

mod faults;
mod fleet;
mod host;
mod joining;
mod line;
mod options;
mod report;
mod sharing;
#[cfg(test)]
mod tests;

pub use faults::Faults;
pub use fleet::run;
pub use options::Options;
