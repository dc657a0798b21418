//! From the table that is there to the one that is wanted: the commands of one transaction.

use serde_json::{Value, json};

use super::ruleset::{Chain, Family, Set, TABLE, Table, digest, element_json, key_json};
use super::seen::{Seen, SeenChain};

/// No commands if nothing is to be done. Elements come and go one by one; a chain that differs is written anew; a
/// table with a set or a hook of another shape is made anew.
pub(super) fn plan(want: &Table, seen: Option<&Seen>) -> Vec<Value> {
    let commands = Commands { family: want.family.as_str(), list: Vec::new() };
    match seen {
        None => commands.create(want),
        Some(seen) if !fits(want, seen) => [vec![delete(want.family)], commands.create(want)].concat(),
        Some(seen) => commands.change(want, seen),
    }
}

/// The command that takes our table away, which is there.
pub(super) fn delete(family: Family) -> Value {
    json!({"delete": {"table": {"family": family.as_str(), "name": TABLE}}})
}

fn fits(want: &Table, seen: &Seen) -> bool {
    let sets =
        want.sets.iter().all(|(name, set)| seen.sets.get(name).is_none_or(|seen| set.same_shape(seen)));
    let wanted = want.chains.iter().all(|(name, chain)| {
        // A chain without rules may still lack its hook: what is not there yet is added.
        seen.chains.get(name).is_none_or(|seen| seen.base == chain.base)
    });
    let foreign =
        seen.chains.iter().any(|(name, chain)| chain.base.is_some() && !want.chains.contains_key(name));
    sets && wanted && !foreign
}

struct Commands {
    family: &'static str,
    list: Vec<Value>,
}

impl Commands {
    fn push(&mut self, verb: &str, kind: &str, mut body: Value) {
        body["family"] = self.family.into();
        if kind != "table" {
            body["table"] = TABLE.into();
        }
        self.list.push(json!({verb: {kind: body}}));
    }

    fn create(mut self, want: &Table) -> Vec<Value> {
        self.push("add", "table", json!({"name": TABLE}));
        self.change(want, &Seen::default())
    }

    /// INVARIANT: whatever is referred to is added before what refers to it, and removed after.
    fn change(mut self, want: &Table, seen: &Seen) -> Vec<Value> {
        for counter in want.counters.iter().filter(|&&counter| !seen.counters.contains_key(counter)) {
            self.push("add", "counter", json!({"name": counter}));
        }
        for (name, set) in want.sets.iter().filter(|&(name, _)| !seen.sets.contains_key(name)) {
            self.add_set(name, set);
        }
        for (name, chain) in want.chains.iter().filter(|&(name, _)| !seen.chains.contains_key(name)) {
            self.add_chain(name, chain);
        }
        let none = SeenChain::default();
        let changed: Vec<_> = want
            .chains
            .iter()
            .filter(|&(name, chain)| {
                let seen = seen.chains.get(name).unwrap_or(&none);
                !chain.rules.iter().map(digest).eq(seen.digests.iter().cloned())
            })
            .collect();
        let stale: Vec<_> = seen.chains.keys().filter(|&name| !want.chains.contains_key(name)).collect();
        for name in changed.iter().map(|&(name, _)| name).chain(stale.iter().copied()) {
            if seen.chains.get(name).is_some_and(|chain| !chain.digests.is_empty()) {
                self.push("flush", "chain", json!({"name": name}));
            }
        }
        for (name, set) in &want.sets {
            self.change_elements(name, set, seen.sets.get(name));
        }
        for (name, set) in seen.sets.iter().filter(|&(name, _)| !want.sets.contains_key(name)) {
            // Verdicts hold on to the chains that they lead to.
            let kind = if set.data.is_some() { "map" } else { "set" };
            self.push("delete", kind, json!({"name": name}));
        }
        for (name, chain) in changed {
            for rule in &chain.rules {
                self.push("add", "rule", json!({"chain": name, "expr": rule, "comment": digest(rule)}));
            }
        }
        for name in stale {
            self.push("delete", "chain", json!({"name": name}));
        }
        self.list
    }

    fn add_set(&mut self, name: &str, set: &Set) {
        let key = match set.key.as_slice() {
            [one] => json!(one),
            many => json!(many),
        };
        let mut body = json!({"name": name, "type": key});
        if set.interval {
            body["flags"] = json!(["interval"]);
        }
        if let Some(data) = &set.data {
            body["map"] = json!(data);
        }
        self.push("add", if set.data.is_some() { "map" } else { "set" }, body);
    }

    fn add_chain(&mut self, name: &str, chain: &Chain) {
        let mut body = json!({"name": name});
        if let Some(base) = &chain.base {
            body["type"] = json!(base.kind);
            body["hook"] = json!(base.hook);
            body["prio"] = json!(base.priority);
            body["policy"] = json!("accept");
        }
        self.push("add", "chain", body);
    }

    fn change_elements(&mut self, name: &str, set: &Set, seen: Option<&Set>) {
        // Intervals of a single field are kept by their ends, which neighbours share: no deltas there.
        let whole = set.interval && set.key.len() == 1;
        let had = seen.map(|seen| &seen.elements);
        if whole && had.is_some_and(|had| *had != set.elements && !had.is_empty()) {
            self.push("flush", "set", json!({"name": name}));
        }
        let kept = |key, datum| had.is_some_and(|had| had.get(key) == Some(datum));
        let gone: Vec<Value> = had
            .into_iter()
            .flatten()
            .filter(|(key, datum)| !whole && set.elements.get(*key) != Some(*datum))
            .map(|(key, _)| key_json(key))
            .collect();
        let come: Vec<Value> = set
            .elements
            .iter()
            .filter(|(key, datum)| !kept(*key, *datum) || (whole && had != Some(&set.elements)))
            .map(|(key, datum)| element_json(key, datum.as_ref()))
            .collect();
        for (verb, elements) in [("delete", gone), ("add", come)] {
            if !elements.is_empty() {
                self.push(verb, "element", json!({"name": name, "elem": elements}));
            }
        }
    }
}
