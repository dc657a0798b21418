//! Measurements of the cloud that `make up` keeps on this machine, each beside a peer or a floor in the same
//! run: rounds alternate between the two, and what is reported is the median with minimum and maximum.
//!
//! `make bench NAME=b1` prints a table and writes `target/bench/b1.json`. Nothing here asserts a time.

mod compare;
mod create;
mod login;
mod memory;
mod read;
mod site;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measure one thing beside its peer.
#[derive(Parser)]
struct Arguments {
    name: Name,
    /// Rounds of each side.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// POST to running, beside `qemu-img create` and `virsh create` of the same XML.
    B1,
    /// GET one instance, beside pgbench's primary-key SELECT, 16 at once.
    B3,
    /// Sign-ins, beside bare Argon2 with the same parameters, 8 at once.
    B6,
    /// Memory of the agent, beside libvirtd.
    B10,
    /// Memory of the control plane and its PostgreSQL.
    B18,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let site = site::Site::find().await?;
    match arguments.name {
        Name::B1 => create::run(&site, arguments.rounds).await,
        Name::B3 => read::run(&site, arguments.rounds).await,
        Name::B6 => login::run(&site, arguments.rounds).await,
        Name::B10 => memory::agent(),
        Name::B18 => memory::control_plane(),
    }
}
