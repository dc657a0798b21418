//! The lab: a real cloud of one or several hosts on one machine, for tests and measurements.
//!
//! A [`Machine`] is a set of namespaces (network, mount, UTS, IPC) with private `/run`, `/var/lib/libvirt`
//! and so on: to everything inside it looks like a computer of its own. A [`Lab`] is a machine for the
//! control plane and one for each host, joined by a bridge. Hosts run their own libvirtd and the real
//! agent; nothing is simulated but the hosts of a [`Fleet`], which are for what needs many. Traffic stays inside these namespaces and on loopback.
//!
//! ```text
//!   test process ──127.0.0.1──► Gateway ──► control: cumulo-api, its PostgreSQL     192.0.2.1
//!                                              │
//!                                          underlay (a bridge)
//!                                         │         │         │
//!                                        h1        h2        h3: libvirtd, agent    192.0.2.11…
//! ```
//!
//! Whatever happens to the test, a [keeper] process ends everything that ran in the lab's namespaces and
//! removes its files.
//!
//! [`up`] is the other half of this crate: what `make up` and `make down` do on a real machine.

pub mod binaries;
mod cloud;
mod control;
mod daemon;
mod fleet;
mod gateway;
mod guest;
mod host;
pub mod keeper;
mod lab;
mod libvirtd;
mod machine;
mod machines;
mod networks;
mod postgres;
mod process;
mod replicated;
mod shell;
pub mod up;
mod virsh;
mod wait;
mod wiring;

pub use cloud::{Answer, Cloud, Credentials, Instance, Project, Snapshot, Volume};
pub use control::ControlPlane;
pub use daemon::Daemon;
pub use fleet::{Fleet, roomy_project};
pub use guest::{Guest, cached};
pub use host::Host;
pub use lab::{Lab, LabOptions, in_lab, items};
pub use machine::Machine;
pub use machines::Machines;
pub use postgres::Postgres;
pub use process::ProcessId;
pub use replicated::{Replicated, in_replicated_cloud};
pub use shell::{Said, Shell};
pub use virsh::Virsh;
pub use wait::{eventually, wait_for};
