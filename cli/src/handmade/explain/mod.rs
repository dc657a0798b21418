//! Why something is as it is: not placed, stuck, failed, denied.

mod silent;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command};
use client::{Operation, Request, segment};
use serde_json::Value;

use crate::contexts::Place;
use crate::output::{harmless, plain};

/// Resources that name their newest operation.
const RESOURCES: [&str; 3] = ["instance", "volume", "snapshot"];

pub fn command() -> Command {
    let mut command = Command::new("explain")
        .about("Why something is as it is, and what would help")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true);
    for noun in RESOURCES {
        let complete = move |word: &std::ffi::OsStr| crate::complete::names(noun, word);
        let which = Arg::new("which")
            .value_name("NAME")
            .required(true)
            .add(clap_complete::ArgValueCompleter::new(complete));
        command = command.subcommand(
            Command::new(noun)
                .about(format!("State of the {noun}, its reason, and the newest work on it"))
                .arg(which),
        );
    }
    let id = || Arg::new("which").value_name("ID").required(true);
    command
        .subcommand(
            Command::new("operation")
                .about("Every step of an operation with its time, and why it failed")
                .arg(id()),
        )
        .subcommand(
            Command::new("request")
                .about("What was decided about a request, by which policies: the id is in each error")
                .arg(id()),
        )
}

pub async fn run(kind: &str, matches: &ArgMatches) -> Result<()> {
    let place = Place::find(matches)?;
    let which = matches.get_one::<String>("which").context("clap asks for it")?;
    let text = match kind {
        "operation" => trail(&place.client.operation(place.project()?, which).await?),
        "request" => request(&place, which).await?,
        noun => resource(&place, noun, which).await?,
    };
    print!("{}", harmless(&text));
    Ok(())
}

async fn resource(place: &Place, noun: &str, name: &str) -> Result<String> {
    let project = segment(place.project()?);
    let found = place.client.get(&format!("/v1/projects/{project}/{noun}s/{}", segment(name))).await?;
    let words = |value: &Value| plain(value).replace('_', " ");
    let mut text = format!("{noun} {} is {}", plain(&found["name"]), words(&found["state"]));
    if let Some(reason) = found["state_reason"].as_str() {
        text += &format!(": {}", reason.replace('_', " "));
    }
    text.push('\n');
    let details = [&found["state_detail"], &found["placement"]["summary"], &found["lease"]["detail"]];
    for detail in details.into_iter().filter_map(Value::as_str) {
        text += &format!("  {detail}\n");
    }
    if let Some(at) = found["resize"]["confirm_at"].as_str() {
        let from = plain(&found["resize"]["from"]);
        text += &format!(
            "  it was of type {from} before; `cumulo {noun} confirm-resize` or revert-resize, or it is confirmed at {at}\n"
        );
    }
    for rejection in found["placement"]["rejections"].as_array().into_iter().flatten() {
        text += &format!("  {:>5} hosts: {}\n", plain(&rejection["hosts"]), words(&rejection["reason"]));
    }
    let silent = silent::explain(&found, host(place, &found).await.as_ref());
    text += silent.as_deref().unwrap_or_default();
    if let Some(id) = found["operation"]["id"].as_str() {
        let operation = place.client.operation(&project, id).await?;
        // How it was made once says nothing of what it is now.
        if silent.is_none() || operation.status != "succeeded" {
            text += "\n";
            text += &trail(&operation);
        }
    }
    Ok(text)
}

/// Where it is, for those who may read that.
async fn host(place: &Place, found: &Value) -> Option<Value> {
    let id = found["host"]["id"].as_str()?;
    place.client.get(&format!("/v1/hosts/{}", segment(id))).await.ok()
}

fn trail(operation: &Operation) -> String {
    let mut text = format!(
        "{} has {}\n",
        operation.kind.replace('_', " "),
        match operation.status.as_str() {
            "pending" | "running" => "not ended",
            ended => ended,
        }
    );
    for step in &operation.trail {
        let detail = step.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        text += &format!("  {}  {}{detail}\n", step.at, step.step.replace('_', " "));
    }
    if let Some(error) = &operation.error {
        text += &format!(
            "  because: {} ({})\n",
            error.detail.as_deref().unwrap_or("it says no more"),
            error.code
        );
    }
    text
}

async fn request(place: &Place, id: &str) -> Result<String> {
    let path = match place.project() {
        Ok(project) => format!("/v1/projects/{}/audit_records", segment(project)),
        Err(_) => "/v1/audit_records".to_owned(),
    };
    let page =
        place.client.send(&Request::new(client::Method::GET, &path).query("request_id", id)).await?.body;
    let mut text = String::new();
    for record in page["items"].as_array().into_iter().flatten() {
        text += &serde_yaml_ng::to_string(record)?;
        text.push('\n');
    }
    if text.is_empty() {
        text = format!(
            "The audit log that you may read has no record of request {id}. It has what was decided about rights, and \
             every change; not what was refused for another reason.\n"
        );
    }
    Ok(text)
}
