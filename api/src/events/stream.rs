//! Server-Sent Events (HTML standard, section 9.2): a log as it grows.
//!
//! A stream is a reader like any other: it looks at the log after the last position that it has sent, sends
//! what it finds, and waits for a nudge. Each look decides anew whether the caller may still read, and takes a
//! connection only for itself. Nothing is kept for a stream that breaks off: its client comes back with
//! `Last-Event-ID`, to whichever replica.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::log::Log;
use super::types::{Event, StreamQuery};
use crate::app::App;
use crate::http::{ApiError, Call, ErrorCode};
use crate::nudge::{Topic, Waiter};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Proxies shall pass events on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Keeps connections alive, and finds those that are dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a caller whose right is gone may stay, if nothing happens.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
const BATCH: i64 = 200;
/// Connections that all streams together may take: an event that wakes a thousand of them shall not keep
/// other calls from theirs.
const LOOKS_AT_ONCE: usize = 4;
const MAX_STREAMS: usize = 1024;
const MAX_STREAMS_OF_ONE: usize = 16;

/// The streams of this process.
#[derive(Clone)]
pub struct EventStreams {
    /// Those that are open, counted by principal.
    open: Arc<Mutex<HashMap<Uuid, usize>>>,
    looks: Arc<Semaphore>,
}

impl Default for EventStreams {
    fn default() -> Self {
        Self { open: Arc::default(), looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)) }
    }
}

/// Stands for an open stream.
struct Slot {
    principal: Uuid,
    streams: EventStreams,
}

impl EventStreams {
    fn open(&self, principal: Uuid) -> Result<Slot, ApiError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        if all >= MAX_STREAMS {
            let detail = "too many event streams are open on this server";
            return Err(ApiError::because(ErrorCode::Busy, detail).retry_after(10));
        }
        let own = open.entry(principal).or_default();
        if *own >= MAX_STREAMS_OF_ONE {
            let detail = format!("{MAX_STREAMS_OF_ONE} of your event streams are open; close one");
            return Err(ApiError::because(ErrorCode::TooManyRequests, detail).retry_after(10));
        }
        *own += 1;
        Ok(Slot { principal, streams: self.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.principal);
            }
        }
    }
}

/// Answers with the events of the log, for as long as the caller listens and may.
pub(super) async fn follow(app: App, call: Call, log: Log) -> Result<Response, ApiError> {
    let after = match last_event_id(&call)? {
        Some(position) => Some(position),
        None => call.query::<StreamQuery>()?.after()?,
    };
    let first = log.look(&app, &call, after, BATCH).await?;
    let slot = app.event_streams.open(first.principal)?;
    let follower = Follower {
        waiter: app.nudges.subscribe(Topic::EventLog(first.log_id)),
        log: log.pinned(first.log_id),
        position: first.page.last_position,
        // Between that look and the subscription something may have happened.
        wait: false,
        ready: first.page.items.into(),
        app,
        call,
        _slot: slot,
    };
    let frames = stream::unfold(follower, Follower::next);
    let answer = Sse::new(frames).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok(([(X_ACCEL_BUFFERING, HeaderValue::from_static("no"))], answer).into_response())
}

/// Where a client that comes back wants to go on.
fn last_event_id(call: &Call) -> Result<Option<i64>, ApiError> {
    let Some(value) = call.header(&LAST_EVENT_ID) else { return Ok(None) };
    let position = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|position| *position >= 0);
    position
        .map(Some)
        .ok_or_else(|| ApiError::because(ErrorCode::InvalidHeader, "Last-Event-ID: the position of an event"))
}

struct Follower {
    app: App,
    call: Call,
    log: Log,
    waiter: Waiter,
    /// Of the newest event that was read.
    position: i64,
    /// Whether everything had been read at the last look.
    wait: bool,
    /// Read and not sent.
    ready: VecDeque<Event>,
    _slot: Slot,
}

impl Follower {
    /// The next event. `None` when the stream is over: the caller may not read any more, the server shuts
    /// down, or something failed; whoever comes back learns which.
    async fn next(mut self) -> Option<(Result<Frame, Infallible>, Self)> {
        while self.ready.is_empty() {
            if self.wait {
                tokio::select! {
                    () = self.waiter.nudged(LOOK_AGAIN) => {}
                    () = self.app.shutdown.cancelled() => {}
                }
            }
            if self.app.shutdown.is_cancelled() {
                return None;
            }
            let _turn = self.app.event_streams.looks.acquire().await.ok()?;
            let look = self.log.look(&self.app, &self.call, Some(self.position), BATCH).await.ok()?;
            self.position = look.page.last_position;
            self.wait = look.page.last_position == look.page.head;
            self.ready = look.page.items.into();
        }
        let event = self.ready.pop_front()?;
        let frame = Frame::default().id(event.position.to_string()).json_data(&event).ok()?;
        Some((Ok(frame), self))
    }
}
