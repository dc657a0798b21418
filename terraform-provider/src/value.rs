//! Values of Terraform: like JSON, and there are those that nobody knows yet.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use rmpv::Value as Packed;
use serde_json::Number;

use crate::protocol::tfplugin6::DynamicValue;
use crate::schema::{Attribute, Type};

/// The attributes of a resource.
pub type Object = BTreeMap<String, Value>;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Unknown,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Value>),
    /// A map or an object.
    Map(Object),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// Whether nothing within is unknown.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::List(items) => items.iter().all(Self::is_known),
            Self::Map(entries) => entries.values().all(Self::is_known),
            _ => true,
        }
    }

    /// With what is unknown taken away.
    pub fn known(self) -> Self {
        match self {
            Self::Unknown => Self::Null,
            Self::List(items) => Self::List(items.into_iter().map(Self::known).collect()),
            Self::Map(entries) => {
                Self::Map(entries.into_iter().map(|(key, value)| (key, value.known())).collect())
            }
            other => other,
        }
    }

    /// From JSON that was a value of this type, as a state file holds it: what is no more is dropped, what is new is null.
    pub fn conform(ty: &Type, json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match (ty, json) {
            (Type::List(item) | Type::Set(item), Json::Array(items)) => {
                Self::List(items.iter().map(|one| Self::conform(item, one)).collect())
            }
            (Type::Map(item), Json::Object(entries)) => {
                Self::Map(entries.iter().map(|(key, one)| (key.clone(), Self::conform(item, one))).collect())
            }
            (Type::Object(attributes), Json::Object(entries)) => Self::Map(conform(attributes, entries)),
            (Type::Bool, Json::Bool(bool)) => Self::Bool(*bool),
            (Type::Number, Json::Number(number)) => Self::Number(number.clone()),
            (Type::Text | Type::Scalar | Type::Json, Json::String(text)) => Self::text(text),
            _ => Self::Null,
        }
    }

    fn unpack(packed: Packed) -> Result<Self> {
        Ok(match packed {
            Packed::Nil => Self::Null,
            Packed::Boolean(bool) => Self::Bool(bool),
            Packed::Integer(number) => Self::Number(match number.as_i64() {
                Some(number) => number.into(),
                None => number.as_u64().unwrap_or_default().into(),
            }),
            Packed::F32(number) => Self::Number(Number::from_f64(number.into()).context("a number")?),
            Packed::F64(number) => Self::Number(Number::from_f64(number).context("a number")?),
            Packed::String(text) => Self::text(text.into_str().context("a text that is not UTF-8")?),
            Packed::Array(items) => Self::List(items.into_iter().map(Self::unpack).collect::<Result<_>>()?),
            Packed::Map(entries) => {
                let entry = |(key, value): (Packed, Packed)| {
                    Ok((key.as_str().context("a key that is no text")?.to_owned(), Self::unpack(value)?))
                };
                Self::Map(entries.into_iter().map(entry).collect::<Result<_>>()?)
            }
            // Also those of which Terraform knows a little, like that they are not null.
            Packed::Ext(..) => Self::Unknown,
            Packed::Binary(_) => bail!("bytes are no value of Terraform"),
        })
    }

    fn pack(self) -> Packed {
        match self {
            Self::Null => Packed::Nil,
            Self::Unknown => Packed::Ext(0, vec![0]),
            Self::Bool(bool) => Packed::Boolean(bool),
            Self::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => number.into(),
                (None, None) => Packed::F64(number.as_f64().unwrap_or_default()),
            },
            Self::Text(text) => text.into(),
            Self::List(items) => Packed::Array(items.into_iter().map(Self::pack).collect()),
            Self::Map(entries) => {
                Packed::Map(entries.into_iter().map(|(key, value)| (key.into(), value.pack())).collect())
            }
        }
    }
}

/// An object with exactly these attributes.
pub fn conform(attributes: &[Attribute], json: &serde_json::Map<String, serde_json::Value>) -> Object {
    let value =
        |one: &Attribute| json.get(&one.name).map_or(Value::Null, |found| Value::conform(&one.ty, found));
    attributes.iter().map(|one| (one.name.clone(), value(one))).collect()
}

/// What Terraform sends; `None` for null.
pub fn decode(value: Option<DynamicValue>) -> Result<Option<Object>> {
    let Some(value) = value else { return Ok(None) };
    let value = if value.msgpack.is_empty() {
        // Terraform itself only writes the other way.
        bail!("a value in JSON");
    } else {
        Value::unpack(rmpv::decode::read_value(&mut value.msgpack.as_slice())?)?
    };
    match value {
        Value::Map(object) => Ok(Some(object)),
        Value::Null => Ok(None),
        _ => bail!("a value that is no object"),
    }
}

pub fn encode(value: Option<Object>) -> DynamicValue {
    let packed = value.map_or(Packed::Nil, |object| Value::Map(object).pack());
    let mut msgpack = Vec::new();
    #[expect(clippy::expect_used, reason = "a vector takes whatever is written")]
    rmpv::encode::write_value(&mut msgpack, &packed).expect("write to memory");
    DynamicValue { msgpack, json: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_sent() {
        let object = Object::from([
            ("null".to_owned(), Value::Null),
            ("unknown".to_owned(), Value::Unknown),
            ("empty".to_owned(), Value::Map(Object::new())),
            ("list".to_owned(), Value::List(vec![Value::text("ä"), Value::Number((-1).into())])),
            ("large".to_owned(), Value::Number(9_007_199_254_740_991_u64.into())),
            ("yes".to_owned(), Value::Bool(true)),
        ]);
        assert_eq!(decode(Some(encode(Some(object.clone())))).unwrap(), Some(object));
        assert_eq!(decode(Some(encode(None))).unwrap(), None);
    }
}
