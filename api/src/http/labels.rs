//! Labels: small key-value pairs on every resource, and selectors over them.

use std::collections::BTreeMap;

use serde_json::Value;

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
    not_equal: Labels,
    present: Vec<String>,
    absent: Vec<String>,
}

impl LabelSelector {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut selector = Self::default();
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let (key, value) = match (term.split_once("!="), term.split_once('=')) {
                (Some((key, value)), _) | (None, Some((key, value))) => (key, value),
                (None, None) => (term.trim_start_matches('!'), ""),
            };
            if key.is_empty() || !is_label_text(key) || !is_label_text(value) {
                return Err(ApiError::because(
                    ErrorCode::InvalidQuery,
                    "label_selector: terms are key=value, key!=value, key or !key, joined by commas",
                ));
            }
            if term.contains("!=") {
                selector.not_equal.insert(key.to_owned(), value.to_owned());
            } else if term.contains('=') {
                selector.equal.insert(key.to_owned(), value.to_owned());
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
        object(&self.equal)
    }

    /// For `NOT EXISTS (SELECT FROM jsonb_each_text($n) u WHERE labels ->> u.key = u.value)`.
    pub(crate) fn not_equal(&self) -> Value {
        object(&self.not_equal)
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

fn object(labels: &Labels) -> Value {
    labels.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_parse() {
        let selector = LabelSelector::parse("tier=web, stage!=test,owner,!temporary").unwrap();
        assert_eq!(selector.equal(), serde_json::json!({"tier": "web"}));
        assert_eq!(selector.not_equal(), serde_json::json!({"stage": "test"}));
        assert_eq!(
            (selector.present(), selector.absent()),
            (&["owner".into()][..], &["temporary".into()][..])
        );
        assert!(LabelSelector::parse("=web").is_err());
        assert!(LabelSelector::parse("a=b c").is_err());
    }
}
