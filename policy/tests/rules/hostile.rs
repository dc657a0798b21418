//! Documents by somebody who means no good, or a program that went wrong: never a panic, always a place.

use policy::{Context, Document, Policy, Request, evaluate};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::common::{INSTANCE, VOCABULARY, parse};
use super::examples::DOCUMENTATION;

/// Words that mean something somewhere in a document, and some that do not.
const WORDS: &[&str] = &[
    "*",
    "**",
    "?",
    "",
    ":",
    "/",
    "Allow",
    "Deny",
    "2012-10-17",
    "compute:*",
    "COMPUTE:get*",
    "compute:Get",
    "compute:",
    "crn:cumulo:compute:shop:instance/*",
    "crn:cumulo:*::*",
    "crn:cumulo:iam:*:us?r/${cumulo:PrincipalName}",
    "crn:::::",
    "crn:cumulo:compute:shop:${cumulo:PrincipalName}",
    "${*}",
    "${",
    "${}",
    "$",
    "}",
    "${cumulo:ResourceLabel/a:b/c}",
    "10.0.0.0/8",
    "::ffff:0:0/96",
    "::ffff:0:0/95",
    "::/0",
    "10.0.0.0/-1",
    "true",
    "0",
    "-0",
    "1e400",
    "1767225600",
    "9223372036854775807",
    "2026-01-31T08:00:00Z",
    "2026-01-31T24:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "\u{0}",
    "é",
    "𝄞",
];

/// Names that some object of a document has.
const FIELDS: &[&str] = &[
    "Version",
    "Statement",
    "Sid",
    "Effect",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
    "Principal",
    "StringEquals",
    "StringLike",
    "ForAnyValue:StringNotLikeIfExists",
    "ForAllValues:",
    "Null",
    "NullIfExists",
    "NumericLessThan",
    "DateEquals",
    "Bool",
    "IpAddress",
    "NotIpAddressIfExists",
    "IfExists",
    "ForAnyValue:",
    "",
    "cumulo:PrincipalName",
    "cumulo:LabelKeys",
    "cumulo:SourceIp",
    "cumulo:CurrentTime",
    "cumulo:SecureTransport",
    "compute:Vcpus",
    "cumulo:ResourceLabel/",
    "cumulo:ResourceLabel/a/b~c",
    "cumulo:RequestLabel/é",
];

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => select(WORDS).prop_map(Value::from),
        1 => ".{0,12}".prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((select(FIELDS), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(&str, Value)>) -> Value {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

/// A statement of which some fields are what they should be.
fn statement() -> impl Strategy<Value = Value> {
    let or = |good: &'static str| prop_oneof![2 => Just(Value::from(good)), 1 => anything()];
    let condition = prop::collection::vec(
        (select(FIELDS), prop::collection::vec((select(FIELDS), anything()), 0..3).prop_map(object)),
        0..3,
    );
    let condition = prop_oneof![Just(Value::Null), condition.prop_map(object), anything()];
    let more = prop::collection::vec((select(FIELDS), anything()), 0..2);
    (or("Allow"), or("*"), or("*"), condition, more).prop_map(
        |(effect, action, resource, condition, more)| {
            let mut statement = object(more);
            statement["Effect"] = effect;
            statement["Action"] = action;
            statement["Resource"] = resource;
            if !condition.is_null() {
                statement["Condition"] = condition;
            }
            statement
        },
    )
}

fn document() -> impl Strategy<Value = Value> {
    let statements =
        prop_oneof![statement(), prop::collection::vec(statement(), 0..4).prop_map(Value::from), anything()];
    let whole = statements.prop_map(|statements| json!({"Version": "2012-10-17", "Statement": statements}));
    prop_oneof![8 => whole, 1 => anything()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn every_document_is_either_good_or_faulty_somewhere(source in document()) {
        match Document::parse(&source, &VOCABULARY) {
            Ok(document) => {
                let canonical = serde_json::to_value(&document).expect("serialises");
                prop_assert_eq!(&parse(&canonical), &document);
                let (policy, context) = (Policy::compile(&document), Context::default());
                let request = Request { action: "compute:GetInstance", resource: INSTANCE, context: &context };
                evaluate(&[policy], &request);
            }
            Err(findings) => {
                prop_assert!((1..=50).contains(&findings.len()));
                for finding in findings {
                    // The pointer is to something that is there, or to a field that should be.
                    let parent = finding.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let pointer = if finding.code == "required" { parent } else { &finding.pointer };
                    prop_assert!(source.pointer(pointer).is_some(), "{finding:?}");
                    prop_assert!(!finding.message.is_empty());
                    let documented = DOCUMENTATION.contains(&format!("`{}`", finding.code));
                    prop_assert!(documented, "docs/policies.md says nothing of {}", finding.code);
                }
            }
        }
    }
}
