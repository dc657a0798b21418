//! What `nft -n -j list table` says, read into the values that we render.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ruleset::{Base, Datum, Part, Set};

/// A table that is there.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Packets and bytes.
    pub(super) counters: BTreeMap<String, (u64, u64)>,
    pub(super) sets: BTreeMap<String, Set>,
    pub(super) chains: BTreeMap<String, SeenChain>,
}

#[derive(Debug, Default)]
pub(super) struct SeenChain {
    pub(super) base: Option<Base>,
    /// The rules' comments; empty for a rule without one, which is not ours.
    pub(super) digests: Vec<String>,
}

/// Reads a listing; what is none is an empty table.
pub(super) fn read(listing: &Value) -> Seen {
    let mut seen = Seen::default();
    for item in listing["nftables"].as_array().into_iter().flatten() {
        let Some((kind, body)) = item.as_object().and_then(|item| item.iter().next()) else { continue };
        let name = text(&body["name"]);
        match kind.as_str() {
            "counter" => {
                let count = |key: &str| body[key].as_u64().unwrap_or_default();
                seen.counters.insert(name, (count("packets"), count("bytes")));
            }
            // Meters, which some versions list as sets, are filled by the kernel.
            "set" | "map" if !has_flag(body, "dynamic") => {
                seen.sets.insert(name, set(body));
            }
            "chain" => {
                let base = body["hook"].is_string().then(|| Base {
                    kind: text(&body["type"]),
                    hook: text(&body["hook"]),
                    priority: body["prio"].as_i64().unwrap_or_default(),
                });
                // A policy of ours would be `accept`; any other is a chain that is not.
                let base = base.filter(|_| body["policy"] == "accept");
                seen.chains.entry(name).or_default().base = base;
            }
            "rule" => {
                let chain = seen.chains.entry(text(&body["chain"])).or_default();
                chain.digests.push(text(&body["comment"]));
            }
            _ => {}
        }
    }
    seen
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn has_flag(set: &Value, flag: &str) -> bool {
    set["flags"].as_array().into_iter().flatten().any(|found| found == flag)
}

fn set(body: &Value) -> Set {
    let key: Vec<String> = match &body["type"] {
        Value::Array(parts) => parts.iter().map(text).collect(),
        one => vec![text(one)],
    };
    let data = body["map"].as_str().map(str::to_owned);
    let mut elements = BTreeMap::new();
    for element in body["elem"].as_array().into_iter().flatten() {
        match (&data, element) {
            (Some(data), Value::Array(pair)) if pair.len() == 2 => {
                elements.insert(parts(&key, &pair[0]), Some(datum(data, &pair[1])));
            }
            (Some(_), other) => {
                elements.insert(vec![Part::Foreign(other.to_string())], None);
            }
            (None, other) => {
                elements.insert(parts(&key, other), None);
            }
        }
    }
    Set { key, data, interval: has_flag(body, "interval"), elements }
}

fn parts(key: &[String], value: &Value) -> Vec<Part> {
    match value["concat"].as_array() {
        Some(values) if values.len() == key.len() => {
            key.iter().zip(values).map(|(kind, value)| part(kind, value)).collect()
        }
        _ => vec![part(key.first().map_or("", String::as_str), value)],
    }
}

fn part(kind: &str, value: &Value) -> Part {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let read = match (kind, value) {
        ("ipv4_addr" | "ipv6_addr", Value::String(address)) => {
            address.parse::<std::net::IpAddr>().ok().map(Part::from)
        }
        ("ipv4_addr" | "ipv6_addr", value) => {
            let prefix = &value["prefix"];
            let len = prefix["len"].as_u64().and_then(|len| u8::try_from(len).ok());
            let address = prefix["addr"].as_str().and_then(|address| address.parse().ok());
            address.zip(len).and_then(|(address, len)| ipnet::IpNet::new(address, len).ok()).map(Part::Net)
        }
        ("ifname" | "ether_addr", Value::String(word)) => Some(Part::word(word)),
        (_, Value::Number(_)) => number(value).map(Part::Number),
        (_, value) => match value["range"].as_array().map(Vec::as_slice) {
            Some([first, last]) => {
                number(first).zip(number(last)).map(|(first, last)| Part::range(first, last))
            }
            _ => None,
        },
    };
    read.unwrap_or_else(|| Part::Foreign(value.to_string()))
}

fn datum(kind: &str, value: &Value) -> Datum {
    let read = match kind {
        "verdict" => {
            let target = |verb: &str| value[verb]["target"].as_str().map(str::to_owned);
            target("jump").map(Datum::Jump).or_else(|| target("goto").map(Datum::Goto))
        }
        "ipv4_addr" => value.as_str().and_then(|address| address.parse().ok()).map(Datum::Address),
        _ => value.as_u64().and_then(|number| u32::try_from(number).ok()).map(Datum::Number),
    };
    read.unwrap_or_else(|| Datum::Foreign(value.to_string()))
}
