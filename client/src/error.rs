//! What can go wrong, and what the API says when it refuses.

use std::fmt;

use serde::Deserialize;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Neither an answer nor a refusal, also after repetitions.
    #[error("{url} does not answer: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("{url} answered {status}, which is no answer of Cumulo's")]
    Foreign { url: String, status: u16 },
    #[error("{0}")]
    NotSignedIn(String),
    /// It is not said which cloud is meant, or not so that it can be found.
    #[error("{0}")]
    NoPlace(String),
    #[error("{path}: {cause}")]
    File { path: String, cause: std::io::Error },
}

impl Error {
    /// The problem's code, if the API has refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

/// What the API says when it refuses (RFC 9457).
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    pub title: String,
    pub detail: Option<String>,
    pub request_id: String,
    #[serde(default)]
    pub errors: Vec<FieldError>,
    pub denial: Option<Denial>,
    #[serde(default)]
    pub quota: Vec<ExceededLimit>,
}

/// A wrong field of the body; the pointer is a JSON pointer (RFC 6901).
#[derive(Debug, Clone, Deserialize)]
pub struct FieldError {
    /// Like `out_of_range`.
    #[serde(default)]
    pub code: String,
    pub pointer: String,
    pub message: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Denial {
    pub action: String,
    pub resource: String,
    pub statements: Vec<Statement>,
    pub denied_by_api_key_policy: bool,
}

/// A statement of a policy that denies. `statement` counts from 0.
#[derive(Debug, Clone, Deserialize)]
pub struct Statement {
    pub policy: Option<String>,
    pub version: Option<i32>,
    pub statement: usize,
    pub sid: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ExceededLimit {
    pub resource: String,
    pub limit: i64,
    pub used: i64,
    pub asked: i64,
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.detail.as_deref().unwrap_or(&self.title))
    }
}
