//! Validation: everything that is wrong with a document, each finding at its place and in words that help.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::compile::{action_matches, action_pattern};
use crate::condition::{Base, OPERATORS, Operand, Operator};
use crate::context::Context;
use crate::document::{
    ActionElement, Document, Effect, MAX_DOCUMENT_BYTES, MAX_STATEMENTS, ResourceElement, Statement,
};
use crate::pattern::{self, Matched, Pattern, has_char, split_crn, variables};
use crate::vocabulary::{KeyType, Vocabulary, nearest};

/// The version of the language, AWS's newest.
const VERSION: &str = "2012-10-17";
/// More than a person reads at once.
const MAX_FINDINGS: usize = 50;
const MAX_TEXT_BYTES: usize = 1024;
const MAX_LIST: usize = 200;

/// Something that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// JSON pointer (RFC 6901) into the document.
    pub pointer: String,
    pub code: &'static str,
    /// Names the statement and says what would be right.
    pub message: String,
}

pub(crate) fn document(value: &Value, vocabulary: &Vocabulary) -> Result<Document, Vec<Finding>> {
    let mut check = Check { vocabulary, findings: Vec::new(), statement: String::new() };
    let document = check.document(value);
    match document {
        Some(document) if check.findings.is_empty() => Ok(document),
        _ => Err(check.findings),
    }
}

struct Check<'a> {
    vocabulary: &'a Vocabulary,
    findings: Vec<Finding>,
    /// How messages call the statement that is being looked at.
    statement: String,
}

impl Check<'_> {
    fn add(&mut self, pointer: &str, code: &'static str, message: impl AsRef<str>) {
        if self.findings.len() < MAX_FINDINGS {
            let message = match self.statement.as_str() {
                "" => message.as_ref().to_owned(),
                statement => format!("{statement}: {}", message.as_ref()),
            };
            self.findings.push(Finding { pointer: pointer.to_owned(), code, message });
        }
    }

    fn full(&self) -> bool {
        self.findings.len() >= MAX_FINDINGS
    }

    fn document(&mut self, value: &Value) -> Option<Document> {
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

    /// A text or a list of texts, each with its place.
    fn texts(&mut self, value: &Value, at: &str) -> Option<Vec<(String, String)>> {
        self.list(value, at, |value| value.as_str().map(str::to_owned), "a text, or a list of texts")
    }

    fn list(
        &mut self,
        value: &Value,
        at: &str,
        read: impl Fn(&Value) -> Option<String>,
        expected: &str,
    ) -> Option<Vec<(String, String)>> {
        let items: Vec<(&Value, String)> = match value {
            Value::Array(items) if items.is_empty() || items.len() > MAX_LIST => {
                self.add(at, "out_of_range", format!("from 1 to {MAX_LIST} values"));
                return None;
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(number, item)| (item, format!("{at}/{number}"))).collect()
            }
            item => vec![(item, at.to_owned())],
        };
        let mut texts = Vec::with_capacity(items.len());
        for (item, pointer) in items {
            match read(item) {
                Some(text) if text.len() <= MAX_TEXT_BYTES => texts.push((text, pointer)),
                Some(_) => self.add(&pointer, "too_long", format!("at most {MAX_TEXT_BYTES} bytes")),
                None => self.add(&pointer, "invalid", expected),
            }
        }
        Some(texts)
    }

    fn action(&mut self, text: &str, at: &str) {
        if text == "*" {
            return;
        }
        let service = text.split_once(':').map(|(service, _)| service);
        if service.is_none_or(|service| service.is_empty() || service.contains(['*', '?']))
            || text.contains("${")
        {
            self.add(
                at,
                "invalid",
                "an action is * or service:Verb; the verb may have the wildcards * and ?",
            );
            return;
        }
        let pattern = action_pattern(text);
        if self.vocabulary.actions.iter().any(|action| action_matches(&pattern, action)) {
            return;
        }
        let hint = nearest(text, self.vocabulary.actions.iter().copied());
        let hint = hint.map_or_else(String::new, |hint| format!("; did you mean {hint}?"));
        self.add(at, "unknown_action", format!("no action matches {}{hint}", quoted(text)));
    }

    fn resource(&mut self, text: &str, at: &str) {
        if text == "*" {
            return;
        }
        let Some([service, project, target]) = split_crn(text) else {
            let message = "a resource is * or crn:cumulo:<service>:<project>:<type>/<name or id>";
            self.add(at, "invalid", message);
            return;
        };
        let types =
            || self.vocabulary.resources.iter().filter(move |(known, _)| service == "*" || *known == service);
        if types().next().is_none() {
            let hint = nearest(service, self.vocabulary.resources.iter().map(|(service, _)| *service));
            let hint = hint.map_or_else(String::new, |hint| format!("; did you mean {hint}?"));
            let message = format!(
                "no service is called {}{hint}; the service is a name or *, nothing between",
                quoted(service)
            );
            self.add(at, "unknown_service", message);
            return;
        }
        if !self.variables(project, at) || !self.variables(target, at) {
            return;
        }
        let has = |text, char| pattern::parse(text, true).is_ok_and(|parts| has_char(&parts, char));
        if has(project, '/') {
            self.add(at, "invalid", "the fourth part is the project's name or id, or empty for the cloud");
            return;
        }
        if target.ends_with('/') || has(target, ':') {
            let message = "after the slash comes a name or an id, without colons; * is all of them";
            self.add(at, "invalid", message);
            return;
        }
        // `*` alone is any type; otherwise the part before the slash has to be one.
        let kind = target.split_once('/').map(|(kind, _)| kind);
        let pattern = Pattern::new(kind.unwrap_or(target), true);
        let nothing = Context::default();
        let known = types().any(|(_, kind)| pattern.matches(kind, &nothing) == Matched::Yes);
        if (kind.is_none() && target != "*") || !known {
            let names: Vec<&str> = types().map(|(_, kind)| *kind).collect();
            let message = format!(
                "the last part is <type>/<name or id> or *; {service} has the types {}",
                names.join(", ")
            );
            self.add(at, "unknown_type", message);
        }
    }

    /// Whether the variables of a text are all known.
    fn variables(&mut self, text: &str, at: &str) -> bool {
        let Ok(parts) = pattern::parse(text, true) else {
            self.add(at, "invalid_variable", "a variable is ${key}; this one is not closed");
            return false;
        };
        let mut known = true;
        for name in variables(&parts) {
            let message = match self.vocabulary.key(name).filter(|(_, proper)| *proper == name) {
                Some((key, _)) if key.value == KeyType::String && !key.multivalued => continue,
                Some(_) => "only a key that has one string for its value can be a variable".to_owned(),
                None => {
                    let hint = nearest(name, self.vocabulary.keys.iter().map(|key| key.name));
                    let hint = hint.map_or_else(String::new, |hint| format!("; did you mean ${{{hint}}}?"));
                    format!("there is no variable {}{hint}", quoted(&format!("${{{name}}}")))
                }
            };
            self.add(at, "unknown_variable", message);
            known = false;
        }
        known
    }

    fn condition(&mut self, value: &Value, at: &str) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
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
                let hint = nearest(bare, OPERATORS.iter().map(|(name, _, _)| *name));
                let hint = hint.map_or_else(String::new, |hint| format!("; did you mean {hint}?"));
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
            let hint = nearest(key, self.vocabulary.keys.iter().map(|key| key.name));
            let hint = hint.map_or_else(String::new, |hint| format!("; did you mean {hint}?"));
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
            if known.value == KeyType::String && operator.base != Base::Null {
                self.variables(text, pointer);
            } else if Operand::parse(operator, text).is_none() {
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

    fn refuse_unknown(&mut self, object: &Map<String, Value>, at: &str, known: &[&'static str]) {
        for field in object.keys().filter(|field| !known.contains(&field.as_str())) {
            let hint = nearest(field, known.iter().copied());
            let hint = hint.map_or_else(|| known.join(", "), |hint| format!("did you mean {hint}?"));
            self.add(
                &format!("{at}/{}", escape(field)),
                "unknown_field",
                format!("there is no such element; {hint}"),
            );
            if self.full() {
                return;
            }
        }
    }
}

fn is_sid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The author's own words, cut short: a message never repeats a megabyte.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// As RFC 6901 wants it, and no longer than a person reads.
fn escape(field: &str) -> String {
    let short: String = field.chars().take(64).collect();
    short.replace('~', "~0").replace('/', "~1")
}
