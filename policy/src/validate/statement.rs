//! The document as a whole, its statements and their elements.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Check;
use crate::document::{
    ActionElement, Document, Effect, MAX_DOCUMENT_BYTES, MAX_STATEMENTS, ResourceElement, Statement,
};

/// The version of the language, AWS's newest.
const VERSION: &str = "2012-10-17";

impl Check<'_> {
    pub(super) fn document(&mut self, value: &Value) -> Option<Document> {
        let Some(object) = value.as_object() else {
            self.add("", "invalid", "a policy document is a JSON object");
            return None;
        };
        self.refuse_unknown(object, "", &["Version", "Statement"]);
        match object.get("Version") {
            Some(Value::String(version)) if version == VERSION => {}
            Some(_) => self.add("/Version", "invalid", format!("the only version is \"{VERSION}\"")),
            None => self.add("/Version", "required", format!("add \"Version\": \"{VERSION}\"")),
        }
        let one;
        let statements: &[Value] = match object.get("Statement") {
            Some(Value::Array(statements)) => statements,
            Some(statement @ Value::Object(_)) => {
                one = [statement.clone()];
                &one
            }
            Some(_) => {
                self.add("/Statement", "invalid", "a statement, or a list of statements");
                return None;
            }
            None => {
                self.add("/Statement", "required", "a policy has at least one statement");
                return None;
            }
        };
        if statements.is_empty() || statements.len() > MAX_STATEMENTS {
            let message = format!("from 1 to {MAX_STATEMENTS} statements, not {}", statements.len());
            self.add("/Statement", "out_of_range", message);
            return None;
        }
        let single = object.get("Statement").is_some_and(Value::is_object);
        let mut parsed = Vec::with_capacity(statements.len());
        let mut sids = BTreeSet::new();
        for (number, statement) in statements.iter().enumerate() {
            if self.full() {
                break;
            }
            let at = if single { "/Statement".to_owned() } else { format!("/Statement/{number}") };
            self.statement = match statement.get("Sid").and_then(Value::as_str) {
                Some(sid) if is_sid(sid) => format!("statement {sid}"),
                _ => format!("statement number {}", number + 1),
            };
            parsed.extend(self.one_statement(statement, &at, &mut sids));
        }
        self.statement.clear();
        self.refuse_costly();
        let document = Document { version: VERSION, statement: parsed, actions: self.vocabulary.actions };
        let length = serde_json::to_vec(&document).map_or(usize::MAX, |text| text.len());
        if length > MAX_DOCUMENT_BYTES {
            let message = format!("at most {} KiB, this has {} bytes", MAX_DOCUMENT_BYTES / 1024, length);
            self.add("", "too_long", message);
        }
        Some(document)
    }

    fn one_statement(&mut self, value: &Value, at: &str, sids: &mut BTreeSet<String>) -> Option<Statement> {
        let Some(object) = value.as_object() else {
            self.add(at, "invalid", "a statement is a JSON object");
            return None;
        };
        for principal in ["Principal", "NotPrincipal"] {
            if object.contains_key(principal) {
                let message = "who a policy is about is said by attaching it; remove this element";
                self.add(&format!("{at}/{principal}"), "unknown_field", message);
            }
        }
        self.refuse_unknown(
            object,
            at,
            &[
                "Sid",
                "Effect",
                "Action",
                "NotAction",
                "Resource",
                "NotResource",
                "Condition",
                "Principal",
                "NotPrincipal",
            ],
        );
        let sid = self.sid(object, at, sids);
        let effect = match object.get("Effect").map(Value::as_str) {
            Some(Some("Allow")) => Some(Effect::Allow),
            Some(Some("Deny")) => Some(Effect::Deny),
            Some(_) => {
                self.add(&format!("{at}/Effect"), "invalid", "Effect is \"Allow\" or \"Deny\"");
                None
            }
            None => {
                self.add(&format!("{at}/Effect"), "required", "Effect is \"Allow\" or \"Deny\"");
                None
            }
        };
        let action =
            self.either(object, at, "Action", "NotAction", Self::action).map(|(not, texts)| match not {
                false => ActionElement::Action(texts),
                true => ActionElement::NotAction(texts),
            });
        let resource = self.either(object, at, "Resource", "NotResource", Self::resource).map(
            |(not, texts)| match not {
                false => ResourceElement::Resource(texts),
                true => ResourceElement::NotResource(texts),
            },
        );
        let condition = match object.get("Condition") {
            Some(condition) => self.condition(condition, &format!("{at}/Condition")),
            None => BTreeMap::new(),
        };
        Some(Statement { sid, effect: effect?, action: action?, resource: resource?, condition })
    }

    fn sid(&mut self, object: &Map<String, Value>, at: &str, sids: &mut BTreeSet<String>) -> Option<String> {
        let value = object.get("Sid")?;
        let pointer = format!("{at}/Sid");
        match value.as_str().filter(|sid| is_sid(sid)) {
            Some(sid) => {
                if !sids.insert(sid.to_owned()) {
                    self.add(&pointer, "duplicate", "another statement has this Sid already");
                }
                Some(sid.to_owned())
            }
            None => {
                self.add(&pointer, "invalid", "a Sid has 1 to 64 letters and digits");
                None
            }
        }
    }

    /// One of two elements: its texts, and whether it is the second.
    fn either(
        &mut self,
        object: &Map<String, Value>,
        at: &str,
        plain: &str,
        inverted: &str,
        check: impl Fn(&mut Self, &str, &str),
    ) -> Option<(bool, Vec<String>)> {
        let (value, not) = match (object.get(plain), object.get(inverted)) {
            (Some(value), None) => (value, false),
            (None, Some(value)) => (value, true),
            (Some(_), Some(_)) => {
                self.add(
                    &format!("{at}/{inverted}"),
                    "conflict",
                    format!("either {plain} or {inverted}, not both"),
                );
                return None;
            }
            (None, None) => {
                self.add(&format!("{at}/{plain}"), "required", format!("say {plain} or {inverted}"));
                return None;
            }
        };
        let pointer = format!("{at}/{}", if not { inverted } else { plain });
        let texts = self.texts(value, &pointer)?;
        for (text, pointer) in &texts {
            check(self, text, pointer);
        }
        Some((not, texts.into_iter().map(|(text, _)| text).collect()))
    }
}

fn is_sid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
