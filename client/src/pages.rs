//! Lists that come in pages.

use reqwest::Method;
use serde_json::Value;

use crate::{Client, Request, Result};

/// A list, page by page.
pub struct Pages<'a> {
    client: &'a Client,
    path: &'a str,
    query: Vec<(String, String)>,
    next: Next,
}

enum Next {
    First,
    After(String),
    End,
}

impl<'a> Pages<'a> {
    pub fn new(client: &'a Client, path: &'a str, query: Vec<(String, String)>) -> Self {
        Self { client, path, query, next: Next::First }
    }

    /// The items of the next page; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>> {
        let mut request = Request::new(Method::GET, self.path);
        request.query.clone_from(&self.query);
        match &self.next {
            Next::First => {}
            Next::After(cursor) => request = request.query("cursor", cursor),
            Next::End => return Ok(None),
        }
        let mut body = self.client.send(&request).await?.body;
        self.next = match body["next_cursor"].as_str() {
            Some(cursor) => Next::After(cursor.to_owned()),
            None => Next::End,
        };
        Ok(Some(match body["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }))
    }
}
