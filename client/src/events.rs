//! Server-Sent Events, as the API sends them.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Response};
use serde_json::Value;

use crate::{Client, Request, Result};

/// A stream that is silent for longer is taken for broken; the API sends a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// One event of a log: its position and what it says.
pub struct Event {
    pub position: String,
    pub data: Value,
}

/// The events of a project or of the cloud. It comes again after each break and goes on where it was.
pub struct EventStream<'a> {
    client: &'a Client,
    path: &'a str,
    last: Option<String>,
    open: Option<(Response, BytesMut)>,
}

impl<'a> EventStream<'a> {
    /// After the event at this position; from now on, without one.
    pub fn new(client: &'a Client, path: &'a str, after: Option<String>) -> Self {
        Self { client, path, last: after, open: None }
    }

    /// # Errors
    /// What the API refuses, and when it does not answer for half a minute.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            let (mut response, mut buffer) = match self.open.take() {
                Some(open) => open,
                None => (self.connect().await?, BytesMut::new()),
            };
            if let Some(event) = take_event(&mut buffer) {
                self.last = Some(event.position.clone());
                self.open = Some((response, buffer));
                return Ok(event);
            }
            if let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE, response.chunk()).await {
                buffer.extend_from_slice(&chunk);
                self.open = Some((response, buffer));
            }
        }
    }

    async fn connect(&self) -> Result<Response> {
        let mut request = Request::new(Method::GET, self.path);
        if let Some(value) = self.last.as_deref().and_then(|last| HeaderValue::from_str(last).ok()) {
            request.headers.push((HeaderName::from_static("last-event-id"), value));
        }
        self.client.open(&request).await
    }
}

/// The first whole message of the buffer that is an event.
fn take_event(buffer: &mut BytesMut) -> Option<Event> {
    loop {
        let end = buffer.windows(2).position(|two| two == b"\n\n")?;
        let message = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.advance(end + 2);
        let field = |name: &str| {
            let lines = message.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            lines
                .map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned())
                .reduce(|a, b| a + "\n" + &b)
        };
        if let (Some(position), Some(data)) = (field("id"), field("data"))
            && let Ok(data) = serde_json::from_str(&data)
        {
            return Some(Event { position, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_one_by_one_however_they_arrive() {
        let text = ": hello\n\nid: 7\nevent: event\ndata: {\"kind\":\ndata:  \"instance\"}\n\nid: 8\ndata: {}\n\nid: 9\nda";
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in text.bytes() {
            buffer.extend_from_slice(&[byte]);
            taken.extend(take_event(&mut buffer).map(|event| (event.position, event.data)));
        }
        assert_eq!(
            taken,
            [
                ("7".to_owned(), serde_json::json!({"kind": "instance"})),
                ("8".to_owned(), serde_json::json!({})),
            ]
        );
        assert_eq!(&buffer[..], b"id: 9\nda");
    }
}
