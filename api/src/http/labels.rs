//! Labels: small key-value pairs on every resource, and selectors over them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::problem::{ApiError, ErrorCode, FieldError};

/// At most 32 labels; keys of 1 to 63 and values of 0 to 63 of `A-Za-z0-9._/-`.
pub type Labels = BTreeMap<String, String>;

const MAX_LABELS: usize = 32;
const MAX_CHARS: usize = 63;

fn is_label_text(text: &str) -> bool {
    text.len() <= MAX_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
}

/// Adds an error for each label that breaks the rules.
pub fn validate_labels(labels: &Labels, errors: &mut Vec<FieldError>) {
    if labels.len() > MAX_LABELS {
        errors.push(FieldError::new("/labels", "too_many", format!("at most {MAX_LABELS} labels")));
    }
    let wrong =
        labels.iter().any(|(key, value)| key.is_empty() || !is_label_text(key) || !is_label_text(value));
    if wrong {
        let message = format!("keys and values have at most {MAX_CHARS} characters of A-Z a-z 0-9 . _ / -");
        errors.push(FieldError::new("/labels", "invalid", message));
    }
}

/// `tier=web,stage!=test,owner,!temporary`: all terms must hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    equal: Labels,
    not_equal: Vec<(String, String)>,
    present: Vec<String>,
    absent: Vec<String>,
}

impl LabelSelector {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut selector = Self::default();
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let (key, value) = match (term.split_once("!="), term.split_once('=')) {
                (Some((key, value)), _) | (None, Some((key, value))) => (key, value),
                (None, None) => (term.strip_prefix('!').unwrap_or(term), ""),
            };
            if key.is_empty() || !is_label_text(key) || !is_label_text(value) {
                return Err(wrong(&format!(
                    "`{term}` is not one of key=value, key!=value, key or !key; keys and values have at most \
                     {MAX_CHARS} characters of A-Z a-z 0-9 . _ / -"
                )));
            }
            if term.contains("!=") {
                selector.not_equal.push((key.to_owned(), value.to_owned()));
            } else if term.contains('=') {
                if selector
                    .equal
                    .insert(key.to_owned(), value.to_owned())
                    .is_some_and(|before| before != value)
                {
                    return Err(wrong(&format!("no label `{key}` has two values at once")));
                }
            } else if term.starts_with('!') {
                selector.absent.push(key.to_owned());
            } else {
                selector.present.push(key.to_owned());
            }
        }
        Ok(selector)
    }

    /// For `labels @> $n`.
    pub(crate) fn equal(&self) -> Value {
        self.equal.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect()
    }

    /// For `NOT labels @> ANY($n)`.
    pub(crate) fn not_equal(&self) -> Vec<Value> {
        self.not_equal.iter().map(|(key, value)| json!({ key: value })).collect()
    }

    /// For `labels ?& $n`.
    pub(crate) fn present(&self) -> &[String] {
        &self.present
    }

    /// For `NOT labels ?| $n`.
    pub(crate) fn absent(&self) -> &[String] {
        &self.absent
    }
}

fn wrong(why: &str) -> ApiError {
    ApiError::because(ErrorCode::InvalidQuery, format!("label_selector: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_parse() {
        let selector = LabelSelector::parse("tier=web, stage!=test,stage!=dev,owner,!temporary").unwrap();
        assert_eq!(selector.equal(), json!({"tier": "web"}));
        assert_eq!(selector.not_equal(), [json!({"stage": "test"}), json!({"stage": "dev"})]);
        assert_eq!(
            (selector.present(), selector.absent()),
            (&["owner".into()][..], &["temporary".into()][..])
        );
        for wrong in ["=web", "a=b c", "!!a", "!a=b", "a!=b!=c", "a=b,a=c", "!"] {
            assert!(LabelSelector::parse(wrong).is_err(), "{wrong}");
        }
    }
}
