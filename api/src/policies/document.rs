//! Policy documents on the wire.

use std::collections::BTreeMap;

use policy::{Document, Finding};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::auth::vocabulary;
use crate::http::{ApiError, FieldError, UniqueKeys};

/// A document as it is written or shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PolicyDocument(pub Value);

/// A policy in the language of AWS IAM:
///
/// ```json
/// {"Version": "2012-10-17", "Statement": [{
///   "Sid": "KeepTheDatabase", "Effect": "Deny", "Action": "compute:DeleteInstance",
///   "Resource": "crn:cumulo:compute:shop:instance/db",
///   "Condition": {"NotIpAddress": {"cumulo:SourceIp": "203.0.113.0/24"}}
/// }]}
/// ```
///
/// Nothing is allowed unless a statement allows it, and a statement that denies beats all that allow. At most
/// 200 statements and 64 KiB.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase")]
#[expect(dead_code, reason = "describes a shape; reading is the evaluator's business")]
struct Shape {
    /// `2012-10-17`, the only one.
    #[schema(pattern = "^2012-10-17$", example = "2012-10-17")]
    version: String,
    #[schema(inline, min_items = 1, max_items = 200)]
    statement: Vec<Statement>,
}

/// Either `Action` or `NotAction`, and either `Resource` or `NotResource`. One text may stand for a list of one.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase")]
#[expect(dead_code, reason = "describes a shape; reading is the evaluator's business")]
struct Statement {
    /// A name for the statement, which refusals mention: letters and digits.
    #[schema(pattern = "^[A-Za-z0-9]{1,64}$", nullable = false)]
    sid: Option<String>,
    /// `Allow` or `Deny`.
    #[schema(pattern = "^(Allow|Deny)$", example = "Allow")]
    effect: String,
    /// Like `compute:CreateInstance`, `compute:Get*` or `*`.
    #[schema(min_items = 1, nullable = false)]
    action: Option<Vec<String>>,
    /// All actions but these.
    #[schema(min_items = 1, nullable = false)]
    not_action: Option<Vec<String>>,
    /// Like `crn:cumulo:compute:shop:instance/web`, with an id instead of a name, or with `*` and `?`; `*` is
    /// everything.
    #[schema(min_items = 1, nullable = false)]
    resource: Option<Vec<String>>,
    /// All resources but these.
    #[schema(min_items = 1, nullable = false)]
    not_resource: Option<Vec<String>>,
    /// Operator, condition key, values: `{"NumericLessThanEquals": {"compute:Vcpus": ["4"]}}`. All have to hold;
    /// of several values one is enough.
    #[schema(nullable = false)]
    condition: Option<BTreeMap<String, BTreeMap<String, Vec<String>>>>,
}

/// Of two equal keys a reader would see one and the evaluator perhaps the other.
impl<'de> Deserialize<'de> for PolicyDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UniqueKeys::deserialize(deserializer).map(|read| Self(read.0))
    }
}

impl PartialSchema for PolicyDocument {
    fn schema() -> RefOr<Schema> {
        Shape::schema()
    }
}

impl ToSchema for PolicyDocument {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Shape::schemas(schemas);
    }
}

impl PolicyDocument {
    /// The document in its canonical form; whatever is wrong with it becomes an error below `pointer`.
    pub(crate) fn check(&self, pointer: &str, errors: &mut Vec<FieldError>) -> Option<Document> {
        match Document::parse(&self.0, &vocabulary()) {
            Ok(document) => Some(document),
            Err(findings) => {
                let below = |one: Finding| {
                    FieldError::new(format!("{pointer}{}", one.pointer), one.code, one.message)
                };
                errors.extend(findings.into_iter().map(below));
                None
            }
        }
    }

    /// Its canonical form.
    ///
    /// # Errors
    /// `validation_failed` with one error per finding.
    pub(super) fn canonical(&self, pointer: &str) -> Result<Value, ApiError> {
        let mut errors = Vec::new();
        match self.check(pointer, &mut errors) {
            Some(document) => serde_json::to_value(&document).map_err(ApiError::internal),
            None => Err(ApiError::invalid(errors)),
        }
    }
}
