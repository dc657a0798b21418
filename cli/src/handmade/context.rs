//! Contexts: listed, chosen, forgotten.

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgMatches, Command};
use client::{Contexts, segment};
use serde_json::json;

use crate::contexts::{Place, named};
use crate::output::{Output, harmless, plain};

pub fn command() -> Command {
    let name = || Arg::new("name").value_name("NAME").required(true);
    Command::new("context")
        .about("Clouds and users that you have signed in as")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(Command::new("list").about("All contexts, and which is the current one"))
        .subcommand(Command::new("use").about("Make a context the current one").arg(name()))
        .subcommand(Command::new("project").about("Choose the project that commands work in").arg(name()))
        .subcommand(Command::new("remove").about("Forget a context; sign out of it before").arg(name()))
}

pub async fn run(verb: &str, matches: &ArgMatches) -> Result<()> {
    let overriding = std::env::var("CUMULO_PROJECT").ok().filter(|project| !project.is_empty());
    let mut contexts = Contexts::load()?;
    let given = matches.try_get_one::<String>("name").ok().flatten().cloned().unwrap_or_default();
    match verb {
        "use" if contexts.contexts.contains_key(&given) => contexts.current = Some(given),
        "project" => {
            let name = contexts.name(named(matches));
            let context = contexts.contexts.get_mut(&name).context("sign in first: cumulo login")?;
            let path = format!("/v1/projects/{}", segment(&given));
            let project = Place::find(matches)?.client.get(&path).await?;
            eprintln!("The context {name} works in project {} now.", plain(&project));
            context.project = Some(plain(&project));
        }
        "remove" if contexts.contexts.remove(&given).is_some() => {
            Contexts::session(&given)?.remove()?;
            if contexts.current.as_ref() == Some(&given) {
                contexts.current = contexts.contexts.keys().next().cloned();
            }
        }
        "list" => {
            let mut rows = Vec::new();
            for (name, context) in &contexts.contexts {
                let current = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
                rows.push(
                    json!({"current": current, "name": name, "url": context.url, "username": context.username,
                                 "project": context.project}),
                );
            }
            Output::new(matches, "context").list(&rows)?;
        }
        _ => bail!("there is no context '{given}': see `cumulo context list`"),
    }
    if let (Some(project), "project" | "use" | "list") = (overriding, verb) {
        eprintln!(
            "CUMULO_PROJECT is set: until you `unset CUMULO_PROJECT`, commands work in project {}.",
            harmless(&project)
        );
    }
    Ok(contexts.save()?)
}
