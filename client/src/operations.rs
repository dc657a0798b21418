//! Work that goes on after the answer.

use serde::Deserialize;
use serde_json::Value;

use crate::{Client, Error, Method, Request, Result};

/// So long the API is asked to wait for the next step, seconds.
const LOOK: u32 = 10;

/// The record of a call that takes time. `status` is `pending`, `running`, `succeeded`, `failed` or `cancelled`.
#[derive(Debug, Deserialize)]
pub struct Operation {
    pub id: String,
    pub kind: String,
    pub status: String,
    pub progress_percent: u8,
    pub progress: Option<Progress>,
    pub trail: Vec<Step>,
    pub error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
pub struct Progress {
    pub bytes: u64,
    pub total_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub struct Step {
    pub step: String,
    pub at: String,
    pub detail: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Failure {
    pub code: String,
    pub detail: Option<String>,
}

/// An operation that was accepted and has not succeeded.
#[derive(Debug, thiserror::Error)]
#[error("{kind} has {status}: {reason}\n  every step: cumulo explain operation {id}")]
pub struct Failed {
    kind: String,
    status: String,
    reason: String,
    id: String,
}

impl Operation {
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "pending" | "running")
    }

    /// Of one that has ended.
    pub fn outcome(self) -> std::result::Result<(), Failed> {
        if self.status == "succeeded" {
            return Ok(());
        }
        let reason = self.error.map(|error| error.detail.unwrap_or(error.code)).unwrap_or_default();
        Err(Failed { kind: self.kind.replace('_', " "), status: self.status, reason, id: self.id })
    }
}

/// The operation that an answer names, or is.
pub fn operation_of(answer: &Value) -> Option<&str> {
    let named = answer["operation"]["id"].as_str().or(answer["operation_id"].as_str());
    named.or_else(|| answer.get("trail").and(answer["id"].as_str()))
}

impl Client {
    pub async fn operation(&self, project: &str, id: &str) -> Result<Operation> {
        self.parse_operation(self.get(&path(project, id)).await?)
    }

    /// Asks until the operation has ended, and tells of each look.
    pub async fn wait(&self, project: &str, id: &str, mut seen: impl FnMut(&Operation)) -> Result<Operation> {
        let path = path(project, id);
        loop {
            let request = Request::new(Method::GET, &path).query("wait", &LOOK);
            let operation = self.parse_operation(self.send(&request).await?.body)?;
            seen(&operation);
            if operation.has_ended() {
                return Ok(operation);
            }
        }
    }

    fn parse_operation(&self, body: Value) -> Result<Operation> {
        serde_json::from_value(body).map_err(|_| Error::Foreign { url: self.url().to_owned(), status: 200 })
    }
}

fn path(project: &str, id: &str) -> String {
    format!("/v1/projects/{project}/operations/{id}")
}
