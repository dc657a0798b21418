//! Descriptions: free text on resources, for people.

use super::problem::{ApiError, FieldError};

const MAX_CHARS: usize = 1000;

/// Adds an error when the description breaks the rules. PostgreSQL has no place for NUL, and a description
/// needs none.
pub fn validate_description(description: &str, errors: &mut Vec<FieldError>) {
    validate_description_at("", description, errors);
}

/// The same for the description of something inside the body: `parent` points at it.
pub(crate) fn validate_description_at(parent: &str, description: &str, errors: &mut Vec<FieldError>) {
    if description.chars().count() > MAX_CHARS || description.contains('\0') {
        let message = format!("at most {MAX_CHARS} characters, without NUL");
        errors.push(FieldError::new(format!("{parent}/description"), "invalid", message));
    }
}

/// Goes on when the description, the only field to check, keeps the rules.
pub(crate) fn reject_description(description: &str) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    validate_description(description, &mut errors);
    ApiError::reject(errors)
}
