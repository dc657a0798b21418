//! One connection: its requests, and how long each side may keep the other waiting.
//!
//! hyper reads and answers; it has one timeout, which cannot tell a client that is slow to say what it wants
//! from one that wants nothing at the moment. So we look after every step at what the connection waits for,
//! and end it when that lasts too long:
//!
//! | waits for | at most | then |
//! |---|---|---|
//! | a request that has begun to arrive, or the first one | 10 s | cut |
//! | the next request | 75 s | closed in order |
//! | the client to take an answer | 60 s without a byte | cut |
//! | a handler | no limit here, see `http/limits` | |

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::Accepted;
use super::traffic::{Counted, Traffic, Waiting, Watched};

/// Heads of requests that hyper refuses by itself, without a problem document. `http/limits` refuses smaller
/// ones, with one.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
const MAX_STREAMS: u32 = 128;
/// HTTP/2 asks this often whether the client is still there, and waits as long for an answer.
const PING: Duration = Duration::from_secs(20);

/// How long the other side may take; see above.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub head: Duration,
    pub idle: Duration,
    pub reader: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(75), reader: Duration::from_secs(60) }
    }
}

/// Serves the requests of a connection until it ends. The shutdown lets those under way finish.
pub(super) async fn run(accepted: Accepted, router: Router, patience: Patience, shutdown: CancellationToken) {
    let Accepted { stream, peer, slot } = accepted;
    let traffic = Arc::new(Traffic::default());
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&traffic), slot));
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = traffic.begin(request.version() == Version::HTTP_2);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().call(request);
        async move { answer.await.map(|response| response.map(|body| Counted::new(body, under_way))) }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut stop = pin!(shutdown.cancelled());
    let mut deadline = Deadline::new(patience);
    let mut closing = false;
    poll_fn(|context| {
        if !closing && stop.as_mut().poll(context).is_ready() {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            traffic.wake_for_answers(context);
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                if let Err(error) = ended {
                    tracing::debug!(address = %peer.address, %error, "a connection broke");
                }
                return Poll::Ready(());
            }
            let waiting = traffic.waiting(closing);
            ready!(deadline.poll(context, waiting));
            if !matches!(waiting, Waiting::NextRequest { .. }) {
                tracing::debug!(address = %peer.address, ?waiting, "gave up a connection");
                return Poll::Ready(());
            }
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
    // The deadline below is ours.
    builder.http1().header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// Runs out when the connection has waited too long for one and the same thing.
struct Deadline {
    patience: Patience,
    waiting: Option<Waiting>,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(patience: Patience) -> Self {
        Self { patience, waiting: None, sleep: Box::pin(sleep(patience.head)) }
    }

    fn poll(&mut self, context: &mut Context<'_>, waiting: Waiting) -> Poll<()> {
        let limit = match waiting {
            Waiting::Handler => {
                self.waiting = None;
                return Poll::Pending;
            }
            Waiting::Head { .. } | Waiting::End => self.patience.head,
            Waiting::NextRequest { .. } => self.patience.idle,
            Waiting::Reader { .. } => self.patience.reader,
        };
        if self.waiting.replace(waiting) != Some(waiting) {
            self.sleep.as_mut().reset(Instant::now() + limit);
        }
        self.sleep.as_mut().poll(context)
    }
}
