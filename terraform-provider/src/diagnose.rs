//! What people are told, with what to do next and, where the API says so, about which attribute.

use client::{Error, Problem};

use crate::protocol::tfplugin6::attribute_path::{Step, step::Selector};
use crate::protocol::tfplugin6::diagnostic::Severity;
use crate::protocol::tfplugin6::{AttributePath, Diagnostic};

pub fn error(summary: &str, detail: impl Into<String>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error.into(),
        summary: summary.to_owned(),
        detail: detail.into(),
        attribute: None,
    }
}

pub fn warning(summary: &str, detail: impl Into<String>) -> Diagnostic {
    Diagnostic { severity: Severity::Warning.into(), ..error(summary, detail) }
}

pub fn at(pointer: &str, diagnostic: Diagnostic) -> Diagnostic {
    Diagnostic { attribute: Some(path(pointer)), ..diagnostic }
}

/// A JSON pointer, like `/networks/0/port`, as Terraform says it.
pub fn path(pointer: &str) -> AttributePath {
    let step = |(at, part): (usize, &str)| {
        let part = part.replace("~1", "/").replace("~0", "~");
        let selector = match part.parse::<i64>() {
            Ok(number) => Selector::ElementKeyInt(number),
            Err(_) if at == 0 => Selector::AttributeName(part),
            Err(_) => Selector::AttributeName(part),
        };
        Step { selector: Some(selector) }
    };
    AttributePath { steps: pointer.split('/').skip(1).enumerate().map(step).collect() }
}

/// Why a call failed. `knows` says which attributes there are; what the API says about others is said about the whole.
pub fn failure(summary: &str, error: &anyhow::Error, knows: impl Fn(&str) -> bool) -> Vec<Diagnostic> {
    let Some(Error::Refused(problem)) = error.downcast_ref::<Error>() else {
        return vec![self::error(summary, format!("{error:#}"))];
    };
    let whole = self::error(summary, text(problem));
    if problem.errors.is_empty() {
        return vec![whole];
    }
    let about = |field: &client::FieldError| {
        let detail = format!(
            "{}{}\n{} ({}), request {}",
            field.message,
            where_to_go(problem),
            problem.code,
            problem.status,
            problem.request_id
        );
        let first = field.pointer.split('/').nth(1).unwrap_or_default();
        let said = self::error(summary, detail);
        if knows(first) {
            at(&format!("/{first}"), said)
        } else {
            Diagnostic { detail: format!("{}: {}", field.pointer, said.detail), ..said }
        }
    };
    problem.errors.iter().map(about).collect()
}

/// What an apply that was killed has made is not in its state.
fn where_to_go(problem: &Problem) -> String {
    let there_as = match problem.code.as_str() {
        "name_taken" | "subnet_overlaps" => "PROJECT/NAME",
        "duplicate_rule" => "PROJECT/GROUP/RULE, with the id that `cumulo security-group get GROUP` tells",
        "already_attached" => "PROJECT/ID, with the id that `cumulo policy-attachment list` tells",
        _ => return String::new(),
    };
    format!("\nWas an apply cut off? Then take it over: terraform import ADDRESS {there_as}")
}

/// Everything that the API says, and where to go with it.
pub fn text(problem: &Problem) -> String {
    let mut text = problem.to_string();
    for limit in &problem.quota {
        let resource = limit.resource.replace('_', " ");
        text +=
            &format!("\n{resource}: {} of {} used, {} more asked for", limit.used, limit.limit, limit.asked);
    }
    if let Some(denial) = &problem.denial {
        text += &format!("\ndenied: {} on {}", denial.action, denial.resource);
        for by in &denial.statements {
            let policy = by.policy.as_deref().unwrap_or("the API key's own policy");
            let sid = by.sid.as_deref().map(|sid| format!(" ({sid})")).unwrap_or_default();
            text += &format!("\nby {policy}, statement {}{sid}", by.statement);
        }
    }
    text += &where_to_go(problem);
    text + &format!("\n{} ({}), request {}", problem.code, problem.status, problem.request_id)
}
