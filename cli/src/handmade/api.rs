//! Raw requests, for what no command fits.

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command};
use client::{Method, Request};
use serde_json::Value;

use crate::contexts::Place;
use crate::fields::{self, Invalid};

pub fn command() -> Command {
    Command::new("api")
        .about("Send a request of your own: cumulo api GET /v1/projects")
        .arg(
            Arg::new("method")
                .value_name("METHOD")
                .required(true)
                .value_parser(["GET", "POST", "PUT", "PATCH", "DELETE"])
                .ignore_case(true),
        )
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .required(true)
                .help("From /v1 on, with its query; {project} stands for yours"),
        )
        .arg(
            Arg::new("body")
                .long("body")
                .value_name("JSON")
                .help("@FILE for the content of a file, @- for the standard input"),
        )
}

pub async fn run(matches: &ArgMatches) -> Result<()> {
    let place = Place::find(matches)?;
    let method = Method::from_bytes(
        matches.get_one::<String>("method").context("clap asks for it")?.to_uppercase().as_bytes(),
    )?;
    let mut path = matches.get_one::<String>("path").context("clap asks for it")?.clone();
    if !path.starts_with('/') {
        return Err(Invalid::new("PATH", "it begins with /, as in /v1/projects").into());
    }
    if path.contains("{project}") {
        path = path.replace("{project}", &client::segment(place.project()?));
    }
    let mut request = Request::new(method, &path);
    if let Some(body) = matches.get_one::<String>("body") {
        let wrong = |reason: String| Invalid::new("--body", reason);
        let text = fields::text(body).map_err(wrong)?;
        let body = serde_json::from_str(&text).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
        request = request.json(body);
    }
    match place.client.send(&request).await?.body {
        Value::Null => {}
        Value::String(text) => print!("{}", crate::output::harmless(&text)),
        body => println!("{}", serde_json::to_string_pretty(&body)?),
    }
    Ok(())
}
