//! Server-Sent Events: resumed, ended, and bounded.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{CLOUD, EVENTS, all, demo, execute, sequence};
use crate::nudge::{self, Topic};
use crate::testing::{TestCloud, request};

const STREAM: &str = "/v1/projects/demo/events/stream";

/// An open stream.
struct Frames {
    bytes: Pin<Box<dyn Stream<Item = Result<Bytes, axum::Error>> + Send>>,
    text: String,
}

impl Frames {
    async fn open(cloud: &TestCloud, path: &str, headers: &[(&str, &str)]) -> Self {
        let bearer = format!("Bearer {}", cloud.token().await);
        let mut all = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            all.push(("authorization", &bearer));
        }
        let answer =
            cloud.router.clone().oneshot(request(Method::GET, path, &all, String::new())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        Self { bytes: Box::pin(answer.into_body().into_data_stream()), text: String::new() }
    }

    /// The next event, or `None` when the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
                let Some(data) = field("data: ") else { continue };
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!(field("id: "), Some(event["position"].to_string().as_str()));
                return Some(event);
            }
            let bytes = tokio::time::timeout(Duration::from_secs(50), self.bytes.next()).await;
            let bytes = bytes.expect("the stream neither says anything nor ends")?.unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Positions of the next so many events.
    async fn positions(&mut self, count: usize) -> Vec<u64> {
        let mut positions = Vec::new();
        while positions.len() < count {
            positions.push(self.next().await.expect("an event")["position"].as_u64().unwrap());
        }
        positions
    }
}

async fn change(cloud: &TestCloud, description: &str) {
    execute(cloud, &format!("UPDATE projects SET description = '{description}'")).await;
}

#[tokio::test]
async fn a_stream_is_resumed_on_another_replica_after_a_restart() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let whole = all(&cloud, EVENTS).await.len() as u64;
    let mut stream = Frames::open(&cloud, STREAM, &[]).await;
    assert_eq!(stream.positions(7).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(whole, 7);
    let follow = async {
        let live = stream.next().await.unwrap();
        assert_eq!((&live["position"], &live["change"]), (&json!(8), &json!("updated")));
    };
    let write = async {
        change(&cloud, "one").await;
        sequence(&cloud.app).await.unwrap();
    };
    tokio::join!(follow, write);

    cloud.app.shutdown.cancel();
    assert_eq!(stream.next().await, None);
    // Nobody numbers this before the restart.
    change(&cloud, "two").await;
    let restarted = cloud.replica().await;
    let mut stream = Frames::open(&restarted, &format!("{STREAM}?after=1"), &[("last-event-id", "8")]).await;
    sequence(&restarted.app).await.unwrap();
    assert_eq!(stream.positions(1).await, [9]);
    let mut again = Frames::open(&restarted, &format!("{STREAM}?after=7"), &[]).await;
    assert_eq!(again.positions(2).await, [8, 9]);
}

#[tokio::test]
async fn events_flow_through_a_socket_until_the_shutdown() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let whole = all(&cloud, EVENTS).await.len();
    let url = format!("http://{}{STREAM}", cloud.listen().await);
    let answer = reqwest::Client::new().get(url).bearer_auth(cloud.token().await).send().await.unwrap();
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    let bytes = answer.bytes_stream().map(|bytes| bytes.map_err(axum::Error::new));
    let mut stream = Frames { bytes: Box::pin(bytes), text: String::new() };
    stream.positions(whole).await;
    change(&cloud, "live").await;
    sequence(&cloud.app).await.unwrap();
    assert_eq!(stream.positions(1).await, [whole as u64 + 1]);
    cloud.app.shutdown.cancel();
    // In order: a connection that is cut would be an error.
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn the_cloud_is_followed_alike() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let whole = all(&cloud, CLOUD).await.len();
    let mut stream = Frames::open(&cloud, "/v1/events/stream", &[]).await;
    assert_eq!(stream.positions(whole).await, (1..=whole as u64).collect::<Vec<_>>());
    let bad = [("last-event-id", "yesterday")];
    let refused = cloud.call_with(Method::GET, "/v1/events/stream", &bad, None).await;
    refused.expect_problem(400, "invalid_header");
    cloud.get("/v1/events/stream?after=99").await.expect_problem(410, "cursor_expired");
}

#[tokio::test]
async fn a_stream_ends_when_its_caller_may_not_read_any_more() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let bearer = cloud.user("rita", false).await;
    let headers = [("authorization", bearer.as_str())];
    let attach = "INSERT INTO policy_attachments (id, policy_id, principal_id, project_id, created_at)
                  SELECT gen_random_uuid(), o.id, p.id, j.id, j.created_at
                  FROM policies o, principals p, projects j WHERE o.name = 'read-only' AND p.name = 'rita'";
    let detach = "DELETE FROM policy_attachments WHERE project_id IS NOT NULL";

    // With an event that must not be seen any more, and without one.
    for quiet in [false, true] {
        execute(&cloud, attach).await;
        let whole = all(&cloud, EVENTS).await.len();
        let mut stream = Frames::open(&cloud, STREAM, &headers).await;
        stream.positions(whole).await;
        execute(&cloud, detach).await;
        let wake = async {
            if quiet {
                let topic = Topic::EventLog(demo(&cloud).await);
                nudge::send(&mut cloud.app.pool.acquire().await.unwrap(), topic).await.unwrap();
            } else {
                change(&cloud, "secret").await;
                sequence(&cloud.app).await.unwrap();
            }
        };
        assert_eq!(tokio::join!(stream.next(), wake).0, None);
    }
    cloud.call_with(Method::GET, STREAM, &headers, None).await.expect_problem(404, "not_found");
    cloud.call_with(Method::GET, EVENTS, &headers, None).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_stream_lives_as_long_as_its_access_token() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let whole = all(&cloud, EVENTS).await.len();
    let mut stream = Frames::open(&cloud, STREAM, &[]).await;
    stream.positions(whole).await;
    cloud.pass(900);
    let wake = async {
        change(&cloud, "later").await;
        sequence(&cloud.app).await.unwrap();
    };
    assert_eq!(tokio::join!(stream.next(), wake).0, None);
}

#[tokio::test]
async fn streams_are_bounded_and_hold_no_connection() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let whole = all(&cloud, EVENTS).await.len();
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = Frames::open(&cloud, STREAM, &[]).await;
        stream.positions(whole).await;
        streams.push(tokio::spawn(async move { stream.next().await }));
    }
    let refused = cloud.get(STREAM).await;
    refused.expect_problem(429, "too_many_requests");
    assert_eq!(refused.headers["retry-after"], "10");
    // The pool has eight connections, of which one listens for nudges.
    let taken = futures_util::future::join_all((0..7).map(|_| cloud.app.pool.acquire()));
    let taken = tokio::time::timeout(Duration::from_secs(20), taken).await.expect("a stream holds one");
    drop(taken);
    let closed = streams.pop().unwrap();
    closed.abort();
    closed.await.unwrap_err();
    Frames::open(&cloud, STREAM, &[]).await;
}
