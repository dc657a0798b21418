//! Measurements, each beside a peer or a floor in the same run: rounds alternate between the two, and what is
//! reported is the median with minimum and maximum. Some measure the cloud that `make up` keeps on this machine,
//! others make hosts of namespaces for themselves.
//!
//! `make bench NAME=b1` prints a table and writes `target/bench/b1.json`. Nothing here asserts a time.

mod compare;
mod completion;
mod control;
mod create;
mod creating;
mod disk;
mod documents;
mod echo;
mod estate;
mod faults;
mod fleet;
mod heartbeats;
mod listing;
mod login;
mod memory;
mod overlay;
mod placement;
mod postgres;
mod process;
mod read;
mod restart;
mod rules;
mod simulated;
mod site;
mod snapshot;
mod spread;
mod traffic;
mod upkeep;
mod world;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measure one thing beside its peer.
#[derive(Parser)]
struct Arguments {
    name: Name,
    /// Rounds of each side.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    #[command(flatten)]
    size: estate::Size,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// POST to running, beside `qemu-img create` and `virsh create` of the same XML.
    B1,
    /// POSTs of instances on simulated hosts, beside pgbench with as many statements and rows, 32 at once.
    B2,
    /// GET one instance, beside pgbench's primary-key SELECT, 16 at once.
    B3,
    /// A page of 500 of 25,000 instances and all pages, beside the same rows as JSON straight from SQL.
    B4,
    /// Sign-ins, beside bare Argon2 with the same parameters, 8 at once.
    B6,
    /// Placement on 10,000 hosts, beside a loop over arrays.
    B7,
    /// Heartbeats of 200 agents over mutual TLS, beside an echo of as many bytes.
    B8,
    /// What 1,000, 3,000 and 10,000 hosts with an instance each take, at rest and while 1 % of the instances are replaced.
    B9,
    /// Memory of the agent, beside libvirtd.
    B10,
    /// A snapshot of a running instance, beside the transaction in QEMU alone; disks of 1, 10 and 100 GiB.
    B11,
    /// Reads through a volume, beside a raw file; first writes, beside an overlay made by hand.
    B12,
    /// TCP and small packets through port rules, beside a bare bridge.
    B13,
    /// TCP and small packets between two hosts over the overlay, beside a VXLAN made by hand.
    B14,
    /// A new rule of a group with 1,000 ports until 100 hosts know it, beside one `nft add element`.
    B15,
    /// Time until a control plane that has crashed answers, and until its simulated hosts are heard of.
    B16,
    /// What a user's client sees of the death of each process, beside a time without.
    B17,
    /// Memory of the control plane and its PostgreSQL.
    B18,
    /// A name that the shell completes, beside curl of the same list.
    B19,
    /// What a control plane takes with 1,000 simulated hosts and 20,000 instances at rest.
    Fleet,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let rounds = arguments.rounds;
    let site = site::Site::find;
    match arguments.name {
        Name::B1 => create::run(&site().await?, rounds).await,
        Name::B2 => creating::run(rounds, arguments.size).await,
        Name::B3 => read::run(&site().await?, rounds).await,
        Name::B4 => listing::run(rounds, arguments.size).await,
        Name::B6 => login::run(&site().await?, rounds).await,
        Name::B7 => placement::run(),
        Name::B8 => heartbeats::run(rounds, arguments.size).await,
        Name::B9 => upkeep::hosts(arguments.size).await,
        Name::B10 => memory::agent(),
        Name::B11 => snapshot::run(&site().await?, rounds).await,
        Name::B12 => disk::run(rounds).await,
        Name::B13 => rules::run(rounds),
        Name::B14 => overlay::run(rounds),
        Name::B15 => spread::run(rounds, arguments.size).await,
        Name::B16 => restart::run(rounds, arguments.size).await,
        Name::B17 => faults::run(rounds).await,
        Name::B18 => memory::control_plane(),
        Name::B19 => completion::run(&site().await?, rounds).await,
        Name::Fleet => upkeep::fleet(arguments.size).await,
    }
}
