//! The condition keys of a request that nobody makes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use policy::{Context, KeyType, Value};
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::auth::{CredentialKind, PrincipalKind, keys, principal_name, vocabulary};
use crate::http::{Client, FieldError, Labels};
use crate::policies::attachments::{Subject, SubjectKind};

/// Values by key; a key with no value is one that the request does certainly not have.
#[derive(Clone, Default)]
pub(super) struct Facts(BTreeMap<String, Vec<Value>>);

impl Facts {
    /// What is certain of every request of this principal. A group is nobody in particular.
    pub(super) fn of(subject: &Subject) -> Self {
        let mut facts = Self::default();
        let kind = match subject.kind {
            SubjectKind::User => PrincipalKind::User,
            SubjectKind::ServiceAccount => PrincipalKind::ServiceAccount,
            SubjectKind::Group | SubjectKind::Everyone => return facts,
        };
        facts.set(keys::PRINCIPAL_TYPE, kind.as_str());
        if let (Some(id), Some(name)) = (subject.id, &subject.name) {
            facts.set(keys::PRINCIPAL_ID, id.to_string());
            facts.set(keys::PRINCIPAL_NAME, principal_name(subject.home.as_deref(), name));
        }
        if kind == PrincipalKind::ServiceAccount {
            // Service accounts have API keys and nothing else.
            facts.set(keys::CREDENTIAL_TYPE, CredentialKind::ApiKey.as_str());
            facts.set(keys::MULTI_FACTOR_AUTH_PRESENT, false);
            facts.0.insert(keys::MULTI_FACTOR_AUTH_AGE.to_owned(), Vec::new());
        }
        facts
    }

    /// What a simulation takes for granted unless it is told otherwise.
    pub(super) fn assume(&mut self, client: Client, now: OffsetDateTime, credential: Option<CredentialKind>) {
        self.set(keys::SOURCE_IP, client.address);
        self.set(keys::SECURE_TRANSPORT, client.secure_transport);
        self.set(keys::CURRENT_TIME, now);
        self.set(keys::MULTI_FACTOR_AUTH_PRESENT, false);
        if let Some(credential) = credential {
            self.set(keys::CREDENTIAL_TYPE, credential.as_str());
        }
    }

    /// Takes what the request says of itself.
    pub(super) fn give(&mut self, given: &BTreeMap<String, Json>, errors: &mut Vec<FieldError>) {
        for (key, json) in given {
            match values(key, json) {
                Ok((key, values)) => {
                    self.0.insert(key, values);
                }
                Err((code, message)) => {
                    let pointer = format!("/context/{}", key.replace('~', "~0").replace('/', "~1"));
                    errors.push(FieldError::new(pointer, code, message));
                }
            }
        }
        let labels = self.0.range(keys::REQUEST_LABEL.to_owned()..).map(|(key, _)| key);
        let labels = labels.map_while(|key| key.strip_prefix(keys::REQUEST_LABEL));
        let labels: Vec<Value> = labels.map(Value::from).collect();
        if !labels.is_empty() && !given.contains_key(keys::LABEL_KEYS) {
            self.0.insert(keys::LABEL_KEYS.to_owned(), labels);
        }
    }

    /// Whether it is certain which value the key has, or that it has none. Labels are, of a resource that is.
    pub(super) fn knows(&self, key: &str, labels: Option<&Labels>) -> bool {
        self.0.contains_key(key) || (labels.is_some() && key.starts_with(keys::RESOURCE_LABEL))
    }

    /// For the evaluator, with the labels of the resource.
    pub(super) fn context(&self, labels: Option<&Labels>) -> Context {
        let mut context = Context::default();
        for (key, value) in labels.into_iter().flatten() {
            context.set(format!("{}{key}", keys::RESOURCE_LABEL), value.as_str());
        }
        for (key, values) in &self.0 {
            context.set_many(key.clone(), values.clone());
        }
        context
    }

    /// Those of the keys that have no value and should perhaps have one.
    pub(super) fn missing(&self, asked: BTreeSet<&str>, labels: Option<&Labels>) -> Vec<String> {
        asked.into_iter().filter(|key| !self.knows(key, labels)).map(str::to_owned).collect()
    }

    /// Takes over what is said there.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), vec![value.into()]);
    }
}

/// What a real request has at most: as many values as labels, each as long as a name.
const MAX_VALUES: usize = 32;
const MAX_TEXT_BYTES: usize = 63;

type Refused = (&'static str, String);

/// The key in its proper spelling, and its values.
fn values(key: &str, json: &Json) -> Result<(String, Vec<Value>), Refused> {
    let Some((known, key)) = vocabulary().key(key) else {
        return Err(("unknown_key", "there is no such condition key".to_owned()));
    };
    let values = match json {
        Json::Null => Vec::new(),
        Json::Array(all) => all.iter().map(|one| value(known.value, one)).collect::<Result<_, _>>()?,
        one => vec![value(known.value, one)?],
    };
    if values.len() > 1 && !known.multivalued {
        return Err(("invalid", "a request has one value of this key".to_owned()));
    }
    if values.len() > MAX_VALUES {
        return Err(("too_many", format!("at most {MAX_VALUES} values, not {}", values.len())));
    }
    Ok((key, values))
}

fn value(kind: KeyType, json: &Json) -> Result<Value, Refused> {
    let text = json.as_str();
    if let Some(text) = text.filter(|text| text.len() > MAX_TEXT_BYTES) {
        return Err(("too_long", format!("at most {MAX_TEXT_BYTES} bytes, this has {}", text.len())));
    }
    let value = match kind {
        KeyType::String => text.map(Value::from),
        KeyType::Numeric => json.as_f64().or_else(|| text?.parse().ok()).map(Value::from),
        KeyType::Bool => json.as_bool().or_else(|| text?.parse().ok()).map(Value::from),
        KeyType::Date => text.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()).map(Value::from),
        KeyType::Ip => text.and_then(|text| text.parse::<IpAddr>().ok()).map(Value::from),
    };
    let expected = match kind {
        KeyType::String => "a string",
        KeyType::Numeric => "a number",
        KeyType::Bool => "true or false",
        KeyType::Date => "a time like 2026-01-31T08:00:00Z",
        KeyType::Ip => "an address like 203.0.113.7",
    };
    value.ok_or_else(|| ("invalid", format!("expected {expected}")))
}
