//! The rules of conditions: a table per family of operators, missing keys and lists of values.

use std::net::IpAddr;

use policy::{Context, Value};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::macros::datetime;

use super::common::{decide, document, statement};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const NOON: OffsetDateTime = datetime!(2026-01-31 12:00 UTC);

/// A context with a value of each kind.
fn context() -> Context {
    let mut context = Context::default();
    context.set("cumulo:SourceIp", ADDRESS);
    context.set("cumulo:CurrentTime", NOON);
    context.set("cumulo:SecureTransport", true);
    context.set("cumulo:PrincipalName", "Alice");
    context.set("compute:Vcpus", 4);
    context.set("cumulo:ResourceLabel/owner", "Alice");
    context.set("cumulo:ResourceLabel/stars", "*");
    context.set("cumulo:ResourceLabel/city", "Łódź");
    context.set("cumulo:ResourceLabel/city", "Łódź");
    context.set_many("cumulo:LabelKeys", vec!["env".into(), "team".into()]);
    context.set_many("compute:Sizes", vec![1.into(), 8.into()]);
    context.set_many("compute:Addresses", Vec::new());
    context
}

/// Each operator × key × values, and what it says of [`context`].
fn check(rows: impl IntoIterator<Item = (&'static str, &'static str, Json, bool)>) {
    for (operator, key, values, expected) in rows {
        let condition = json!({operator: {key: values}});
        let document = document(statement(&json!({"Condition": condition})));
        assert_eq!(decide(&document, &context()).allowed, expected, "{condition}");
    }
}

#[test]
fn string_operators() {
    let name = "cumulo:PrincipalName";
    check([
        ("StringEquals", name, json!("Alice"), true),
        ("StringEquals", name, json!("alice"), false),
        ("StringEquals", name, json!(["Bob", "Alice"]), true),
        ("StringEquals", name, json!("Al*"), false),
        ("StringEquals", name, json!("${cumulo:ResourceLabel/owner}"), true),
        ("StringEquals", name, json!("${cumulo:PrincipalId}"), false),
        ("StringEquals", "cumulo:ResourceLabel/stars", json!("*"), true),
        ("StringEquals", "cumulo:ResourceLabel/stars", json!("${*}"), true),
        ("StringNotEquals", name, json!("Alice"), false),
        ("StringNotEquals", name, json!("Bob"), true),
        ("StringNotEquals", name, json!(["Bob", "Alice"]), false),
        ("StringNotEquals", name, json!("${cumulo:PrincipalId}"), true),
        ("StringEqualsIgnoreCase", name, json!("aLICE"), true),
        ("StringEqualsIgnoreCase", name, json!("aLICE "), false),
        ("StringEqualsIgnoreCase", name, json!("A${cumulo:PrincipalId}"), false),
        ("StringEqualsIgnoreCase", name, json!("${cumulo:ResourceLabel/owner}"), true),
        ("StringEqualsIgnoreCase", name, json!("ali*"), false),
        ("StringEqualsIgnoreCase", name, json!("al${*}"), false),
        ("StringNotEqualsIgnoreCase", name, json!("${cumulo:ResourceLabel/owner}"), false),
        ("StringNotEqualsIgnoreCase", name, json!("${cumulo:PrincipalId}"), true),
        ("StringNotEqualsIgnoreCase", name, json!("aLICE"), false),
        ("StringNotEqualsIgnoreCase", name, json!("bob"), true),
        ("StringLike", name, json!("A*e"), true),
        ("StringLike", name, json!("A???e"), true),
        ("StringLike", name, json!("A??e"), false),
        ("StringLike", name, json!("a*"), false),
        ("StringLike", name, json!("${cumulo:ResourceLabel/stars}"), false),
        ("StringLike", name, json!("${*}"), false),
        ("StringLike", "cumulo:ResourceLabel/stars", json!("${*}"), true),
        // Characters count, not bytes.
        ("StringLike", "cumulo:ResourceLabel/city", json!("????"), true),
        ("StringLike", "cumulo:ResourceLabel/city", json!("*?ź"), true),
        ("StringLike", "cumulo:ResourceLabel/city", json!("?????"), false),
        ("StringEqualsIgnoreCase", "cumulo:ResourceLabel/city", json!("łÓDŹ"), true),
        // Characters count, not bytes.
        ("StringLike", "cumulo:ResourceLabel/city", json!("????"), true),
        ("StringLike", "cumulo:ResourceLabel/city", json!("*?ź"), true),
        ("StringLike", "cumulo:ResourceLabel/city", json!("?????"), false),
        ("StringEqualsIgnoreCase", "cumulo:ResourceLabel/city", json!("łÓDŹ"), true),
        ("StringNotLike", name, json!("A*"), false),
        ("StringNotLike", name, json!("B*"), true),
        ("StringNotLike", name, json!(["B*", "*e"]), false),
    ]);
}

#[test]
fn numeric_operators() {
    let vcpus = "compute:Vcpus";
    check([
        ("NumericEquals", vcpus, json!(4), true),
        ("NumericEquals", vcpus, json!("4.0"), true),
        ("NumericEquals", vcpus, json!([1, "4"]), true),
        ("NumericEquals", vcpus, json!(5), false),
        ("NumericNotEquals", vcpus, json!(5), true),
        ("NumericNotEquals", vcpus, json!([5, 4]), false),
        ("NumericLessThan", vcpus, json!(4), false),
        ("NumericLessThan", vcpus, json!(4.5), true),
        ("NumericLessThanEquals", vcpus, json!(4), true),
        ("NumericLessThanEquals", vcpus, json!(3), false),
        ("NumericGreaterThan", vcpus, json!(4), false),
        ("NumericGreaterThan", vcpus, json!(-4), true),
        ("NumericGreaterThanEquals", vcpus, json!(4), true),
        ("NumericGreaterThanEquals", vcpus, json!(5), false),
    ]);
}

#[test]
fn date_operators() {
    let time = "cumulo:CurrentTime";
    let (same, epoch, later) = ("2026-01-31T13:00:00+01:00", NOON.unix_timestamp(), "2026-01-31T12:00:01Z");
    check([
        ("DateEquals", time, json!(same), true),
        ("DateEquals", time, json!(epoch), true),
        ("DateEquals", time, json!(epoch.to_string()), true),
        ("DateEquals", time, json!(later), false),
        ("DateNotEquals", time, json!(same), false),
        ("DateNotEquals", time, json!(later), true),
        ("DateLessThan", time, json!(later), true),
        ("DateLessThan", time, json!(same), false),
        ("DateLessThanEquals", time, json!(same), true),
        ("DateLessThanEquals", time, json!(epoch - 1), false),
        ("DateGreaterThan", time, json!(epoch - 1), true),
        ("DateGreaterThan", time, json!(same), false),
        ("DateGreaterThanEquals", time, json!(same), true),
        ("DateGreaterThanEquals", time, json!(later), false),
    ]);
}

#[test]
fn bool_and_null() {
    let tls = "cumulo:SecureTransport";
    check([
        ("Bool", tls, json!(true), true),
        ("Bool", tls, json!("true"), true),
        ("Bool", tls, json!("false"), false),
        ("Bool", tls, json!([false, "true"]), true),
        ("Null", tls, json!(true), false),
        ("Null", tls, json!("false"), true),
        ("Null", "cumulo:MultiFactorAuthAge", json!("true"), true),
        ("Null", "cumulo:MultiFactorAuthAge", json!(false), false),
        ("Null", "cumulo:LabelKeys", json!(false), true),
        // An empty list is no value at all.
        ("Null", "compute:Addresses", json!(true), true),
    ]);
}

#[test]
fn addresses() {
    for (address, operator, networks, expected) in [
        ("192.0.2.7", "IpAddress", json!("192.0.2.0/24"), true),
        ("192.0.2.7", "IpAddress", json!("192.0.2.7"), true),
        ("192.0.2.7", "IpAddress", json!("192.0.2.9/24"), true),
        ("192.0.2.7", "IpAddress", json!("192.0.2.8"), false),
        ("192.0.2.7", "IpAddress", json!(["10.0.0.0/8", "192.0.2.0/24"]), true),
        ("192.0.2.7", "NotIpAddress", json!(["10.0.0.0/8", "192.0.2.0/24"]), false),
        ("192.0.2.7", "NotIpAddress", json!("10.0.0.0/8"), true),
        ("192.0.2.7", "IpAddress", json!("::/0"), false),
        ("192.0.2.7", "IpAddress", json!("0.0.0.0/0"), true),
        ("2001:db8::7", "IpAddress", json!("2001:db8::/32"), true),
        ("2001:db8::7", "IpAddress", json!("0.0.0.0/0"), false),
        ("2001:db8::7", "IpAddress", json!("2001:DB8:0::7"), true),
        // The same address in IPv6 clothes, on either side.
        ("::ffff:192.0.2.7", "IpAddress", json!("192.0.2.0/24"), true),
        ("192.0.2.7", "IpAddress", json!("::ffff:192.0.2.0/120"), true),
        ("::ffff:192.0.2.7", "IpAddress", json!("::ffff:192.0.2.7"), true),
        ("::ffff:192.0.2.7", "IpAddress", json!("::ffff:192.0.3.0/120"), false),
    ] {
        let mut context = Context::default();
        context.set("cumulo:SourceIp", address.parse::<IpAddr>().unwrap());
        let condition = json!({operator: {"cumulo:SourceIp": networks}});
        let document = document(statement(&json!({"Condition": condition})));
        assert_eq!(decide(&document, &context).allowed, expected, "{address} {condition}");
    }
}

#[test]
fn a_missing_key_fails_positive_operators_and_passes_negated_ones() {
    let time = json!("2026-01-31T12:00:00Z");
    for (operator, key, value, missing) in [
        ("StringEquals", "compute:Image", json!("x"), false),
        ("StringNotEquals", "compute:Image", json!("x"), true),
        ("StringEqualsIgnoreCase", "compute:Image", json!("x"), false),
        ("StringNotEqualsIgnoreCase", "compute:Image", json!("x"), true),
        ("StringLike", "compute:Image", json!("*"), false),
        ("StringNotLike", "compute:Image", json!("*"), true),
        ("NumericEquals", "compute:MemoryMib", json!(1), false),
        ("NumericNotEquals", "compute:MemoryMib", json!(1), true),
        ("NumericLessThan", "compute:MemoryMib", json!(1), false),
        ("NumericLessThanEquals", "compute:MemoryMib", json!(1), false),
        ("NumericGreaterThan", "compute:MemoryMib", json!(1), false),
        ("NumericGreaterThanEquals", "compute:MemoryMib", json!(1), false),
        ("DateEquals", "cumulo:CurrentTime", time.clone(), false),
        ("DateNotEquals", "cumulo:CurrentTime", time.clone(), true),
        ("DateLessThan", "cumulo:CurrentTime", time.clone(), false),
        ("DateLessThanEquals", "cumulo:CurrentTime", time.clone(), false),
        ("DateGreaterThan", "cumulo:CurrentTime", time.clone(), false),
        ("DateGreaterThanEquals", "cumulo:CurrentTime", time, false),
        ("Bool", "cumulo:SecureTransport", json!(false), false),
        ("IpAddress", "cumulo:SourceIp", json!("0.0.0.0/0"), false),
        ("NotIpAddress", "cumulo:SourceIp", json!("0.0.0.0/0"), true),
        ("ForAnyValue:StringEquals", "cumulo:LabelKeys", json!("x"), false),
        ("ForAnyValue:StringNotEquals", "cumulo:LabelKeys", json!("x"), false),
        ("ForAllValues:StringEquals", "cumulo:LabelKeys", json!("x"), true),
        ("ForAllValues:StringNotEquals", "cumulo:LabelKeys", json!("x"), true),
    ] {
        let allowed = |operator: &str, context: &Context| {
            let condition = json!({operator: {key: value.clone()}});
            decide(&document(statement(&json!({"Condition": condition}))), context).allowed
        };
        let nothing = Context::default();
        assert_eq!(allowed(operator, &nothing), missing, "{operator}");
        assert!(allowed(&format!("{operator}IfExists"), &nothing), "{operator}IfExists");
        let mut empty = Context::default();
        empty.set_many(key, Vec::new());
        assert_eq!(allowed(operator, &empty), missing, "{operator}, empty");
    }
}

#[test]
fn if_exists_changes_nothing_for_a_key_that_exists() {
    check([
        ("StringEqualsIfExists", "cumulo:PrincipalName", json!("Bob"), false),
        ("StringNotEqualsIfExists", "cumulo:PrincipalName", json!("Alice"), false),
        ("NumericLessThanIfExists", "compute:Vcpus", json!(4), false),
        ("BoolIfExists", "cumulo:SecureTransport", json!(false), false),
        ("ForAnyValue:StringEqualsIfExists", "cumulo:LabelKeys", json!("x"), false),
        ("StringEqualsIfExists", "cumulo:PrincipalName", json!("Alice"), true),
    ]);
}

#[test]
fn set_operators() {
    let labels = "cumulo:LabelKeys"; // env, team
    check([
        ("ForAnyValue:StringEquals", labels, json!("env"), true),
        ("ForAnyValue:StringEquals", labels, json!("x"), false),
        ("ForAnyValue:StringLike", labels, json!("t*"), true),
        ("ForAllValues:StringEquals", labels, json!("env"), false),
        ("ForAllValues:StringEquals", labels, json!(["env", "team", "x"]), true),
        ("ForAllValues:StringLike", labels, json!("*e*"), true),
        ("ForAnyValue:StringNotEquals", labels, json!("env"), true),
        ("ForAnyValue:StringNotEquals", labels, json!(["env", "team"]), false),
        ("ForAllValues:StringNotEquals", labels, json!("env"), false),
        ("ForAllValues:StringNotEquals", labels, json!("x"), true),
        ("ForAnyValue:NumericGreaterThan", "compute:Sizes", json!(4), true),
        ("ForAllValues:NumericGreaterThan", "compute:Sizes", json!(4), false),
        ("ForAllValues:NumericLessThanEquals", "compute:Sizes", json!(8), true),
        ("ForAllValues:IpAddress", "compute:Addresses", json!("10.0.0.0/8"), true),
        ("ForAnyValue:IpAddress", "compute:Addresses", json!("10.0.0.0/8"), false),
    ]);
}

#[test]
fn keys_and_operators_are_all_required() {
    for (condition, expected) in [
        (
            json!({"StringEquals": {"cumulo:PrincipalName": "Alice"}, "Bool": {"cumulo:SecureTransport": true}}),
            true,
        ),
        (
            json!({"StringEquals": {"cumulo:PrincipalName": "Alice"}, "Bool": {"cumulo:SecureTransport": false}}),
            false,
        ),
        (
            json!({"StringEquals": {"cumulo:PrincipalName": "Alice", "cumulo:ResourceLabel/owner": "Alice"}}),
            true,
        ),
        (
            json!({"StringEquals": {"cumulo:PrincipalName": "Alice", "cumulo:ResourceLabel/owner": "Bob"}}),
            false,
        ),
    ] {
        let document = document(statement(&json!({"Condition": condition})));
        assert_eq!(decide(&document, &context()).allowed, expected, "{condition}");
    }
}

#[test]
fn a_value_of_another_kind_equals_nothing() {
    let mut context = Context::default();
    context.set("compute:Vcpus", "4");
    for (operator, expected) in [
        ("NumericEquals", false),
        ("NumericNotEquals", true),
        ("NumericLessThanEquals", false),
        ("NumericEqualsIfExists", false),
    ] {
        let document = document(statement(&json!({"Condition": {operator: {"compute:Vcpus": 4}}})));
        assert_eq!(decide(&document, &context).allowed, expected, "{operator}");
    }
    context.set("compute:Vcpus", f64::NAN);
    let document =
        document(statement(&json!({"Condition": {"NumericLessThanEquals": {"compute:Vcpus": 4}}})));
    assert!(!decide(&document, &context).allowed);
}

#[test]
fn a_context_remembers_what_was_set_last() {
    let condition = json!({"StringEquals": {"cumulo:ResourceLabel/env": "prod"}});
    let document = document(statement(&json!({"Condition": condition})));
    let mut context = Context::default();
    context.set("cumulo:ResourceLabel/env", "prod");
    assert!(decide(&document, &context).allowed);
    context.set("cumulo:ResourceLabel/env", Value::String("test".to_owned()));
    assert!(!decide(&document, &context).allowed);
    context.set("cumulo:ResourceLabel/env", "prod");
    context.set_many("cumulo:ResourceLabel/env", Vec::new());
    assert!(!decide(&document, &context).allowed);
}
