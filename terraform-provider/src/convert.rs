//! Between values of Terraform and JSON of the API, and whether two of them mean the same.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::schema::Type;
use crate::value::{Object, Value};

/// For the body of a call. What is null within is left out.
pub fn to_api(ty: &Type, value: &Value) -> Json {
    match (ty, value) {
        (_, Value::Null | Value::Unknown) => Json::Null,
        (Type::Scalar, Value::Text(text)) => {
            text.parse::<i64>().map_or_else(|_| text.as_str().into(), Json::from)
        }
        (Type::Json, Value::Text(text)) => {
            serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())
        }
        (_, Value::Text(text)) => text.as_str().into(),
        (_, Value::Bool(bool)) => (*bool).into(),
        (_, Value::Number(number)) => whole(number),
        (Type::List(item) | Type::Set(item), Value::List(items)) => {
            items.iter().map(|one| to_api(item, one)).collect()
        }
        (Type::Map(item), Value::Map(entries)) => {
            entries.iter().map(|(key, one)| (key.clone(), to_api(item, one))).collect()
        }
        (Type::Object(attributes), Value::Map(entries)) => attributes
            .iter()
            .filter_map(|one| Some((one.name.clone(), to_api(&one.ty, entries.get(&one.name)?))))
            .filter(|(_, value)| !value.is_null())
            .collect(),
        _ => Json::Null,
    }
}

/// Terraform knows no difference between 1 and 1.0.
fn whole(number: &serde_json::Number) -> Json {
    match (number.as_i64(), number.as_f64()) {
        (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => (float as i64).into(),
        _ => Json::Number(number.clone()),
    }
}

/// From an answer. Other resources are known by their ids.
pub fn from_api(ty: &Type, json: &Json) -> Value {
    match (ty, json) {
        (_, Json::Null) => Value::Null,
        (Type::Json, json) => Value::text(json.to_string()),
        (Type::Text | Type::Scalar, Json::String(text)) => Value::text(text),
        (Type::Text | Type::Scalar, Json::Object(object)) => {
            object.get("id").or(object.get("name")).map_or(Value::Null, |id| from_api(ty, id))
        }
        (Type::Text | Type::Scalar, other) => Value::text(other.to_string()),
        (Type::Bool, Json::Bool(bool)) => Value::Bool(*bool),
        (Type::Number, Json::Number(number)) => Value::Number(number.clone()),
        (Type::List(item) | Type::Set(item), Json::Array(items)) => {
            Value::List(items.iter().map(|one| from_api(item, one)).collect())
        }
        (Type::Map(item), Json::Object(entries)) => {
            Value::Map(entries.iter().map(|(key, one)| (key.clone(), from_api(item, one))).collect())
        }
        (Type::Object(attributes), json @ Json::Object(_)) => Value::Map(
            attributes
                .iter()
                .map(|one| (one.name.clone(), from_api(&one.ty, &json[&one.name])))
                .collect::<Object>(),
        ),
        _ => Value::Null,
    }
}

/// Whether the answer says what Terraform has in its own words: a name for a resource, another way to write a time.
pub fn says(ty: &Type, value: &Value, json: &Json) -> bool {
    match (ty, value, json) {
        (Type::Text, Value::Text(text), Json::Object(object)) => {
            let named = |key| object.get(key).and_then(Json::as_str);
            named("name") == Some(text)
                || named("id").is_some_and(|id| is_same_text(text, id) && object.len() == 1 || id == text)
        }
        (Type::Text, Value::Text(text), Json::String(other)) => is_same_text(text, other),
        (Type::Json, Value::Text(text), json) => {
            serde_json::from_str::<Json>(text).is_ok_and(|own| normal(&own) == normal(json))
        }
        (Type::List(item), Value::List(items), Json::Array(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(one, other)| says(item, one, other))
        }
        (Type::Set(item), Value::List(items), Json::Array(others)) => {
            items.len() == others.len()
                && items.iter().all(|one| others.iter().any(|other| says(item, one, other)))
        }
        // What was left out, the cloud may have chosen.
        (Type::Object(attributes), Value::Map(entries), Json::Object(_)) => attributes.iter().all(|one| {
            entries
                .get(&one.name)
                .is_none_or(|value| value.is_null() || says(&one.ty, value, &json[&one.name]))
        }),
        (ty, value, json) => *value == from_api(ty, json),
    }
}

/// Whether two values of Terraform mean the same to the API.
pub fn is_same(ty: &Type, one: &Value, other: &Value) -> bool {
    one == other
        || match (ty, one, other) {
            (Type::Json, Value::Text(_), Value::Text(other)) => {
                serde_json::from_str(other).is_ok_and(|other| says(ty, one, &other))
            }
            (Type::Text, Value::Text(one), Value::Text(other)) => {
                is_same_moment(one, other) || is_same_address(one, other)
            }
            (Type::Number, Value::Number(one), Value::Number(other)) => whole(one) == whole(other),
            (Type::Set(_), Value::List(some), Value::List(others)) => {
                some.len() == others.len() && some.iter().all(|one| others.contains(one))
            }
            _ => false,
        }
}

fn is_same_text(text: &str, shown: &str) -> bool {
    // Of some resources the API only shows the id; whether that is of this name it does not say.
    let may_be_name_of = is_id(shown) && !is_id(text) && !text.is_empty();
    text == shown || may_be_name_of || is_same_moment(text, shown) || is_same_address(text, shown)
}

pub fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.chars().enumerate().all(|(at, letter)| match at {
            8 | 13 | 18 | 23 => letter == '-',
            _ => letter.is_ascii_hexdigit(),
        })
}

fn is_same_moment(one: &str, other: &str) -> bool {
    let moment = |text| OffsetDateTime::parse(text, &Rfc3339).ok();
    moment(one).is_some_and(|one| Some(one) == moment(other))
}

fn is_same_address(one: &str, other: &str) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let network = |text: &str| text.parse::<IpNet>().ok();
    address(one).is_some_and(|one| Some(one) == address(other))
        || network(one).is_some_and(|one| Some(one) == network(other))
}

/// Policy documents may write one text for a list of one.
fn normal(json: &Json) -> Json {
    match json {
        Json::Array(items) if items.len() == 1 => normal(&items[0]),
        Json::Array(items) => items.iter().map(normal).collect(),
        Json::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), normal(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_means_the_same_is_no_difference() {
        let set = Type::Set(Box::new(Type::Text));
        for (ty, value, json, same) in [
            (Type::Text, Value::text("front"), json!({"id": "1", "name": "front"}), true),
            (Type::Text, Value::text("back"), json!({"id": "1", "name": "front"}), false),
            (Type::Text, Value::text("2027-01-01T00:00:00Z"), json!("2027-01-01T01:00:00.000+01:00"), true),
            (Type::Text, Value::text("2001:DB8::0/64"), json!("2001:db8::/64"), true),
            (Type::Json, Value::text(r#"{"Action":"a:B"}"#), json!({"Action": ["a:B"]}), true),
            (Type::Json, Value::text(r#"{"Action":"a:C"}"#), json!({"Action": ["a:B"]}), false),
            (Type::Scalar, Value::text("47"), json!(47), true),
            (
                set,
                Value::List(vec![Value::text("web"), Value::text("2")]),
                json!([{"id": "2", "name": "db"}, {"id": "1", "name": "web"}]),
                true,
            ),
            (Type::Text, Value::Null, json!(null), true),
            (Type::Text, Value::Null, json!(""), false),
        ] {
            assert_eq!(says(&ty, &value, &json), same, "{value:?} {json}");
        }
    }
}
