//! The command line of Cumulo.

mod commands;
mod complete;
mod contexts;
mod document;
mod failure;
mod fields;
mod handmade;
mod names;
mod output;
mod run;
mod wait;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ArgMatches;

use crate::contexts::Place;

fn main() -> ExitCode {
    // A shell asks what may follow.
    clap_complete::CompleteEnv::with_factory(|| commands::command(&commands::tree(document::operations())))
        .complete();
    let operations = document::operations();
    let tree = commands::tree(operations);
    let root = commands::command(&tree);
    let matches = commands::parse(&root);
    let (path, matches) = commands::chosen(&matches);
    match dispatch(&tree, &root, &path, matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(failure::report(&error, commands::list_of(&tree, &path).as_deref())),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn dispatch(
    tree: &commands::Tree<'_>,
    root: &clap::Command,
    path: &[&str],
    matches: &ArgMatches,
) -> Result<()> {
    if let Some(done) = handmade::run(path, matches, root).await {
        return done;
    }
    let operations = tree.get(path).context("clap knows each command")?;
    run::run(&Place::find(matches)?, operations, matches).await
}
