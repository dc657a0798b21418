//! What the API would refuse in any case, told before anything is asked of it.

use regex::Regex;

use crate::change::duration;
use crate::diagnose::{at, error};
use crate::openapi::resolve;
use crate::protocol::tfplugin6::Diagnostic;
use crate::schema::{Attribute, Type};
use crate::value::{Object, Value};

/// The faults of a configuration. What is not known yet has none.
pub fn validate(attributes: &[Attribute], config: &Object) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    object(attributes, config, "", &mut faults);
    if let Some(Value::Map(timeouts)) = config.get("timeouts") {
        for (name, value) in timeouts {
            if let Some(text) = value.as_text().filter(|text| duration(text).is_none()) {
                let why = format!("'{text}' is no duration like 90s, 30m or 1h30m");
                faults.push(at(&format!("/timeouts/{name}"), error("Not a duration", why)));
            }
        }
    }
    faults
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn object(attributes: &[Attribute], values: &Object, pointer: &str, faults: &mut Vec<Diagnostic>) {
    for one in attributes {
        if let Some(value) = values.get(&one.name) {
            attribute(one, value, &format!("{pointer}/{}", one.name), faults);
        }
    }
}

fn attribute(one: &Attribute, value: &Value, pointer: &str, faults: &mut Vec<Diagnostic>) {
    let mut say =
        |why: String| faults.push(at(pointer, error(&format!("`{}` cannot be that", one.name), why)));
    let schema = resolve(one.schema);
    match (&one.ty, value) {
        (Type::Json, Value::Text(text)) => {
            if let Err(why) = serde_json::from_str::<serde_json::Value>(text) {
                say(format!("It is no JSON: {why}. Write it with jsonencode()."));
            }
        }
        (Type::Text, Value::Text(text)) => {
            let length = text.chars().count() as u64;
            if one.is_id && !is_id(text) {
                say("It is no id. Give the id, like cumulo_subnet.front.id.".to_owned());
            } else if schema["minLength"].as_u64().is_some_and(|least| length < least) {
                say(format!("It has less than {} characters.", schema["minLength"]));
            } else if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
                say(format!("It has more than {} characters.", schema["maxLength"]));
            } else if let Some(choices) = schema["enum"].as_array()
                && !choices.iter().any(|choice| choice == text)
            {
                let choices: Vec<_> = choices.iter().filter_map(|choice| choice.as_str()).collect();
                say(format!("It is none of {}.", choices.join(", ")));
            } else if let Some(pattern) = schema["pattern"].as_str()
                && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
            {
                let name = "Small letters, digits and hyphens, beginning with a letter and not ending with a hyphen.";
                say(if pattern.starts_with("^[a-z](") {
                    name.to_owned()
                } else {
                    format!("It does not look like {pattern}.")
                });
            }
        }
        (Type::Number, Value::Number(number)) => {
            let number = number.as_f64().unwrap_or_default();
            let limits = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
            if limits.0.is_some_and(|least| number < least) || limits.1.is_some_and(|most| number > most) {
                say(format!("It is not between {} and {}.", schema["minimum"], schema["maximum"]));
            } else if schema["format"].as_str().is_some_and(|format| format.starts_with("int"))
                && number.fract() != 0.0
            {
                say("It is no whole number.".to_owned());
            }
        }
        (Type::Object(inner), Value::Map(values)) => object(inner, values, pointer, faults),
        (Type::List(item), Value::List(items)) => {
            if schema["maxItems"].as_u64().is_some_and(|most| items.len() as u64 > most) {
                say(format!("It has more than {} entries.", schema["maxItems"]));
            }
            if let Type::Object(inner) = &**item {
                for (at, values) in items.iter().enumerate() {
                    if let Value::Map(values) = values {
                        object(inner, values, &format!("{pointer}/{at}"), faults);
                    }
                }
            }
        }
        _ => {}
    }
}
