//! What a fleet is started with.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use protocol::{MemoryMib, Name, SizeGib};

use super::faults::{Faults, duration};
use crate::identity::Endpoint;

/// Each host has an address in the range for measurements, [RFC 2544](https://www.rfc-editor.org/rfc/rfc2544): real hosts
/// that share a network with simulated ones send them packets, which arrive nowhere.
const FIRST_UNDERLAY: u32 = 0xc612_0000;
/// So that all have one.
const MOST_HOSTS: u64 = 100_000;

/// See the module.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many hosts.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=MOST_HOSTS))]
    pub hosts: usize,
    /// The control plane, https://HOST:PORT.
    #[arg(long, env = "CUMULO_CONTROL_PLANE")]
    pub control_plane: Endpoint,
    /// A file with join tokens, one a line, or - for standard input: one for each host that has not joined yet. It may be
    /// written while it is read, as by a pipe.
    #[arg(long, env = "CUMULO_TOKEN_FILE")]
    pub token_file: Option<Utf8PathBuf>,
    /// Where the hosts keep their identities, their memories and what they simulate, each in a folder of its own. Started
    /// with it again they are the same hosts, with the same guests.
    #[arg(long, env = "CUMULO_STATE_DIR")]
    pub state_dir: Utf8PathBuf,
    /// The hosts are called PREFIX-0001, PREFIX-0002, …
    #[arg(long, default_value = "sim")]
    pub prefix: Name,
    /// Processors of each host.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub cpus: u32,
    /// Memory of each host, in GiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub memory_gib: u32,
    /// The disk of each host, in GiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub disk_gib: u32,
    /// How long the start of a guest takes, as 500ms or 2s.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub create_latency: Duration,
    /// How long each other step takes with a guest or its disks.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub step_latency: Duration,
    /// What goes wrong, joined by commas. failing-creates=5%: that share of starts is refused, and tried again.
    /// restart=10m: each agent is started anew so often on average, wherever it is. silence=10m/40s: nothing is heard of
    /// each agent so often, for so long; it goes on with what it knows.
    #[arg(long, default_value = "")]
    pub faults: Faults,
    /// What faults are drawn from: the same seed, the same faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// So many hosts each share a pool, a real directory, and have a guard: sim-0001 to sim-0003 the pool shared-001, …
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(2..=100))]
    pub sharing: Option<usize>,
    /// How many ordeals the groups go through, those of the seeds from --seed on: their hosts are cut off, stopped and killed.
    /// A group begins one when --guests run in it, and the next one when those have been deleted and as many others run.
    #[arg(long, default_value_t = 0, requires = "sharing")]
    pub ordeals: u64,
    /// How many guests run in a group when all is well.
    #[arg(long, default_value_t = 3, requires = "sharing", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub guests: usize,
    /// Guards keep their leases and kill nobody: to see that this is found.
    #[arg(long, hide = true, requires = "sharing")]
    pub toothless_guards: bool,
    /// Where to write at the end, as JSON, what runs and how often anything was started.
    #[arg(long)]
    pub report: Option<Utf8PathBuf>,
}

impl Options {
    /// The host's name; the first is number 1.
    pub(super) fn name(&self, number: usize) -> Result<Name> {
        let name = format!("{}-{number:04}", self.prefix);
        name.parse().with_context(|| format!("{name} is no name of a host: choose a shorter --prefix"))
    }

    pub(super) fn memory(&self) -> MemoryMib {
        MemoryMib(self.memory_gib * 1024)
    }

    pub(super) fn disk(&self) -> SizeGib {
        SizeGib(self.disk_gib)
    }

    pub(super) fn underlay_address(number: usize) -> Ipv4Addr {
        Ipv4Addr::from(FIRST_UNDERLAY + u32::try_from(number).unwrap_or_default())
    }
}
