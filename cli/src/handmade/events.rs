//! The log of events, once or for as long as somebody watches.

use std::io::Write as _;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};
use client::{EventStream, Request, segment};
use serde_json::Value;

use crate::contexts::Place;
use crate::output::{Output, harmless, plain};

pub fn command() -> Command {
    let flag =
        |id: &'static str, help: &'static str| Arg::new(id).long(id).action(ArgAction::SetTrue).help(help);
    Command::new("events")
        .about("What has happened in the project, oldest first")
        .arg(
            flag("follow", "Go on with what happens, until you stop it; a lost connection is caught up")
                .short('f'),
        )
        .arg(flag("cloud", "Of the whole cloud instead of a project"))
        .arg(Arg::new("after").long("after").value_name("POSITION").help("Only what happened after this"))
}

pub async fn run(matches: &ArgMatches) -> Result<()> {
    let place = Place::find(matches)?;
    let path = match matches.get_flag("cloud") {
        true => "/v1/events".to_owned(),
        false => format!("/v1/projects/{}/events", segment(place.project()?)),
    };
    let mut after = matches.get_one::<String>("after").cloned().unwrap_or_else(|| "0".to_owned());
    let follow = matches.get_flag("follow");
    let mut all = Vec::new();
    loop {
        let page =
            place.client.send(&Request::new(client::Method::GET, &path).query("after", &after)).await?.body;
        let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        if items.is_empty() {
            break;
        }
        if follow {
            items.iter().try_for_each(|event| line(matches, event))?;
        } else {
            all.extend_from_slice(items);
        }
        after = plain(&page["last_position"]);
    }
    if !follow {
        return Output::new(matches, "event").list(&all);
    }
    let path = format!("{path}/stream");
    let mut stream = EventStream::new(&place.client, &path, Some(after));
    loop {
        line(matches, &stream.next().await?.data)?;
    }
}

fn line(matches: &ArgMatches, event: &Value) -> Result<()> {
    let text = match matches.get_one::<String>("output").map(String::as_str) {
        Some("table") | None => {
            let [at, kind, change, name] =
                ["at", "kind", "change", "resource_name"].map(|field| plain(&event[field]));
            format!("{at}  {kind:<16}  {change:<8}  {name}")
        }
        _ => event.to_string(),
    };
    Ok(writeln!(std::io::stdout(), "{}", harmless(&text))?)
}
