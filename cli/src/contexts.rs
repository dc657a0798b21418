//! The place that the command line names: which cloud, as whom, in which project.

use anyhow::{Context as _, Result};
use clap::ArgMatches;
use client::{Client, Given};

/// A cloud to talk to, and the project to work in.
pub struct Place {
    pub client: Client,
    project: Option<String>,
}

impl Place {
    /// From the command line, the environment and the context, in this order.
    pub fn find(matches: &ArgMatches) -> Result<Self> {
        let project = matches.get_one::<String>("project").cloned();
        let context = named(matches).map(str::to_owned);
        let client::Place { client, project } =
            client::Place::find(Given { context, project, ..Given::default() })?;
        Ok(Self { client, project })
    }

    pub fn project(&self) -> Result<&str> {
        self.project
            .as_deref()
            .context("which project? Give --project, or choose one with `cumulo context project NAME`")
    }
}

/// The context that the command line names, if it does.
pub fn named(matches: &ArgMatches) -> Option<&str> {
    matches.get_one::<String>("context").map(String::as_str)
}
