//! One resource, and the plan of one that would be made.

use anyhow::Result;
use serde_json::Value;

use super::{harmless, plain, table};

/// What people look for first; the rest is in alphabetical order.
const FIRST: [&str; 8] =
    ["name", "id", "state", "state_reason", "state_detail", "status", "failure", "description"];

/// One line for each simple property, then what holds more.
pub fn render(answer: &Value) -> Result<String> {
    let Some(object) = answer.as_object() else { return Ok(format!("{}\n", plain(answer))) };
    let is_simple = |value: &Value| match value {
        Value::Array(items) => items.iter().all(|item| !item.is_object()),
        // Another resource in short.
        Value::Object(inner) => inner.len() <= 2 && inner.contains_key("name"),
        _ => true,
    };
    let shown = object.iter().filter(|(name, value)| *name != "plan" && !value.is_null() && !is_empty(value));
    let (mut simple, nested): (Vec<_>, Vec<_>) = shown.partition(|(_, value)| is_simple(value));
    simple.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    let width = simple.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in simple {
        let value = plain(value);
        let value = if value.contains('\n') {
            format!("\n    {}", value.trim_end().replace('\n', "\n    "))
        } else {
            value
        };
        text += &format!("{:width$}  {}\n", name.replace('_', " "), harmless(&value));
    }
    for (name, value) in nested {
        let inner = serde_yaml_ng::to_string(value)?;
        text += &format!("\n{}:\n  {}\n", name.replace('_', " "), inner.trim_end().replace('\n', "\n  "));
    }
    Ok(text)
}

/// Whether and why not a host would take it, and what it would add to what the project uses.
pub fn render_plan(plan: &Value) -> String {
    let mut text = String::new();
    if let Some(placeable) = plan["placeable"].as_bool() {
        let why = plan["placement"]["summary"].as_str().unwrap_or("no host takes it now");
        text += if placeable { "A host would take it now.\n" } else { why };
        text = text.trim_end().to_owned() + "\n";
    }
    if let Some(quota) = plan["quota"].as_array().filter(|quota| !quota.is_empty()) {
        let columns = ["resource", "used", "after", "limit"].map(str::to_owned);
        text += &format!("\n{}\n", table::render(&columns, quota));
    }
    text
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(|object| object.is_empty())
        || value == ""
}
