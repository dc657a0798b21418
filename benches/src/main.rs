//! Measurements, each beside a peer or a floor in the same run: rounds alternate between the two, and what is
//! reported is the median with minimum and maximum. Some measure the cloud that `make up` keeps on this machine,
//! others make hosts of namespaces for themselves.
//!
//! `make bench NAME=b1` prints a table and writes `target/bench/b1.json`. Nothing here asserts a time.

mod compare;
mod completion;
mod control;
mod create;
mod disk;
mod documents;
mod fleet;
mod login;
mod memory;
mod overlay;
mod placement;
mod read;
mod rules;
mod site;
mod snapshot;
mod spread;
mod traffic;
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
    size: spread::Size,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// POST to running, beside `qemu-img create` and `virsh create` of the same XML.
    B1,
    /// GET one instance, beside pgbench's primary-key SELECT, 16 at once.
    B3,
    /// Sign-ins, beside bare Argon2 with the same parameters, 8 at once.
    B6,
    /// Placement on 10,000 hosts, beside a loop over arrays.
    B7,
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
    /// Memory of the control plane and its PostgreSQL.
    B18,
    /// A name that the shell completes, beside curl of the same list.
    B19,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let rounds = arguments.rounds;
    let site = site::Site::find;
    match arguments.name {
        Name::B1 => create::run(&site().await?, rounds).await,
        Name::B3 => read::run(&site().await?, rounds).await,
        Name::B6 => login::run(&site().await?, rounds).await,
        Name::B7 => placement::run(),
        Name::B10 => memory::agent(),
        Name::B11 => snapshot::run(&site().await?, rounds).await,
        Name::B12 => disk::run(rounds).await,
        Name::B13 => rules::run(rounds),
        Name::B14 => overlay::run(rounds),
        Name::B15 => spread::run(rounds, arguments.size).await,
        Name::B18 => memory::control_plane(),
        Name::B19 => completion::run(&site().await?, rounds).await,
    }
}
