//! The authorisation matrix: what the policies that come with Cumulo allow, as a page that people read.
//!
//! `UPDATE_GOLDEN=1 cargo nextest run -p api matrix` writes it anew.

use std::fmt::Write;
use std::sync::Arc;

use policy::{Document, Names, Policy};
use serde_json::Value;

use crate::auth::{ActionInfo, actions, is_decided_in_cloud, vocabulary};
use crate::policies::managed::{self, Managed};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/authorisation-matrix.md");

const HEAD: &str = "\
# Authorisation matrix

What the policies that come with Cumulo allow to somebody who has no other. This page is made from the policies
by a test, which fails when it is old; `UPDATE_GOLDEN=1 cargo nextest run -p api matrix` writes it anew.

| sign | meaning |
|---|---|
| ✓ | allowed |
| – | not allowed by this policy; another one may allow it |
| ✗ | denied, whatever other policies allow |
| (✓) | allowed under conditions, or for some resources: see the notes at the end |
| (✗) | denied under conditions, whatever other policies allow: see the notes at the end |
";

struct Column {
    policy: &'static Managed,
    document: Value,
    compiled: [Arc<Policy>; 1],
}

fn columns() -> Vec<Column> {
    let column = |policy: &'static Managed| {
        let document = policy.document().unwrap();
        let compiled = [Arc::new(Policy::compile(&Document::parse(&document, &vocabulary()).unwrap()))];
        Column { policy, document, compiled }
    };
    managed::ALL.iter().map(column).collect()
}

impl Column {
    /// What the policy says of an action, whatever the resource.
    fn cell(&self, action: &ActionInfo) -> &'static str {
        let project = action.in_project.then_some(Names { name: "shop", id: None });
        let kind = action.kind;
        let foreseen = policy::foresee(&self.compiled, action.name, kind.service(), kind.as_str(), project);
        match foreseen {
            Some(decision) if decision.allowed => "✓",
            Some(decision) if decision.deciding.is_empty() => self.without_allowing(action),
            Some(_) => "✗",
            None => "(✓)",
        }
    }

    /// A policy that allows nothing may still deny something, under conditions.
    fn without_allowing(&self, action: &ActionInfo) -> &'static str {
        let everything = crate::policies::tests::allowing("*");
        let everything = Arc::new(Policy::compile(&Document::parse(&everything, &vocabulary()).unwrap()));
        let both = [everything, Arc::clone(&self.compiled[0])];
        let project = action.in_project.then_some(Names { name: "shop", id: None });
        let kind = action.kind;
        match policy::foresee(&both, action.name, kind.service(), kind.as_str(), project) {
            Some(_) => "–",
            None => "(✗)",
        }
    }
}

fn matrix() -> String {
    let columns = columns();
    let mut page = HEAD.to_owned();
    page.push_str("\n## The policies\n\n| policy | what it is for |\n|---|---|\n");
    for column in &columns {
        writeln!(page, "| `{}` | {} |", column.policy.name, column.policy.description).unwrap();
    }
    let in_cloud = actions::ALL.iter().map(|action| action.name).filter(|name| is_decided_in_cloud(name));
    let in_cloud: Vec<_> = in_cloud.map(|name| format!("`{name}`")).collect();
    writeln!(
        page,
        "\n## In a project\n\nWhen the policy is attached in that project, or for the whole cloud; {} only when it is \
         attached for the whole cloud.",
        in_cloud.join(", ")
    )
    .unwrap();
    tables(&mut page, &columns, true);
    page.push_str("\n## In the cloud as a whole\n\nWhen the policy is attached for the whole cloud.\n");
    tables(&mut page, &columns, false);
    notes(&mut page, &columns);
    page
}

/// One table per kind of resource.
fn tables(page: &mut String, columns: &[Column], in_project: bool) {
    let mut all: Vec<_> = actions::ALL.iter().filter(|action| action.in_project == in_project).collect();
    all.sort_by_key(|action| (action.kind.service(), action.kind.as_str(), action.name));
    for group in all.chunk_by(|a, b| a.kind == b.kind) {
        let kind = group[0].kind;
        writeln!(page, "\n### {} ({})\n", kind.as_str().replace('_', " "), kind.service()).unwrap();
        let names: Vec<_> = columns.iter().map(|column| column.policy.name).collect();
        writeln!(page, "| action | {} |", names.join(" | ")).unwrap();
        writeln!(page, "|---|{}", ":-:|".repeat(names.len())).unwrap();
        for action in group {
            let cells: Vec<_> = columns.iter().map(|column| column.cell(action)).collect();
            writeln!(page, "| `{}` | {} |", action.name, cells.join(" | ")).unwrap();
        }
    }
}

/// The statements that are bound to conditions or to some resources.
fn notes(page: &mut String, columns: &[Column]) {
    page.push_str("\n## Notes\n\nStatements that do not hold always and everywhere:\n\n");
    for column in columns {
        for statement in column.document["Statement"].as_array().unwrap() {
            let resources = words(&statement["Resource"]);
            let conditions = &statement["Condition"];
            if resources == "*" && conditions.is_null() {
                continue;
            }
            let verb = if statement["Effect"] == "Allow" { "allows" } else { "denies" };
            write!(
                page,
                "- `{}`, {}: {verb} on `{resources}`",
                column.policy.name,
                statement["Sid"].as_str().unwrap()
            )
            .unwrap();
            let lines = conditions.as_object().into_iter().flatten().flat_map(|(operator, keys)| {
                let keys = keys.as_object().unwrap().iter();
                keys.map(move |(key, values)| format!("`{key}` {operator} `{}`", words(values)))
            });
            let lines: Vec<_> = lines.collect();
            if !lines.is_empty() {
                write!(page, ", when {}", lines.join(" and ")).unwrap();
            }
            page.push('\n');
        }
    }
}

fn words(values: &Value) -> String {
    let texts: Vec<_> = values.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
    texts.join("` `")
}

#[test]
fn the_authorisation_matrix_is_the_one_that_is_checked_in() {
    let made = matrix();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(PATH, &made).unwrap();
    }
    let checked_in = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        checked_in == made,
        "docs/authorisation-matrix.md is old: UPDATE_GOLDEN=1 cargo nextest run -p api matrix"
    );
}

#[test]
fn every_action_is_in_the_matrix_and_every_policy_has_a_use() {
    let page = matrix();
    for action in actions::ALL {
        assert!(page.contains(&format!("| `{}` |", action.name)), "{}", action.name);
    }
    for column in columns() {
        let cells: Vec<_> = actions::ALL.iter().map(|action| column.cell(action)).collect();
        assert!(cells.iter().any(|cell| *cell != "–"), "{} does nothing", column.policy.name);
        // An explicit denial beats other policies, so one that grants never denies.
        let effects: std::collections::BTreeSet<_> = column.document["Statement"]
            .as_array()
            .unwrap()
            .iter()
            .map(|statement| statement["Effect"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(effects.len(), 1, "{} allows and denies", column.policy.name);
        assert!(!cells.iter().all(|cell| *cell == "✓") || column.policy.name == "administrator");
    }
}

/// What the names of the policies promise, in few words.
#[test]
fn the_policies_keep_what_their_names_promise() {
    let columns = columns();
    let of = |name: &str| columns.iter().find(|column| column.policy.name == name).unwrap();
    let changes = |action: &ActionInfo| {
        let verb = action.name.split(':').nth(1).unwrap();
        !["Get", "List", "Simulate", "Plan"].iter().any(|looks| verb.starts_with(looks))
    };
    for action in actions::ALL {
        assert_eq!(of("administrator").cell(action), "✓", "{}", action.name);
        assert_eq!(
            of("project-owner").cell(action),
            // Who may raise its own limits has none, and what is public is everybody's.
            if action.in_project && !is_decided_in_cloud(action.name) { "✓" } else { "–" },
            "{}",
            action.name
        );
        for reader in ["read-only", "auditor"] {
            assert!(!changes(action) || of(reader).cell(action) == "–", "{reader} {}", action.name);
        }
        let (service, verb) = action.name.split_once(':').unwrap();
        if (verb.starts_with("Get") || verb.starts_with("List")) && service != "audit" {
            assert_eq!(of("read-only").cell(action), "✓", "{}", action.name);
            let seen = of("instance-operator").cell(action) == "✓";
            assert!(seen || !action.in_project || service == "iam", "instance-operator {}", action.name);
        }
        let identity = action.kind.service() == "iam";
        let power = of("power-user").cell(action);
        assert!(power != "✓" || (action.in_project && !identity), "{}", action.name);
        let audit = action.kind.service() == "audit";
        assert!(!audit || of("read-only").cell(action) == "–", "{}", action.name);
    }
}
