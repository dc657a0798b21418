//! The recorded messages of this version and the one before, for tests of whoever speaks with a peer that has not been
//! upgraded; see `protocol/tests/recorded`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

/// Where a version's messages are.
pub fn folder(version: u32) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "recorded", &version.to_string()].iter().collect()
}

/// The recorded messages of this name.
///
/// # Panics
/// When there are none.
pub fn messages(version: u32, name: &str) -> Vec<Value> {
    let file = folder(version).join(format!("{name}.json"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Properties whose texts are chosen from a few; all others hold anything.
const CHOSEN: [&str; 27] = [
    "acceleration",
    "architecture",
    "architectures",
    "boot_order",
    "code",
    "console",
    "direction",
    "disk_bus",
    "features",
    "firmware",
    "format",
    "kind",
    "mode",
    "nic_model",
    "not_taken",
    "on_host_failure",
    "part",
    "paused",
    "power",
    "protocol",
    "reason",
    "request",
    "silent",
    "state",
    "status",
    "step",
    "told",
];

/// What may be said at one place of a message.
#[derive(Debug, Default)]
struct Vocabulary {
    properties: BTreeMap<String, Vocabulary>,
    words: BTreeSet<String>,
}

impl Vocabulary {
    fn learn(&mut self, key: &str, message: &Value) {
        match message {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.properties.entry(name.clone()).or_default().learn(name, value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn(key, item)),
            Value::String(word) if CHOSEN.contains(&key) => drop(self.words.insert(word.clone())),
            _ => {}
        }
    }

    fn unknown(&self, at: &str, key: &str, message: &Value, found: &mut BTreeSet<String>) {
        match message {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = format!("{at}.{name}");
                    match self.properties.get(name) {
                        Some(known) => known.unknown(&path, name, value, found),
                        None => drop(found.insert(path)),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.unknown(at, key, item, found)),
            // A reason is a word of a few where it stands beside a state, and a sentence elsewhere.
            Value::String(word)
                if CHOSEN.contains(&key) && !word.contains(' ') && !self.words.contains(word) =>
            {
                found.insert(format!("{at} = {word}"));
            }
            _ => {}
        }
    }
}

/// What a peer of that version has never heard of in a message of this name: properties, and words for things.
pub fn unknown_to(version: u32, name: &str, message: &Value) -> Vec<String> {
    let mut known = Vocabulary::default();
    messages(version, name).iter().for_each(|message| known.learn("", message));
    let mut found = BTreeSet::new();
    known.unknown(name, "", message, &mut found);
    found.into_iter().collect()
}
