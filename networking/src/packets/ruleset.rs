//! A table as we want it, as values: what is rendered, and what a listing is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::drops::DropKind;
use super::expr::Rule;

/// All our tables have this name; a family or a namespace sets them apart.
pub(super) const TABLE: &str = "cumulo";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Bridge,
    Inet,
}

impl Family {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Inet => "inet",
        }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) counters: BTreeSet<&'static str>,
    pub(super) sets: BTreeMap<String, Set>,
    pub(super) chains: BTreeMap<String, Chain>,
}

#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// Where a chain is called from; the policy is always `accept`, since foreign traffic passes here too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) kind: String,
    pub(super) hook: String,
    pub(super) priority: i64,
}

/// A set, or a map if it has a `data` type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) key: Vec<String>,
    pub(super) data: Option<String>,
    pub(super) interval: bool,
    pub(super) elements: BTreeMap<Vec<Part>, Option<Datum>>,
}

/// One field of an element's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// An interface or a hardware address.
    Word(String),
    Number(u32),
    /// Both ends included.
    Range(u32, u32),
    Net(IpNet),
    /// Not of our making: the JSON text of it.
    Foreign(String),
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Datum {
    Number(u32),
    Address(Ipv4Addr),
    Jump(String),
    Goto(String),
    Foreign(String),
}

impl Table {
    pub(super) fn new(family: Family, kinds: &[DropKind]) -> Self {
        Self {
            family,
            counters: kinds.iter().map(|kind| kind.as_str()).collect(),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }

    pub(super) fn chain(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Chain { base: None, rules });
    }

    pub(super) fn hook(&mut self, name: &str, kind: &str, hook: &str, priority: i64, rules: Vec<Rule>) {
        let base = Base { kind: kind.to_owned(), hook: hook.to_owned(), priority };
        self.chains.insert(name.to_owned(), Chain { base: Some(base), rules });
    }

    /// Declares a set; the same name twice is the same set.
    pub(super) fn set(&mut self, name: impl Into<String>, key: &[&str]) -> &mut Set {
        self.declare(name.into(), key, None, false)
    }

    /// A set whose elements may be prefixes and ranges, of which no two may overlap.
    pub(super) fn intervals(&mut self, name: impl Into<String>, key: &[&str]) -> &mut Set {
        self.declare(name.into(), key, None, true)
    }

    pub(super) fn map(&mut self, name: impl Into<String>, key: &[&str], data: &str) -> &mut Set {
        self.declare(name.into(), key, Some(data), false)
    }

    fn declare(&mut self, name: String, key: &[&str], data: Option<&str>, interval: bool) -> &mut Set {
        self.sets.entry(name).or_insert_with(|| Set {
            key: key.iter().map(|&part| part.to_owned()).collect(),
            data: data.map(str::to_owned),
            interval,
            elements: BTreeMap::new(),
        })
    }
}

impl Set {
    pub(super) fn add<const N: usize>(&mut self, key: [Part; N]) {
        self.elements.insert(key.into(), None);
    }

    pub(super) fn put<const N: usize>(&mut self, key: [Part; N], datum: Datum) {
        self.elements.insert(key.into(), Some(datum));
    }

    /// Whether `other` differs in its elements at most.
    pub(super) fn same_shape(&self, other: &Self) -> bool {
        self.key == other.key && self.data == other.data && self.interval == other.interval
    }
}

impl Part {
    pub(super) fn word(word: impl std::fmt::Display) -> Self {
        Self::Word(word.to_string())
    }

    pub(super) fn range(first: u32, last: u32) -> Self {
        if first == last { Self::Number(first) } else { Self::Range(first, last) }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Word(word) => json!(word),
            Self::Number(number) => json!(number),
            Self::Range(first, last) => json!({"range": [first, last]}),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => json!(net.addr()),
            Self::Net(net) => json!({"prefix": {"addr": net.network(), "len": net.prefix_len()}}),
            Self::Foreign(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        }
    }
}

impl From<IpAddr> for Part {
    fn from(address: IpAddr) -> Self {
        Self::Net(address.into())
    }
}

impl From<Ipv4Addr> for Part {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::from(address).into()
    }
}

impl From<IpNet> for Part {
    fn from(net: IpNet) -> Self {
        Self::Net(net.trunc())
    }
}

impl Datum {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Number(number) => json!(number),
            Self::Address(address) => json!(address),
            Self::Jump(chain) => json!({"jump": {"target": chain}}),
            Self::Goto(chain) => json!({"goto": {"target": chain}}),
            Self::Foreign(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        }
    }
}

/// The element without its data.
pub(super) fn key_json(key: &[Part]) -> Value {
    match key {
        [part] => part.to_json(),
        parts => json!({"concat": parts.iter().map(Part::to_json).collect::<Vec<_>>()}),
    }
}

pub(super) fn element_json(key: &[Part], datum: Option<&Datum>) -> Value {
    match datum {
        None => key_json(key),
        Some(datum) => json!([key_json(key), datum.to_json()]),
    }
}

/// Names a rule by what it says, for the rule's comment: a listing words rules in its own way, so this is what
/// is compared. FNV-1a, 64 bits.
pub(super) fn digest(rule: &Rule) -> String {
    let text = serde_json::to_string(rule).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
