//! What this program says about itself to shells and to `man`.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command};

pub fn completions() -> Command {
    Command::new("completions")
        .about("Print what makes a shell complete commands and names: source <(cumulo completions bash)")
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser([
            "bash",
            "zsh",
            "fish",
            "elvish",
            "powershell",
        ]))
}

pub fn manual() -> Command {
    Command::new("manual")
        .about("Write a manual page for each command into a folder")
        .arg(Arg::new("folder").value_name("FOLDER").required(true).value_hint(clap::ValueHint::DirPath))
}

/// The script asks this program what may follow.
pub fn run_completions(matches: &ArgMatches) -> Result<()> {
    let shell = matches.get_one::<String>("shell").context("clap asks for it")?;
    let shells = clap_complete::env::Shells::builtins();
    let completer = shells.completer(shell).context("clap has checked it")?;
    completer.write_registration("COMPLETE", "cumulo", "cumulo", "cumulo", &mut std::io::stdout())?;
    Ok(())
}

pub fn run_manual(matches: &ArgMatches, root: &Command) -> Result<()> {
    let folder = Path::new(matches.get_one::<String>("folder").context("clap asks for it")?);
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(root.clone(), folder).with_context(|| folder.display().to_string())
}
