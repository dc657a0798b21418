//! Conditions: operators, keys and values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Check, did_you_mean, escape, quoted};
use crate::condition::{Base, OPERATORS, Operand, Operator};
use crate::vocabulary::KeyType;

impl Check<'_> {
    pub(super) fn condition(
        &mut self,
        value: &Value,
        at: &str,
    ) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
        let mut condition = BTreeMap::new();
        let Some(object) = value.as_object().filter(|object| !object.is_empty()) else {
            self.add(at, "invalid", "a condition is an object {operator: {key: values}}");
            return condition;
        };
        for (name, keys) in object {
            if self.full() {
                break;
            }
            let at = format!("{at}/{}", escape(name));
            let Some(operator) = Operator::parse(name) else {
                let bare = name.rsplit(':').next().unwrap_or(name);
                let hint = did_you_mean(bare, OPERATORS.iter().map(|(name, _, _)| *name));
                self.add(
                    &at,
                    "unknown_operator",
                    format!("there is no condition operator {}{hint}", quoted(name)),
                );
                continue;
            };
            let Some(keys) = keys.as_object().filter(|keys| !keys.is_empty()) else {
                self.add(&at, "invalid", "an operator has an object {key: values}");
                continue;
            };
            let mut parsed = BTreeMap::new();
            for (key, values) in keys {
                if self.full() {
                    break;
                }
                if let Some((proper, texts)) = self.condition_key(name, operator, key, values, &at)
                    && parsed.insert(proper, texts).is_some()
                {
                    self.add(&format!("{at}/{}", escape(key)), "duplicate", "the key is there twice");
                }
            }
            condition.insert(name.clone(), parsed);
        }
        condition
    }

    fn condition_key(
        &mut self,
        name: &str,
        operator: Operator,
        key: &str,
        values: &Value,
        at: &str,
    ) -> Option<(String, Vec<String>)> {
        let at = format!("{at}/{}", escape(key));
        let Some((known, proper)) = self.vocabulary.key(key) else {
            let hint = did_you_mean(key, self.vocabulary.keys.iter().map(|key| key.name));
            self.add(&at, "unknown_key", format!("there is no condition key {}{hint}", quoted(key)));
            return None;
        };
        if operator.key_type().is_some_and(|expected| expected != known.value) {
            let message = format!("{proper} is a {}; {name} does not take that", known.value.as_str());
            self.add(&at, "wrong_operator", message);
        }
        match (known.multivalued, operator.quantifier.is_some()) {
            (true, false) if operator.base != Base::Null => {
                let message = format!(
                    "{proper} may have several values: say ForAnyValue:{name} or ForAllValues:{name}"
                );
                self.add(&at, "wrong_operator", message);
            }
            (false, true) => {
                let message = format!("{proper} has one value: leave out the prefix of {name}");
                self.add(&at, "wrong_operator", message);
            }
            _ => {}
        }
        let read = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let texts = self.list(values, &at, read, "a text, a number or a boolean, or a list of them")?;
        for (text, pointer) in &texts {
            let operand = Operand::parse(operator, text);
            self.spend(operand.as_ref().map_or(0, |operand| operand.steps(known.multivalued)), pointer);
            if known.value == KeyType::String && operator.base != Base::Null {
                self.variables(text, pointer);
            } else if operand.is_none() {
                let expected = match operator.base {
                    Base::Numeric(_) => "a number",
                    Base::Date(_) => {
                        "a date like 2026-01-31T12:00:00Z, or seconds since 1970 (nine digits or more)"
                    }
                    Base::IpAddress => "an address or a prefix like 203.0.113.0/24",
                    _ => "true or false",
                };
                self.add(pointer, "invalid_value", format!("{name} takes {expected}, not {}", quoted(text)));
            }
        }
        Some((proper, texts.into_iter().map(|(text, _)| text).collect()))
    }
}
