//! What is said when a command fails, and with which code it ends.

use client::{Error, Failed, Problem};

use crate::output::harmless;
use crate::wait::{NotEmpty, SomeFailed};

/// Says why, and what to do next: `list` is the command that shows what there is. The exit code is documented in the
/// program's help.
pub fn report(error: &anyhow::Error, list: Option<&str>) -> u8 {
    let mut text = match error.downcast_ref::<Error>() {
        Some(Error::Refused(problem)) => refusal(problem),
        _ => format!("error: {error:#}\n"),
    };
    let code = code(error);
    if let (3, Some(list)) = (code, list) {
        text += &format!("  what there is: {list}\n");
    }
    eprint!("{}", harmless(&text));
    code
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Failed>() || error.is::<SomeFailed>() || error.is::<NotEmpty>() {
        return 7;
    }
    if error.is::<crate::fields::Invalid>() {
        return 2;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::NotSignedIn(_)) => 4,
        Some(Error::Unreachable { .. } | Error::Foreign { .. }) => 6,
        Some(Error::Refused(problem)) => match (problem.status, problem.code.as_str()) {
            (_, "quota_exceeded") => 5,
            (400 | 422, _) => 2,
            (401 | 403, _) => 4,
            (404, _) => 3,
            (409 | 412, _) => 5,
            (429 | 502..=504, _) => 6,
            _ => 1,
        },
        _ => 1,
    }
}

fn refusal(problem: &Problem) -> String {
    let mut text = format!("error: {problem}\n");
    for field in &problem.errors {
        text += &format!("  {}: {}\n", place(&field.pointer), field.message);
    }
    for limit in &problem.quota {
        let resource = limit.resource.replace('_', " ");
        text += &format!(
            "  {resource}: {} of {} used, {} more asked for\n",
            limit.used, limit.limit, limit.asked
        );
    }
    if let Some(denial) = &problem.denial {
        text += &format!("  denied: {} on {}\n", denial.action, denial.resource);
        for by in &denial.statements {
            let policy = by.policy.as_deref().unwrap_or("the API key's own policy");
            let version = by.version.map(|version| format!(", version {version}")).unwrap_or_default();
            let sid = by.sid.as_deref().map(|sid| format!(" ({sid})")).unwrap_or_default();
            text += &format!("  by {policy}{version}, statement {}{sid}\n", by.statement);
        }
        if denial.denied_by_api_key_policy {
            text += "  the API key's own policy does not allow it\n";
        }
    }
    text + &format!("  {} ({}), request {}\n", problem.code, problem.status, problem.request_id)
}

/// `/networks/0/port` is `--networks, 0/port`: what people have written, and where in it.
fn place(pointer: &str) -> String {
    let pointer = pointer.trim_start_matches('/');
    let (field, within) =
        pointer.split_once('/').map_or((pointer, None), |(field, rest)| (field, Some(rest)));
    let flag = format!("--{}", crate::names::kebab(field));
    within.map_or_else(|| flag.clone(), |within| format!("{flag}, {within}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_where_why_and_whom_to_ask_with_what() {
        let problem = json!({"type": "about:blank", "status": 403, "code": "forbidden", "title": "Not allowed",
            "detail": "a policy denies it", "request_id": "01a2",
            "errors": [{"pointer": "/networks/0/port", "code": "not_found", "message": "there is no such port"},
                       {"pointer": "/root_disk_gib", "code": "out_of_range", "message": "at least 1"}],
            "quota": [{"resource": "memory_mib", "limit": 8, "used": 7, "asked": 2}],
            "denial": {"action": "compute:DeleteInstance", "resource": "crn:cumulo:compute:shop:instance/db",
                       "denied_by_api_key_policy": false,
                       "statements": [{"policy": "keep", "version": 2, "statement": 0, "sid": "Keep"}]}});
        let problem = serde_json::from_value(problem).unwrap();
        insta::assert_snapshot!(refusal(&problem), @r"
        error: a policy denies it
          --networks, 0/port: there is no such port
          --root-disk-gib: at least 1
          memory mib: 7 of 8 used, 2 more asked for
          denied: compute:DeleteInstance on crn:cumulo:compute:shop:instance/db
          by keep, version 2, statement 0 (Keep)
          forbidden (403), request 01a2
        ");
        assert_eq!(code(&client::Error::Refused(Box::new(problem)).into()), 4);
        assert_eq!(code(&NotEmpty::Instances { remain: 1, all: 2 }.into()), 7);
    }
}
