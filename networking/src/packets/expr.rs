//! The words of nftables' JSON interface that our rules are made of; see libnftables-json(5).

use serde_json::{Value, json};

use super::drops::DropKind;

/// The statements of one rule, in order.
pub(super) type Rule = Vec<Value>;

/// `then` for packets that all of `matches` hold for.
pub(super) fn rule<const N: usize>(matches: [Value; N], then: Vec<Value>) -> Rule {
    matches.into_iter().chain(then).collect()
}

pub(super) fn eq(left: Value, right: impl Into<Value>) -> Value {
    compare("==", left, right)
}

pub(super) fn ne(left: Value, right: impl Into<Value>) -> Value {
    compare("!=", left, right)
}

pub(super) fn less(left: Value, right: impl Into<Value>) -> Value {
    compare("<", left, right)
}

/// Whether a bit of a field of flags is set.
pub(super) fn has(left: Value, flag: &str) -> Value {
    compare("in", left, flag)
}

fn compare(op: &str, left: Value, right: impl Into<Value>) -> Value {
    let body = Value::from_iter([("op", op.into()), ("left", left), ("right", right.into())]);
    json!({"match": body})
}

pub(super) fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

pub(super) fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

/// Bits behind the transport header's start; `offset` and `len` in bits.
pub(super) fn transport(offset: u32, len: u32) -> Value {
    json!({"payload": {"base": "th", "offset": offset, "len": len}})
}

pub(super) fn extension(name: &str) -> Value {
    json!({"exthdr": {"name": name}})
}

pub(super) fn extension_field(name: &str, field: &str) -> Value {
    json!({"exthdr": {"name": name, "field": field}})
}

pub(super) fn ct(key: &str) -> Value {
    json!({"ct": {"key": key}})
}

/// Of the packet that began the connection, whichever way this one goes.
pub(super) fn ct_original(key: &str) -> Value {
    json!({"ct": {"key": key, "dir": "original"}})
}

pub(super) fn concat<const N: usize>(parts: [Value; N]) -> Value {
    json!({"concat": Vec::from(parts)})
}

pub(super) fn masked(value: &Value, mask: impl Into<Value>) -> Value {
    let mask: Value = mask.into();
    json!({"&": [value, mask]})
}

pub(super) fn any_of<T: Into<Value>>(values: impl IntoIterator<Item = T>) -> Value {
    json!({"set": values.into_iter().map(Into::into).collect::<Vec<Value>>()})
}

pub(super) fn range(first: impl Into<Value>, last: impl Into<Value>) -> Value {
    let (first, last): (Value, Value) = (first.into(), last.into());
    json!({"range": [first, last]})
}

pub(super) fn prefix(address: &str, len: u8) -> Value {
    json!({"prefix": {"addr": address, "len": len}})
}

/// The verdict that a map has for `key`; the rule has no effect if there is none.
pub(super) fn verdict_of(key: &Value, map: &str) -> Vec<Value> {
    vec![json!({"vmap": {"key": key, "data": format!("@{map}")}})]
}

/// What a map has for `key`; a rule with it has no effect if there is none.
pub(super) fn looked_up(key: &Value, map: &str) -> Value {
    json!({"map": {"key": key, "data": format!("@{map}")}})
}

pub(super) fn set_mark(value: impl Into<Value>) -> Value {
    let value: Value = value.into();
    json!({"mangle": {"key": meta("mark"), "value": value}})
}

pub(super) fn set_zone(zone: u16) -> Value {
    json!({"mangle": {"key": ct("zone"), "value": zone}})
}

pub(super) fn jump(chain: &str) -> Vec<Value> {
    vec![json!({"jump": {"target": chain}})]
}

pub(super) fn goto(chain: &str) -> Vec<Value> {
    vec![json!({"goto": {"target": chain}})]
}

pub(super) fn accept() -> Vec<Value> {
    vec![json!({"accept": null})]
}

pub(super) fn ret() -> Vec<Value> {
    vec![json!({"return": null})]
}

/// Drops without a trace.
pub(super) fn discard() -> Vec<Value> {
    vec![json!({"drop": null})]
}

/// Drops, and counts by the kind.
pub(super) fn deny(kind: DropKind) -> Vec<Value> {
    vec![json!({"counter": kind.as_str()}), json!({"drop": null})]
}
