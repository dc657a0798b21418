//! The same decision, written from AWS's published rules alone and in no hurry: reads the JSON anew for each
//! request, compares strings, and matches patterns by recursion. Shares no code with the evaluator.
//!
//! Sources: "Policy evaluation logic", "IAM JSON policy elements: Condition operators", "Single-valued vs.
//! multivalued context keys" and "Variables and tags" of the AWS IAM user guide; where Cumulo decides
//! something of its own (CRNs, collections, missing variables), `docs/policies.md`.

use std::net::IpAddr;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::question::{Called, Question};

/// The decision, and policy and statement of those that made it.
pub fn decide(documents: &[Value], question: &Question) -> (bool, Vec<(usize, usize)>) {
    let mut denies = Vec::new();
    let mut allows = Vec::new();
    for (policy, document) in documents.iter().enumerate() {
        for (index, statement) in list(&document["Statement"]).into_iter().enumerate() {
            if !applies(statement, question) {
                continue;
            }
            match statement["Effect"].as_str() {
                Some("Deny") => denies.push((policy, index)),
                Some("Allow") => allows.push((policy, index)),
                other => panic!("effect {other:?}"),
            }
        }
    }
    if !denies.is_empty() { (false, denies) } else { (!allows.is_empty(), allows) }
}

fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    list(value).into_iter().map(text).collect()
}

fn applies(statement: &Value, question: &Question) -> bool {
    let action = match (statement.get("Action"), statement.get("NotAction")) {
        (Some(actions), None) => texts(actions).iter().any(|action| is_action(action, question)),
        (None, Some(actions)) => !texts(actions).iter().any(|action| is_action(action, question)),
        _ => panic!("either Action or NotAction"),
    };
    let resource = match (statement.get("Resource"), statement.get("NotResource")) {
        (Some(resources), None) => texts(resources).iter().any(|resource| is_resource(resource, question)),
        (None, Some(resources)) => {
            let listed = texts(resources).iter().any(|resource| is_resource(resource, question));
            let unknown = texts(resources).iter().any(|resource| is_unknown(resource, question));
            // Nothing is allowed because a variable has no value.
            let open = unknown && statement["Effect"] == "Allow";
            !listed && !open
        }
        _ => panic!("either Resource or NotResource"),
    };
    let mut conditions = true;
    if let Some(Value::Object(operators)) = statement.get("Condition") {
        for (operator, keys) in operators {
            for (key, values) in keys.as_object().expect("keys of an operator") {
                conditions = conditions && condition(operator, key, &texts(values), question);
            }
        }
    }
    action && resource && conditions
}

/// A character of a pattern.
#[derive(Clone, Copy)]
enum Symbol {
    Literal(char),
    AnyOne,
    AnyMany,
}

fn glob(pattern: &[Symbol], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([Symbol::AnyMany, rest @ ..], _) => {
            glob(rest, text) || (!text.is_empty() && glob(pattern, &text[1..]))
        }
        ([Symbol::AnyOne, rest @ ..], [_, after @ ..]) => glob(rest, after),
        ([Symbol::Literal(wanted), rest @ ..], [found, after @ ..]) => wanted == found && glob(rest, after),
        _ => false,
    }
}

fn fits(pattern: &[Symbol], text: &str) -> bool {
    glob(pattern, &text.chars().collect::<Vec<_>>())
}

/// The pattern with its variables replaced; `None` if one has no value.
fn substitute(text: &str, wildcards: bool, question: &Question) -> Option<Vec<Symbol>> {
    let mut symbols = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '$' if chars.peek() == Some(&'{') => {
                let name: String = chars.by_ref().skip(1).take_while(|char| *char != '}').collect();
                let value = match name.as_str() {
                    "*" | "?" | "$" => name,
                    key => question.values.get(key)?.first()?.clone(),
                };
                symbols.extend(value.chars().map(Symbol::Literal));
            }
            '*' if wildcards => symbols.push(Symbol::AnyMany),
            '?' if wildcards => symbols.push(Symbol::AnyOne),
            other => symbols.push(Symbol::Literal(other)),
        }
    }
    Some(symbols)
}

fn like(pattern: &str, text: &str, question: &Question) -> bool {
    substitute(pattern, true, question).is_some_and(|pattern| fits(&pattern, text))
}

fn is_action(pattern: &str, question: &Question) -> bool {
    like(&pattern.to_lowercase(), &question.action.to_lowercase(), question)
}

/// Service, project, and what comes after; a colon in a variable separates nothing.
fn segments(pattern: &str) -> [String; 3] {
    let mut segments = vec![String::new()];
    let mut in_variable = false;
    for char in pattern.chars() {
        in_variable = (in_variable || char == '{') && char != '}';
        if char == ':' && !in_variable && segments.len() < 5 {
            segments.push(String::new());
        } else {
            segments.last_mut().expect("one at least").push(char);
        }
    }
    let [_, _, service, project, target] = segments.try_into().expect("five segments");
    [service, project, target]
}

/// Name and id, or what stands for their absence.
fn spellings(called: Option<&Called>, absent: &str) -> Vec<String> {
    match called {
        Some((name, id)) => std::iter::once(name.clone()).chain(id.clone()).collect(),
        None => vec![absent.to_owned()],
    }
}

fn is_resource(pattern: &str, question: &Question) -> bool {
    if pattern == "*" {
        return true;
    }
    let [_, _, target] = segments(pattern);
    is_there(pattern, question)
        && spellings(question.target.as_ref(), "*")
            .iter()
            .any(|name| like(&target, &format!("{}/{name}", question.kind), question))
}

/// Whether service and project match.
fn is_there(pattern: &str, question: &Question) -> bool {
    let [service, project, _] = segments(pattern);
    (service == "*" || service == question.service)
        && spellings(question.project.as_ref(), "").iter().any(|name| like(&project, name, question))
}

/// Whether it takes a variable without a value to know if the pattern matches.
fn is_unknown(pattern: &str, question: &Question) -> bool {
    if pattern == "*" {
        return false;
    }
    let [service, project, target] = segments(pattern);
    let missing = |text: &str| substitute(text, true, question).is_none();
    (service == "*" || service == question.service)
        && (missing(&project) || (is_there(pattern, question) && missing(&target)))
}

fn condition(operator: &str, key: &str, wanted: &[String], question: &Question) -> bool {
    let none = Vec::new();
    let found = question.values.get(key).unwrap_or(&none);
    if operator == "Null" {
        return wanted.iter().any(|wanted| (wanted == "true") == found.is_empty());
    }
    let (set, rest) = match operator.split_once(':') {
        Some((set, rest)) => (set, rest),
        None => ("", operator),
    };
    let (name, if_exists) = match rest.strip_suffix("IfExists") {
        Some(name) => (name, true),
        None => (rest, false),
    };
    if found.is_empty() && if_exists {
        return true;
    }
    let one = |found: &str| {
        if name.contains("Not") {
            // Of several values none may be met.
            let positive = name.replace("Not", "");
            !wanted.iter().any(|wanted| compare(&positive, found, wanted, question))
        } else {
            wanted.iter().any(|wanted| compare(name, found, wanted, question))
        }
    };
    match set {
        "ForAllValues" => found.iter().all(|found| one(found)),
        "ForAnyValue" => found.iter().any(|found| one(found)),
        _ => match found.first() {
            Some(found) => one(found),
            None => name.contains("Not"),
        },
    }
}

fn compare(operator: &str, found: &str, wanted: &str, question: &Question) -> bool {
    let number = |text: &str| text.parse::<f64>().expect("a number");
    match operator {
        "StringEquals" => substitute(wanted, false, question).is_some_and(|wanted| fits(&wanted, found)),
        "StringEqualsIgnoreCase" => substitute(wanted, false, question).is_some_and(|wanted| {
            let wanted: String = wanted
                .iter()
                .map(|symbol| match symbol {
                    Symbol::Literal(char) => *char,
                    _ => panic!("no wildcards here"),
                })
                .collect();
            wanted.to_lowercase() == found.to_lowercase()
        }),
        "StringLike" => like(wanted, found, question),
        "NumericEquals" => number(found) == number(wanted),
        "NumericLessThan" => number(found) < number(wanted),
        "NumericLessThanEquals" => number(found) <= number(wanted),
        "NumericGreaterThan" => number(found) > number(wanted),
        "NumericGreaterThanEquals" => number(found) >= number(wanted),
        "DateEquals" => instant(found) == instant(wanted),
        "DateLessThan" => instant(found) < instant(wanted),
        "DateLessThanEquals" => instant(found) <= instant(wanted),
        "DateGreaterThan" => instant(found) > instant(wanted),
        "DateGreaterThanEquals" => instant(found) >= instant(wanted),
        "Bool" => found == wanted,
        "IpAddress" => in_network(found, wanted),
        other => panic!("operator {other}"),
    }
}

/// Nanoseconds since 1970.
fn instant(text: &str) -> i128 {
    match text.parse::<i128>() {
        Ok(seconds) => seconds * 1_000_000_000,
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).expect("a date").unix_timestamp_nanos(),
    }
}

fn in_network(address: &str, network: &str) -> bool {
    let (network, length) = match network.split_once('/') {
        Some((network, length)) => (network, length.parse().expect("a prefix length")),
        None => (network, if network.contains(':') { 128 } else { 32 }),
    };
    let (address, _, _) = bits(address, 0);
    let (network, length, wide) = bits(network, length);
    // Both as 128 bits: the same family, and the same leading bits.
    address.len() == network.len() && length <= wide && address[..length] == network[..length]
}

/// The bits of an address, with the prefix length and the most that it could be. `::ffff:0:0/96` is IPv4.
fn bits(text: &str, length: usize) -> (Vec<bool>, usize, usize) {
    match text.parse::<IpAddr>().expect("an address") {
        IpAddr::V4(address) => {
            ((0..32).rev().map(|bit| address.to_bits() >> bit & 1 == 1).collect(), length, 32)
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(inner) => bits(&inner.to_string(), length.saturating_sub(96)),
            None => ((0..128).rev().map(|bit| address.to_bits() >> bit & 1 == 1).collect(), length, 128),
        },
    }
}
