//! Completes words, also with the names that are in the cloud.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use client::Request;
use serde_json::Value;

use crate::contexts::Place;
use crate::document;
use crate::names::singular;

/// Nobody waits longer for a name.
const PATIENCE: Duration = Duration::from_millis(800);

pub fn among(choices: &[String], word: &OsStr) -> Vec<CompletionCandidate> {
    let word = word.to_string_lossy();
    choices.iter().filter(|choice| choice.starts_with(&*word)).map(CompletionCandidate::new).collect()
}

/// The names of the resources that a parameter or a field is called after. None, when the cloud does not say.
pub fn names(noun: &str, word: &OsStr) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let listed = runtime.block_on(async { tokio::time::timeout(PATIENCE, list(noun)).await });
    let names = listed.ok().flatten().unwrap_or_default();
    among(&names, word)
}

async fn list(noun: &str) -> Option<Vec<String>> {
    let noun = singular(noun);
    let operations = document::operations();
    let mut lists = operations
        .iter()
        .filter(|one| one.is_list && one.parameters.is_empty() && one.named.nouns == [noun.clone()]);
    let list = lists.next_back()?;
    let place = Place::find(&given()).ok()?;
    let path = match list.is_in_project() {
        true => list.path.replace("{project}", &client::segment(place.project().ok()?)),
        false => list.path.clone(),
    };
    let page =
        place.client.send(&Request::new(client::Method::GET, &path).query("limit", &500)).await.ok()?.body;
    let name = |item: &Value| item["name"].as_str().or(item["id"].as_str()).map(str::to_owned);
    Some(page["items"].as_array()?.iter().filter_map(name).collect())
}

/// What stands on the unfinished command line about the place.
fn given() -> clap::ArgMatches {
    let global = clap::Command::new("cumulo").ignore_errors(true).args(crate::commands::global());
    let mut words = std::env::args().skip_while(|word| word != "--").skip(2);
    let mut known = vec!["cumulo".to_owned()];
    while let Some(word) = words.next() {
        match word.as_str() {
            "-p" | "--project" | "--context" => known.extend([word, words.next().unwrap_or_default()]),
            _ if word.starts_with("--project=") || word.starts_with("--context=") => known.push(word),
            _ => {}
        }
    }
    global.get_matches_from(known)
}
