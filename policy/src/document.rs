//! A document that has been validated, in its canonical form.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::cost::MAX_STEPS;
use crate::validate::{self, Finding};
use crate::vocabulary::Vocabulary;

/// The longest document, in its canonical form.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
/// The most statements of a document.
pub const MAX_STATEMENTS: usize = 200;

/// A policy document. Serializes to its canonical form: lists are lists, values are texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    pub(crate) version: &'static str,
    pub(crate) statement: Vec<Statement>,
    /// The actions that it was validated with, and is compiled for.
    #[serde(skip)]
    pub(crate) actions: &'static [&'static str],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Statement {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    pub effect: Effect,
    #[serde(flatten)]
    pub action: ActionElement,
    #[serde(flatten)]
    pub resource: ResourceElement,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum ActionElement {
    Action(Vec<String>),
    NotAction(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum ResourceElement {
    Resource(Vec<String>),
    NotResource(Vec<String>),
}

impl Document {
    /// Validates a document.
    ///
    /// # Errors
    /// Everything that is wrong with it, up to a number that a person can read.
    pub fn parse(value: &Value, vocabulary: &Vocabulary) -> Result<Self, Vec<Finding>> {
        validate::document(value, vocabulary, MAX_STEPS)
    }

    /// Validates a document that was accepted once, whatever it costs: a limit that comes later takes no rights
    /// away, and no denials.
    ///
    /// # Errors
    /// As for [`Document::parse`].
    pub fn parse_stored(value: &Value, vocabulary: &Vocabulary) -> Result<Self, Vec<Finding>> {
        validate::document(value, vocabulary, usize::MAX)
    }
}
