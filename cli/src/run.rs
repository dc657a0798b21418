//! Runs the command of an operation.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ArgMatches;
use clap::parser::ValueSource;
use client::{Body, Method, Pages, Request, segment};
use serde_json::{Map, Value};

use crate::contexts::Place;
use crate::document::Operation;
use crate::fields::{Invalid, Kind};
use crate::output::{self, Output};
use crate::wait;

pub async fn run(place: &Place, operations: &[&Operation], matches: &ArgMatches) -> Result<()> {
    let wants_cloud = matches.try_get_one::<bool>("cloud").ok().flatten() == Some(&true);
    let operation = match operations {
        [only] => only,
        _ => operations.iter().find(|one| one.is_in_project() != wants_cloud).context("both are there")?,
    };
    let output = Output::of(matches, operation);
    let path = path(place, operation, matches)?;
    let mut query = Vec::new();
    for field in &operation.query {
        if let Some(words) = words(matches, &format!("query:{}", field.name)) {
            query.push((field.name.clone(), output::plain(&field.value(&words)?)));
        }
    }
    refuse_flags_of_others(operations, operation, matches)?;
    let project = matches.get_one::<String>("project");
    let is_given = matches.value_source("project") == Some(ValueSource::CommandLine);
    if let Some(project) = project.filter(|_| is_given && operation.takes("project")) {
        query.push(("project".to_owned(), project.clone()));
    }
    if operation.is_list {
        return output.list(&rows(place, &path, query, matches).await?);
    }
    let mut request = Request::new(operation.method.clone(), &path);
    request.query = query;
    if is_set(matches, "dry_run") {
        request = request.query("dry_run", &true);
    }
    if operation.body.is_some() {
        request.body = Some(Body::Json(body(operation, matches)?));
    }
    if operation.method == Method::GET {
        return read(place, &request, matches, &output).await;
    }
    let answer = place.client.send(&request).await?;
    if operation.id == "drain_host" {
        let waits = is_set(matches, "wait") && !is_set(matches, "dry_run");
        return drain(place, answer.body, waits, &output).await;
    }
    if is_set(matches, "dry_run") {
        output.plan(&answer.body)?;
        return all_well(&answer.body);
    }
    let is_for_many = answer.body["items"].is_array();
    let answer = match is_set(matches, "wait") {
        true if is_for_many => wait::until_all_done(place, answer.body).await?,
        true => wait::until_done(place, &path, answer.body).await?,
        false => answer.body,
    };
    if operation.answers_resource {
        return output.changed(&answer);
    }
    output.record(&answer)?;
    all_well(&answer)
}

/// A host that is emptied: what becomes of each instance there, as it is planned or has come.
async fn drain(place: &Place, answer: Value, waits: bool, output: &Output) -> Result<()> {
    if !waits {
        output.evacuations(&answer)?;
        if let Some(guests) = answer["host"]["maintenance"]["unknown_guests"].as_str() {
            eprintln!("It does not become drained: {}", output::harmless(guests));
        }
        return Ok(());
    }
    let drained = wait::until_drained(place, &answer["host"]).await?;
    output.evacuations(&drained)?;
    wait::is_empty(&drained)?;
    // Somebody may have ended the maintenance meanwhile.
    if drained["host"]["maintenance"]["state"] == "drained" {
        // Names of hosts are names of resources: nothing else than letters, digits and dashes.
        let host = output::plain(&drained["host"]["name"]);
        eprintln!("{host} is empty. When its maintenance is over: cumulo host end-maintenance {host}");
    }
    Ok(())
}

/// # Errors
/// When something was asked for that only the list of the cloud takes, or only that of a project.
fn refuse_flags_of_others(operations: &[&Operation], chosen: &Operation, matches: &ArgMatches) -> Result<()> {
    let others = operations.iter().flat_map(|one| &one.query).filter(|field| !chosen.takes(&field.name));
    for field in others {
        if words(matches, &format!("query:{}", field.name)).is_some() {
            let needed = if chosen.is_in_project() { "it needs" } else { "it does not go with" };
            return Err(Invalid::new(&format!("--{}", field.flag()), format!("{needed} --cloud")).into());
        }
    }
    Ok(())
}

/// # Errors
/// When one of those that a call was for has an error.
fn all_well(answer: &Value) -> Result<()> {
    let all = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
    let failed = all.iter().filter(|item| !item["error"].is_null()).count();
    if failed > 0 {
        bail!(wait::SomeFailed { failed, all: all.len() });
    }
    Ok(())
}

/// An answer that is not JSON goes to the standard output or into a file as it is.
async fn read(place: &Place, request: &Request<'_>, matches: &ArgMatches, output: &Output) -> Result<()> {
    let mut response = place.client.open(request).await?;
    let kind =
        response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (is_json, is_text) = (kind.starts_with("application/json"), kind.starts_with("text/"));
    let file = matches.try_get_one::<String>("file").ok().flatten();
    if is_json && file.is_none() {
        return output.record(&response.json().await?);
    }
    if let Some(path) = file {
        return save(response, path.into()).await;
    }
    let mut stdout = std::io::stdout().lock();
    let is_terminal = std::io::IsTerminal::is_terminal(&stdout);
    if is_terminal && !is_text {
        bail!("this is not text: give --file, or send it to another program");
    }
    while let Some(chunk) = response.chunk().await? {
        if is_terminal {
            stdout.write_all(output::harmless(&String::from_utf8_lossy(&chunk)).as_bytes())?;
        } else {
            stdout.write_all(&chunk)?;
        }
    }
    Ok(())
}

/// The file is there when it is whole, and not before.
async fn save(mut response: reqwest::Response, path: PathBuf) -> Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(".".into(), PathBuf::from);
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let bar = wait::bytes_bar(response.content_length());
    while let Some(chunk) = response.chunk().await? {
        file.write_all(&chunk)?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    file.as_file().sync_all()?;
    file.persist(&path).with_context(|| path.display().to_string())?;
    Ok(())
}

async fn rows(
    place: &Place,
    path: &str,
    query: Vec<(String, String)>,
    matches: &ArgMatches,
) -> Result<Vec<Value>> {
    const PAGE: usize = 500;
    let limit = matches.get_one::<usize>("limit").copied().unwrap_or(usize::MAX);
    let mut query = query;
    query.push(("limit".to_owned(), limit.clamp(1, PAGE).to_string()));
    let (mut pages, mut rows) = (Pages::new(&place.client, path, query), Vec::new());
    while rows.len() < limit
        && let Some(more) = pages.next().await?
    {
        rows.extend(more);
    }
    rows.truncate(limit);
    Ok(rows)
}

fn path(place: &Place, operation: &Operation, matches: &ArgMatches) -> Result<String> {
    let mut path = operation.path.clone();
    if operation.is_in_project() {
        path = path.replace("{project}", &segment(place.project()?));
    }
    for parameter in &operation.parameters {
        let id = format!("at:{parameter}");
        let word = matches.get_one::<String>(&id).context("clap asks for it")?;
        path = path.replace(&format!("{{{parameter}}}"), &segment(word));
    }
    Ok(path)
}

fn body(operation: &Operation, matches: &ArgMatches) -> Result<Value> {
    let mut body = match matches.get_one::<String>("from_file").map(String::as_str) {
        None => Map::new(),
        Some("-") => serde_json::from_reader(std::io::stdin()).context("the standard input")?,
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| path.to_owned())?;
            serde_json::from_reader(std::io::BufReader::new(file)).with_context(|| path.to_owned())?
        }
    };
    for field in operation.body.iter().flatten() {
        if let Some(words) = words(matches, &format!("field:{}", field.name)) {
            body.insert(field.name.clone(), field.value(&words)?);
        } else if matches!(field.kind, Kind::Secret) && field.required && !body.contains_key(&field.name) {
            let secret = rpassword::prompt_password(format!("{}: ", field.name.replace('_', " ")))?;
            body.insert(field.name.clone(), Value::String(secret));
        }
    }
    for name in matches.try_get_many::<String>("unset").ok().flatten().into_iter().flatten() {
        body.insert(name.replace('-', "_"), Value::Null);
    }
    if operation.method == Method::PATCH && body.is_empty() {
        let flags = operation.body.iter().flatten().map(|field| format!("--{}", field.flag()));
        let flags = flags.collect::<Vec<_>>().join(", ");
        return Err(Invalid::new("nothing to change", format!("give {flags}, --unset or --from-file")).into());
    }
    Ok(Value::Object(body))
}

fn words(matches: &ArgMatches, id: &str) -> Option<Vec<String>> {
    Some(matches.try_get_many::<String>(id).ok()??.cloned().collect())
}

fn is_set(matches: &ArgMatches, id: &str) -> bool {
    matches.try_get_one::<bool>(id).ok().flatten() == Some(&true)
}
