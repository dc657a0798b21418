//! Commands that are more than one call.

mod api;
mod console;
mod context;
mod events;
mod explain;
mod login;
mod manual;
mod password;
mod terraform;
mod upload;

use anyhow::Result;
use clap::{ArgMatches, Command};

use crate::commands::insert;

/// Adds them to the commands of the operations.
pub fn add(root: Command) -> Command {
    let root = root
        .subcommand(login::login())
        .subcommand(login::logout())
        .subcommand(context::command())
        .subcommand(explain::command())
        .subcommand(events::command())
        .subcommand(password::command())
        .subcommand(api::command())
        .subcommand(terraform::command())
        .subcommand(manual::completions())
        .subcommand(manual::manual());
    let root = insert(root, &["instance", "console", "open"], &|_| console::open());
    let root = insert(root, &["instance", "console", "vnc"], &|_| console::vnc());
    insert(root, &["image", "upload"], &|_| upload::command())
}

/// `None` when the command is not one of these.
pub async fn run(path: &[&str], matches: &ArgMatches, root: &Command) -> Option<Result<()>> {
    Some(match path {
        ["login"] => login::run_login(matches).await,
        ["logout"] => login::run_logout(matches).await,
        ["context", verb] => context::run(verb, matches).await,
        ["explain", kind] => explain::run(kind, matches).await,
        ["events"] => events::run(matches).await,
        ["reset-password"] => password::run(matches).await,
        ["api"] => api::run(matches).await,
        ["terraform", "install"] => terraform::run(matches),
        ["completions"] => manual::run_completions(matches),
        ["manual"] => manual::run_manual(matches, root),
        ["instance", "console", "open"] => console::run_open(matches).await,
        ["instance", "console", "vnc"] => console::run_vnc(matches).await,
        ["image", "upload"] => upload::run(matches).await,
        _ => return None,
    })
}
