//! Waits for an operation and shows its steps.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use client::{Error, Operation, Pages};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::contexts::Place;
use crate::output::{harmless, plain};

/// Of several, some were refused or have failed; which is in the table.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {all} did not succeed")]
pub struct SomeFailed {
    pub failed: usize,
    pub all: usize,
}

/// A host could not be emptied altogether; why is in the table.
#[derive(Debug, thiserror::Error)]
pub enum NotEmpty {
    #[error("{remain} of {all} instances are still there")]
    Instances { remain: usize, all: usize },
    #[error("it is not drained: {0}")]
    UnknownGuests(String),
}

/// Whether a host that is emptied, in the shape of what a drain answers, is empty.
///
/// # Errors
/// When something is there.
pub fn is_empty(drained: &Value) -> Result<(), NotEmpty> {
    let rows = drained["evacuations"].as_array().map_or(&[][..], Vec::as_slice);
    let remain = rows.iter().filter(|row| row["phase"] != "left").count();
    if remain > 0 {
        return Err(NotEmpty::Instances { remain, all: rows.len() });
    }
    match drained["host"]["maintenance"]["unknown_guests"].as_str() {
        Some(guests) => Err(NotEmpty::UnknownGuests(guests.to_owned())),
        None => Ok(()),
    }
}

/// Between two looks at a host that is being emptied.
const LOOK: Duration = Duration::from_secs(2);

/// Waits until a host is empty, or until nothing leaves it any more. Gives the host and what has become of each instance, in
/// the shape of what a drain answers at once.
pub async fn until_drained(place: &Place, host: &Value) -> Result<Value> {
    let id = plain(&host["id"]);
    let bar = spinner();
    let mut phases = BTreeMap::new();
    loop {
        let seen = place.client.get(&format!("/v1/hosts/{id}")).await?;
        let maintenance = &seen["maintenance"];
        bar.set_message(format!(
            "{} of {} have left",
            plain(&maintenance["left"]),
            plain(&maintenance["instances"])
        ));
        let path = format!("/v1/hosts/{id}/evacuations");
        let (mut pages, mut rows) = (Pages::new(&place.client, &path, Vec::new()), Vec::new());
        while let Some(more) = pages.next().await? {
            rows.extend(more);
        }
        for line in news(&mut phases, &rows) {
            say(&bar, &line);
        }
        let is_over = |row: &Value| matches!(row["phase"].as_str(), Some("left" | "stays"));
        if maintenance["state"] != "draining" || rows.iter().all(is_over) {
            bar.finish_and_clear();
            return Ok(json!({"host": seen, "evacuations": rows, "more": false}));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is new of each instance since the last look.
fn news(phases: &mut BTreeMap<String, String>, rows: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        let words = |value: &Value| plain(value).replace('_', " ");
        // What it waits for is in the table at the end.
        let way = row["way"].as_str().filter(|_| row["phase"] != "left");
        let phase = words(&row["phase"])
            + &way.map(|way| format!(" ({})", way.replace('_', " "))).unwrap_or_default();
        let name = format!("{}/{}", plain(&row["project"]), plain(&row["instance"]));
        let known = phases.insert(plain(&row["instance"]["id"]), phase.clone());
        if known.as_ref() != Some(&phase) {
            lines.push(format!("  {name}  {phase}"));
        }
    }
    lines
}

/// Above the bar; a hidden one swallows what it is told.
fn say(bar: &ProgressBar, line: &str) {
    let line = harmless(line).into_owned();
    if bar.is_hidden() {
        eprintln!("{line}");
    } else {
        bar.println(line);
    }
}

/// The resource when its work has ended, as it is then; the answer itself where there is nothing to wait for.
pub async fn until_done(place: &Place, path: &str, answer: Value) -> Result<Value> {
    let Some(id) = client::operation_of(&answer) else { return Ok(answer) };
    let bar = spinner();
    let mut shown = 0;
    let seen = |operation: &Operation| {
        for step in operation.trail.iter().skip(shown) {
            let detail = step.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
            let at = step.at.get(11..19).unwrap_or(&step.at);
            say(&bar, &format!("  {at}  {}{detail}", step.step.replace('_', " ")));
        }
        shown = operation.trail.len();
        bar.set_message(message(operation));
    };
    let operation = place.client.wait(place.project()?, id, seen).await?;
    bar.finish_and_clear();
    operation.outcome()?;
    // A name may have changed, an id never does.
    let resource = answer["resource_id"].as_str().or(answer["id"].as_str());
    let Some(resource) = resource else { return Ok(answer) };
    match place.client.get(&resource_path(path, resource)).await {
        Ok(resource) => Ok(resource),
        Err(Error::Refused(problem)) if problem.status == 404 => Ok(Value::Null),
        Err(error) => Err(error.into()),
    }
}

/// Of a call for several instances: waits for the work on each, and puts how it ended into the answer.
pub async fn until_all_done(place: &Place, mut answer: Value) -> Result<Value> {
    let bar = spinner();
    for item in answer["items"].as_array_mut().into_iter().flatten() {
        let Some(id) = client::operation_of(item) else { continue };
        bar.set_message(plain(&item["instance"]));
        let operation = place.client.wait(place.project()?, id, |_| ()).await?;
        item["operation"]["status"] = operation.status.into();
        if let Some(error) = operation.error {
            item["error"] = json!({"code": error.code, "detail": error.detail});
        }
    }
    bar.finish_and_clear();
    Ok(answer)
}

/// Where the resource is, from the path of a call about it: `…/instances`, `…/instances/web`, `…/instances/web/stop`.
fn resource_path(path: &str, id: &str) -> String {
    let segments: Vec<_> = path.split('/').collect();
    // "", v1, projects, the project, the collection
    let collection = segments.get(..5).unwrap_or(&segments).join("/");
    format!("{collection}/{id}")
}

fn message(operation: &Operation) -> String {
    match &operation.progress {
        Some(client_progress) => match client_progress.total_bytes {
            Some(total) => format!("{} of {}", mib(client_progress.bytes), mib(total)),
            None => mib(client_progress.bytes),
        },
        None => format!("{} %", operation.progress_percent),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// For bytes that move; without a length it only counts.
pub fn bytes_bar(total: Option<u64>) -> ProgressBar {
    let template = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    match (total, ProgressStyle::with_template(template)) {
        (Some(total), Ok(style)) => ProgressBar::new(total).with_style(style),
        _ => ProgressBar::new_spinner(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_of_each_instance_of_a_drained_host_is_said_once() {
        let row = |phase: &str, way: Value| json!({"instance": {"id": "1", "name": "web"}, "project": "shop", "phase": phase, "way": way});
        let mut phases = BTreeMap::new();
        let mut said = |row: Value| news(&mut phases, &[row]).concat();
        assert_eq!(said(row("waiting", Value::Null)), "  shop/web  waiting");
        assert_eq!(said(row("waiting", Value::Null)), "");
        assert_eq!(said(row("moving", "migrate".into())), "  shop/web  moving (migrate)");
        assert_eq!(said(row("left", "migrate".into())), "  shop/web  left");
        assert_eq!(said(row("left", "migrate".into())), "");
    }

    #[test]
    fn a_host_is_empty_when_neither_instances_nor_unknown_guests_are_there() {
        let said = |phase: &str, guests: Value| {
            let host = json!({"maintenance": {"unknown_guests": guests}});
            is_empty(&json!({"host": host, "evacuations": [{"phase": "left"}, {"phase": phase}]}))
                .map_err(|e| e.to_string())
        };
        let guests = || json!("1 guest that the cloud does not know runs there");
        assert_eq!(said("left", Value::Null), Ok(()));
        assert_eq!(said("stays", guests()).unwrap_err(), "1 of 2 instances are still there");
        assert_eq!(
            said("left", guests()).unwrap_err(),
            "it is not drained: 1 guest that the cloud does not know runs there"
        );
    }

    #[test]
    fn a_resource_is_found_from_each_call_about_it() {
        for path in
            ["/v1/projects/p/instances", "/v1/projects/p/instances/web", "/v1/projects/p/instances/web/stop"]
        {
            assert_eq!(resource_path(path, "1"), "/v1/projects/p/instances/1");
        }
    }
}
