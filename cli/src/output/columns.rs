//! Which columns a table has.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use crate::fields::Invalid;

/// What people look for first. A column is a path: `image.name`, `nics.addresses.address`.
const CHOSEN: [(&str, &[&str]); 29] = [
    (
        "instance",
        &[
            "project.name",
            "name",
            "state",
            "instance_type.name",
            "image.name",
            "nics.addresses",
            "host.name",
            "created_at",
        ],
    ),
    (
        "instance metrics",
        &[
            "at",
            "cpu_percent",
            "memory_used_bytes",
            "read_bytes_per_second",
            "written_bytes_per_second",
            "received_bytes_per_second",
            "sent_bytes_per_second",
        ],
    ),
    ("scrape-target", &["targets", "labels"]),
    ("instance-action", &["instance.name", "operation.status", "error.code", "error.detail"]),
    ("volume", &["name", "state", "size_gib", "attachment.instance.name", "pool.name", "created_at"]),
    ("snapshot", &["name", "state", "consistency", "instance.name", "volumes.name", "taken_at"]),
    ("snapshot-schedule", &["name", "instance.name", "volume.name", "keep", "paused", "next_at"]),
    ("image", &["name", "state", "visibility", "architecture", "size_bytes", "created_at"]),
    ("network", &["name", "mtu", "is_default", "created_at"]),
    ("subnet", &["name", "network.name", "cidr", "gateway", "dhcp"]),
    ("port", &["name", "status", "network.name", "addresses.address", "mac", "instance.name"]),
    ("router", &["name", "external", "interfaces.address", "created_at"]),
    ("floating-ip", &["name", "address", "fixed_address", "created_at"]),
    ("security-group", &["name", "is_default", "description", "created_at"]),
    ("instance-type", &["name", "vcpus", "memory_mib", "root_disk_gib", "architecture"]),
    (
        "host",
        &[
            "name",
            "state",
            "zone",
            "rack",
            "vcpus",
            "memory_mib",
            "disk_gib",
            "agent_version",
            "agent_outdated",
            "last_seen_at",
        ],
    ),
    ("drift", &["since", "host.name", "code", "about.kind", "about.name", "detail", "repair"]),
    ("host drain", &["project", "instance.name", "phase", "way", "code", "message"]),
    ("evacuation", &["project", "instance.name", "phase", "way", "code", "message"]),
    ("unknown-guest", &["id", "hostname", "project.name", "runs", "vcpus", "memory_mib", "since"]),
    ("operation", &["created_at", "kind", "resource_name", "status", "progress_percent", "id"]),
    ("audit-record", &["at", "principal_name", "action", "resource", "outcome", "request_id"]),
    ("user", &["name", "disabled", "has_second_factor", "created_at"]),
    ("project", &["name", "description", "created_at"]),
    ("policy", &["name", "scope", "managed", "default_version", "description"]),
    ("policy-attachment", &["policy.name", "subject.name", "subject.kind", "created_at", "id"]),
    ("api-key", &["id", "hint", "description", "last_used_at", "expires_at"]),
    ("event", &["position", "at", "kind", "change", "resource_name"]),
    ("quota", &["resource", "used", "limit", "source"]),
];

/// Columns that only some are shown, and only of some lists: they are there when a row says something in them.
const WHEN_SAID: [&str; 5] = ["project.name", "host.name", "zone", "rack", "agent_outdated"];
/// A table of more is hard to read.
const MOST: usize = 6;
/// Rarely what somebody looks for.
const LAST: [&str; 4] = ["id", "generation", "updated_at", "description"];

/// Whether somebody has thought about what a table of these shows.
pub fn are_chosen(noun: &str) -> bool {
    CHOSEN.iter().any(|(name, _)| *name == noun)
}

/// The chosen columns of this noun that the rows have, or the first simple properties of a row.
pub fn of(noun: &str, rows: &[Value]) -> Vec<String> {
    let first = |column: &str| column.split('.').next().unwrap_or_default().to_owned();
    let is_said = |column: &&&str| rows.iter().any(|row| !row[first(column)].is_null());
    let chosen = CHOSEN.iter().find(|(name, _)| *name == noun).map_or(&[][..], |(_, columns)| columns);
    if !chosen.is_empty() {
        let shown = chosen.iter().filter(|column| !WHEN_SAID.contains(column) || is_said(column));
        return shown.map(|column| (*column).to_owned()).collect();
    }
    let Some(row) = rows.first().and_then(Value::as_object) else { return Vec::new() };
    let simple =
        row.iter().filter(|(_, value)| !value.is_object() && !value.is_array()).map(|(name, _)| name.clone());
    let (last, mut first): (Vec<_>, Vec<_>) = simple.partition(|name| LAST.contains(&name.as_str()));
    first.sort_by_key(|name| match name.as_str() {
        "name" => 0,
        "state" | "status" => 1,
        _ => 2,
    });
    first.into_iter().chain(last).take(MOST).collect()
}

/// # Errors
/// When a column begins with what no row has, and none ever can: what may be absent is `known`.
pub fn check(columns: &[String], known: &[String], rows: &[Value]) -> Result<()> {
    let keys = rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys());
    let there: BTreeSet<_> = keys.chain(known).map(String::as_str).collect();
    let is_there = |column: &str| column.split('.').next().is_some_and(|first| there.contains(first));
    let Some(unknown) = columns.iter().find(|column| !is_there(column)) else { return Ok(()) };
    let there = Vec::from_iter(there).join(", ");
    Err(Invalid::new("--columns", format!("there is no '{unknown}'; there are {there}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a schema, through references, lists, and what may be absent.
    fn property<'a>(document: &'a Value, schema: &'a Value, name: &str) -> Option<&'a Value> {
        if let Some(found) = schema["properties"].get(name) {
            return Some(found);
        }
        let referred = schema["$ref"].as_str().and_then(|to| document.pointer(to.strip_prefix('#')?));
        let ways = ["oneOf", "allOf", "anyOf"].into_iter().flat_map(|kind| schema[kind].as_array()).flatten();
        let inner = ways.chain(referred).chain(schema.get("items"));
        inner.into_iter().find_map(|inner| property(document, inner, name))
    }

    #[test]
    fn hosts_and_projects_are_a_column_when_a_row_names_one() {
        let tenant = serde_json::json!({"name": "web", "state": "running"});
        let operator = serde_json::json!({"name": "web", "host": {"id": "1", "name": "host-1"}, "project": {"name": "demo"}});
        let shown = |rows: &[Value]| of("instance", rows).join(" ");
        let usual = "name state instance_type.name image.name nics.addresses";
        assert_eq!(shown(std::slice::from_ref(&tenant)), format!("{usual} created_at"));
        assert_eq!(shown(&[tenant, operator]), format!("project.name {usual} host.name created_at"));
    }

    #[test]
    fn what_no_row_has_just_now_is_a_column_all_the_same() {
        let operations = crate::document::operations();
        let one = |id: &str| operations.iter().find(|one| one.id == id).unwrap();
        let rows = [serde_json::json!({"name": "web", "state": "running"})];
        let refusal = |id: &str, column: &str| {
            check(&[column.to_owned()], &one(id).answers, &rows).map_err(|error| error.to_string()).err()
        };
        for (id, column) in [
            ("list_instances", "state_detail"),
            ("list_instances", "resize.from"),
            ("create_instance", "state_detail"),
            ("drain_host", "code"),
            ("list_host_evacuations", "message"),
            ("list_drift", "repair"),
        ] {
            assert_eq!(refusal(id, column), None, "{id}");
        }
        let refusal = refusal("list_instances", "state_details").unwrap();
        assert!(refusal.starts_with("--columns: there is no 'state_details'; there are "), "{refusal}");
        assert!(refusal.contains(", state_detail, "), "{refusal}");
    }

    #[test]
    fn each_column_is_a_property_of_what_is_listed() {
        let document: Value = serde_json::from_str(crate::document::DOCUMENT).unwrap();
        let operations = crate::document::operations();
        for (noun, columns) in CHOSEN {
            let lists = |one: &&crate::document::Operation| {
                let (last, verb) = (one.named.nouns.last(), one.named.verb.as_str());
                let lists =
                    last.is_some_and(|last| last == noun) && matches!(verb, "list" | "get" | "act-on");
                lists || last.is_some_and(|last| format!("{last} {verb}") == noun)
            };
            let list = operations.iter().find(lists).unwrap_or_else(|| panic!("no list of {noun}"));
            let (method, status) =
                if list.method == client::Method::GET { ("get", "200") } else { ("post", "202") };
            let answer = &document["paths"][&list.path][method]["responses"][status]["content"]["application/json"]
                ["schema"];
            let lists = ["items", "evacuations"];
            let item = lists.iter().find_map(|list| property(&document, answer, list)).unwrap_or(answer);
            for column in columns {
                let found = column.split('.').try_fold(item, |at, name| property(&document, at, name));
                assert!(found.is_some(), "{noun} has no {column}");
            }
        }
    }
}
