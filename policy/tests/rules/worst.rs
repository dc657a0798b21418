//! How long a decision takes for somebody whose documents were written to make it long.

use std::time::{Duration, Instant};

use policy::{Context, Document, Names, Policy, Request, Resource, evaluate};
use serde_json::{Map, Value, json};

use super::common::VOCABULARY;

/// All that one subject can have: 20 in the project, 20 in the cloud, and 20 that everyone has.
const DOCUMENTS: usize = 60;
const LONGEST: Duration = Duration::from_millis(10);

/// The longest name or label there is.
const TEXT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// As many of these texts in a document as are accepted, spread over statements by `place`.
fn fullest(text: impl Fn(usize) -> String, place: impl Fn(&[String]) -> Value) -> Value {
    let document = |count: usize| {
        let texts: Vec<String> = (0..count).map(&text).collect();
        let statements: Vec<Value> = texts.chunks(200).map(&place).collect();
        json!({"Version": "2012-10-17", "Statement": statements})
    };
    let (mut accepted, mut refused) = (1, 40_000);
    while refused - accepted > 1 {
        let middle = usize::midpoint(accepted, refused);
        match Document::parse(&document(middle), &VOCABULARY) {
            Ok(_) => accepted = middle,
            Err(_) => refused = middle,
        }
    }
    document(accepted)
}

fn resources(texts: &[String]) -> Value {
    json!({"Effect": "Deny", "Action": "*", "Resource": texts})
}

fn condition(operator: &str, key: &str, texts: &[String]) -> Value {
    let condition = Map::from_iter([(operator.to_owned(), json!({key: texts}))]);
    json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition})
}

/// The best of several: what else runs here makes the others longer.
fn best(document: &Value) -> Duration {
    let document = Document::parse(document, &VOCABULARY).expect("accepted");
    let policies: Vec<Policy> = (0..DOCUMENTS).map(|_| Policy::compile(&document)).collect();
    let mut context = Context::default();
    context.set("cumulo:PrincipalName", TEXT);
    context.set("cumulo:ResourceLabel/a", TEXT);
    let keys = (0..32).map(|number| format!("{}{number:02}", &TEXT[2..]).into());
    context.set_many("cumulo:LabelKeys", keys.collect());
    let resource = Resource {
        service: "compute",
        project: Some(Names { name: TEXT, id: Some("01890000-0000-7000-8000-000000000001") }),
        kind: "instance",
        target: Some(Names { name: TEXT, id: Some("01890000-0000-7000-8000-000000000002") }),
    };
    let request = Request { action: "compute:GetInstance", resource, context: &context };
    let times = (0..9).map(|_| {
        let start = Instant::now();
        let decision = evaluate(&policies, &request);
        let time = start.elapsed();
        assert!(!decision.allowed && decision.deciding.is_empty(), "a cheap way out");
        time
    });
    times.min().expect("several")
}

#[test]
#[ignore = "measures; cargo test --release -p policy --test rules -- --ignored --nocapture worst"]
fn the_worst_decision() {
    let many = |length: usize| format!("*{}b*", "a".repeat(length));
    let labels = "cumulo:LabelKeys";
    let cases = [
        ("exact resources", fullest(|n| format!("crn:cumulo:compute:{TEXT}:instance/{n}"), resources)),
        ("short resources", fullest(|_| "crn:cumulo:*:*:i*/b".into(), resources)),
        ("prefixes", fullest(|_| format!("crn:cumulo:*:*:instance/{}b*", &TEXT[1..]), resources)),
        ("suffixes", fullest(|_| format!("crn:cumulo:*:*:*/b{}", &TEXT[1..]), resources)),
        ("wildcards in resources", fullest(|_| format!("crn:cumulo:*:*:instance/{}", many(31)), resources)),
        ("wildcards in projects", fullest(|_| format!("crn:cumulo:*:{}:*", many(31)), resources)),
        (
            "variables in resources",
            fullest(|_| "crn:cumulo:*:*:instance/${cumulo:PrincipalName}b".into(), resources),
        ),
        (
            "several variables",
            fullest(
                |_| format!("crn:cumulo:*:*:instance/*{}b", "${cumulo:PrincipalName}".repeat(8)),
                resources,
            ),
        ),
        (
            "values of a label",
            fullest(|n| n.to_string(), |texts| condition("StringEquals", "cumulo:ResourceLabel/a", texts)),
        ),
        (
            "values in either case",
            fullest(
                |_| format!("{}b", &TEXT[1..]),
                |texts| condition("StringEqualsIgnoreCase", "cumulo:ResourceLabel/a", texts),
            ),
        ),
        (
            "wildcards in values",
            fullest(|_| many(31), |texts| condition("StringLike", "cumulo:ResourceLabel/a", texts)),
        ),
        (
            "several values, exact",
            fullest(|n| n.to_string(), |texts| condition("ForAnyValue:StringEquals", labels, texts)),
        ),
        (
            "several values, either case",
            fullest(
                |_| format!("{}b", &TEXT[1..]),
                |texts| condition("ForAnyValue:StringEqualsIgnoreCase", labels, texts),
            ),
        ),
        (
            "several values, prefixes",
            fullest(
                |_| format!("{}b*", &TEXT[2..]),
                |texts| condition("ForAnyValue:StringLike", labels, texts),
            ),
        ),
        (
            "several values, wildcards",
            fullest(|_| many(12), |texts| condition("ForAnyValue:StringLike", labels, texts)),
        ),
        (
            "several values, short wildcards",
            fullest(|_| many(3), |texts| condition("ForAnyValue:StringLike", labels, texts)),
        ),
        (
            "several values, variables",
            fullest(
                |_| "${cumulo:PrincipalName}b".into(),
                |texts| condition("ForAnyValue:StringLike", labels, texts),
            ),
        ),
    ];
    let mut worst = Duration::ZERO;
    for (name, document) in cases {
        let time = best(&document);
        println!("{name:32} {:6} bytes  {time:>10.1?}", document.to_string().len());
        worst = worst.max(time);
    }
    assert!(worst < LONGEST, "{worst:?}");
}
