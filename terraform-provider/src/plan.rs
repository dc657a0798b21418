//! What an apply would make of a configuration and a state. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::convert::is_same;
use crate::resource::Resource;
use crate::schema::{Attribute, Mode};
use crate::value::{Object, Value};

/// What is kept beside the state, which nobody sees.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Private {
    /// Whether there is one already, although a plan is without a state: it is being replaced.
    #[serde(default)]
    pub is_made: bool,
    /// Ids and names of what attributes refer to.
    #[serde(default)]
    pub names: BTreeMap<String, Vec<[String; 2]>>,
}

impl Private {
    pub fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// With what was known before and is not shown each time.
    #[must_use]
    pub fn after(mut self, before: &[u8]) -> Self {
        for (attribute, names) in Self::read(before).names {
            self.names.entry(attribute).or_insert(names);
        }
        self
    }

    /// Whether both are the same resource, or the same resources in any order.
    fn knows_both(&self, attribute: &str, one: &Value, other: &Value) -> bool {
        let Some(known) = self.names.get(attribute) else { return false };
        let is_one = |one: &Value, other: &Value| {
            let of = |value: &Value, names: &[String; 2]| {
                value.as_text().is_some_and(|text| names.iter().any(|name| name == text))
            };
            one == other || known.iter().any(|names| of(one, names) && of(other, names))
        };
        match (one, other) {
            (Value::List(some), Value::List(others)) => {
                some.len() == others.len()
                    && some.iter().all(|one| others.iter().any(|other| is_one(one, other)))
            }
            _ => is_one(one, other),
        }
    }
}

pub struct Plan {
    pub planned: Object,
    /// Attributes whose new values make another resource.
    pub replaces: Vec<String>,
    pub changes: bool,
}

pub fn plan(
    resource: &Resource,
    config: &Object,
    prior: Option<&Object>,
    private: &Private,
    project: Option<&str>,
) -> Plan {
    let (mut planned, mut replaces, mut changes) = (Object::new(), Vec::new(), prior.is_none());
    for one in resource.attributes.iter().filter(|one| one.mode != Mode::Computed) {
        let before = prior.and_then(|prior| prior.get(&one.name));
        let value = wanted(one, config.get(&one.name), before, private, project);
        if let Some(before) = before
            && *before != value
        {
            changes = true;
            // What an import could not find out is no other value.
            let was_unseen = before.is_null() && one.shown_as.is_none();
            if one.replaces && !was_unseen {
                replaces.push(one.name.clone());
            }
        }
        planned.insert(one.name.clone(), value);
    }
    for (name, leader) in resource.followers() {
        let moves = prior.is_some_and(|prior| prior.get(leader) != planned.get(leader));
        if moves && config.get(name).is_none_or(Value::is_null) {
            planned.insert(name.to_owned(), Value::Unknown);
        }
    }
    for one in resource.attributes.iter().filter(|one| one.mode == Mode::Computed) {
        let stays = !changes || (one.stable && replaces.is_empty());
        let before = prior.filter(|_| stays).and_then(|prior| prior.get(&one.name));
        planned.insert(one.name.clone(), before.cloned().unwrap_or(Value::Unknown));
    }
    Plan { planned, replaces, changes }
}

fn wanted(
    one: &Attribute,
    config: Option<&Value>,
    before: Option<&Value>,
    private: &Private,
    project: Option<&str>,
) -> Value {
    if one.write_only {
        return Value::Null;
    }
    match config.filter(|config| !config.is_null()) {
        Some(config) => match before {
            Some(before)
                if is_same(&one.ty, config, before) || private.knows_both(&one.name, config, before) =>
            {
                before.clone()
            }
            _ => config.clone(),
        },
        None if one.default.is_some() => one.default.clone().unwrap_or(Value::Null),
        None if !one.is_computed() => Value::Null,
        None => match (before, project) {
            (Some(before), _) => before.clone(),
            (None, Some(project)) if one.name == "project" => Value::text(project),
            _ => Value::Unknown,
        },
    }
}
