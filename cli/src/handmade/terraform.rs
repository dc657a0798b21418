//! Puts Terraform's provider where Terraform looks for it, without a registry.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Arg, ArgMatches, Command};

const PROGRAM: &str = "terraform-provider-cumulo";
const SOURCE: &str = "cumulo.dev/cumulo/cumulo";

pub fn command() -> Command {
    let install = Command::new("install")
        .about("Put the provider where Terraform looks for it, and print how a configuration names it")
        .arg(
            Arg::new("program")
                .long("program")
                .value_name("FILE")
                .value_hint(clap::ValueHint::FilePath)
                .help(
                    "The provider; unless given, terraform-provider-cumulo beside this program, or in PATH",
                ),
        );
    Command::new("terraform")
        .about("The provider for Terraform")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(install)
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let program = match matches.get_one::<String>("program") {
        Some(program) => PathBuf::from(program),
        None => find().with_context(|| {
            format!("there is no {PROGRAM} beside this program or in PATH: build it with `cargo build --release -p terraform-provider`, or give --program")
        })?,
    };
    ensure!(program.is_file(), "{} is no file", program.display());
    let folder = mirror()?.join(place());
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // A provider that runs goes on with the old file.
    let new = tempfile::NamedTempFile::new_in(&folder)?;
    std::fs::copy(&program, new.path()).with_context(|| program.display().to_string())?;
    let target = folder.join(PROGRAM);
    new.persist(&target).with_context(|| target.display().to_string())?;
    eprintln!("Installed {}.", target.display());
    println!("{}", block());
    Ok(())
}

/// Where Terraform looks without being told: the user's data folder.
fn mirror() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
    Ok(data.context("neither XDG_DATA_HOME nor HOME is set")?.join("terraform/plugins"))
}

/// As Terraform's unpacked mirrors are laid out.
fn place() -> PathBuf {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = env!("CARGO_PKG_VERSION");
    Path::new(SOURCE).join(version).join(format!("{}_{machine}", std::env::consts::OS))
}

fn block() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "terraform {{\n  required_providers {{\n    cumulo = {{\n      source  = \"{SOURCE}\"\n      version = \"{version}\"\n    }}\n  }}\n}}"
    )
}

fn find() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(PROGRAM))
        .find(|file| file.is_file())
}
