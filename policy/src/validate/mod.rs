//! Validation: everything that is wrong with a document, each finding at its place and in words that help.

mod condition;
mod lists;
mod names;
mod statement;

use serde_json::{Map, Value};

use crate::document::Document;
use crate::vocabulary::{Vocabulary, nearest};

/// More than a person reads at once.
const MAX_FINDINGS: usize = 50;

/// Something that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// JSON pointer (RFC 6901) into the document.
    pub pointer: String,
    pub code: &'static str,
    /// Names the statement and says what would be right.
    pub message: String,
}

/// Validates a document that costs at most so many steps.
pub(crate) fn document(
    value: &Value,
    vocabulary: &Vocabulary,
    max_steps: usize,
) -> Result<Document, Vec<Finding>> {
    let mut check = Check {
        vocabulary,
        findings: Vec::new(),
        statement: String::new(),
        max_steps,
        steps: 0,
        costly: None,
    };
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
    max_steps: usize,
    /// What the texts so far cost.
    steps: usize,
    /// Pointer to the text with which they cost too much.
    costly: Option<String>,
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

    /// Adds what a text costs.
    fn spend(&mut self, steps: usize, pointer: &str) {
        self.steps += steps;
        if self.steps > self.max_steps && self.costly.is_none() {
            self.costly = Some(pointer.to_owned());
        }
    }

    fn refuse_costly(&mut self) {
        if let Some(pointer) = self.costly.take() {
            let (limit, found) = (self.max_steps, self.steps);
            let message = format!(
                "with this text, comparing costs more than {limit} steps, and the whole document costs {found}; \
                 use fewer wildcards and variables, or divide it into several policies"
            );
            self.add(&pointer, "too_complex", message);
        }
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

/// `; did you mean …?`, or nothing when no word is like this one.
fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |hint| format!("; did you mean {hint}?"))
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
