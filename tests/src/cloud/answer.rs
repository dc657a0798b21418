//! One answer of the API.

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderMap;
use serde_json::Value;

#[derive(Debug)]
pub struct Answer {
    /// What was asked, for messages.
    pub asked: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Null when the body is no JSON.
    pub body: Value,
}

impl Answer {
    pub(crate) async fn of(sent: reqwest::Result<reqwest::Response>, asked: String) -> Result<Self> {
        let response = sent.with_context(|| asked.clone())?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.with_context(|| asked.clone())?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Self { asked, status, headers, text, body })
    }

    /// The body of a 2xx answer.
    pub fn success(self) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "{} answers {}: {}", self.asked, self.status, self.text);
        Ok(self.body)
    }

    /// The body of exactly this status.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "{} answers {}, not {status}: {}", self.asked, self.status, self.text);
        Ok(self.body)
    }

    /// The problem document of an error with this status and code.
    pub fn problem(self, status: u16, code: &str) -> Result<Value> {
        let kind =
            self.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let asked = self.asked.clone();
        let body = self.expect(status)?;
        ensure!(kind.starts_with("application/problem+json"), "{asked}: the error is {kind:?}");
        ensure!(body["code"] == code, "{asked}: the code is {}, not {code}", body["code"]);
        Ok(body)
    }
}
