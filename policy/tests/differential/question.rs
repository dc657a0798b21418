//! A request as plain strings. The naive evaluator reads it as it is, ours gets it through its public types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::{Context, KeyType, Names, Request, Resource, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::generate::VOCABULARY;

/// Name and, perhaps, id.
pub type Called = (String, Option<String>);

#[derive(Clone, Debug)]
pub struct Question {
    pub action: String,
    pub service: String,
    pub project: Option<Called>,
    pub kind: String,
    pub target: Option<Called>,
    pub values: BTreeMap<String, Vec<String>>,
}

impl Question {
    pub fn context(&self) -> Context {
        let mut context = Context::default();
        for (name, values) in &self.values {
            let known = VOCABULARY.keys.iter().find(|key| name.starts_with(key.name)).expect("a known key");
            let mut values: Vec<Value> = values.iter().map(|value| typed(known.value, value)).collect();
            if known.multivalued || values.is_empty() {
                context.set_many(name.clone(), values);
            } else {
                context.set(name.clone(), values.remove(0));
            }
        }
        context
    }

    pub fn request<'a>(&'a self, context: &'a Context) -> Request<'a> {
        let resource = Resource {
            service: &self.service,
            project: names(self.project.as_ref()),
            kind: &self.kind,
            target: names(self.target.as_ref()),
        };
        Request { action: &self.action, resource, context }
    }
}

pub fn names(called: Option<&Called>) -> Option<Names<'_>> {
    called.map(|(name, id)| Names { name, id: id.as_deref() })
}

fn typed(kind: KeyType, value: &str) -> Value {
    match kind {
        KeyType::String => value.into(),
        KeyType::Numeric => Value::Number(value.parse().expect("a number")),
        KeyType::Bool => Value::Bool(value == "true"),
        KeyType::Date => OffsetDateTime::parse(value, &Rfc3339).expect("a date").into(),
        KeyType::Ip => value.parse::<IpAddr>().expect("an address").into(),
    }
}
