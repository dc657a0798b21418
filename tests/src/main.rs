//! `lab`: what the Makefile calls, and the keeper of the tests' labs.

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Run a Cumulo cloud on this machine, for use or for tests", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cloud on this machine, or bring it up to date; ends with a running instance
    Up,
    /// Stop what `up` started and keep the data
    Down,
    /// Print shell lines that let curl find the cloud
    Env,
    /// Say what runs
    Status,
    /// Hold the machines of a lab until standard input ends
    #[command(hide = true)]
    Keeper {
        #[arg(long)]
        dir: Utf8PathBuf,
        #[arg(long)]
        hosts: usize,
    },
    /// End what is left of labs whose keeper was killed
    Clean,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up => lab::up::run(lab::up::up),
        Command::Down => lab::up::run(lab::up::down),
        Command::Env => lab::up::env(),
        Command::Status => lab::up::run(lab::up::status),
        Command::Keeper { dir, hosts } => lab::keeper::keep(&dir, hosts),
        Command::Clean => {
            let cleaned = lab::keeper::clean_abandoned()?;
            println!("{cleaned} abandoned labs ended");
            Ok(())
        }
    }
}
