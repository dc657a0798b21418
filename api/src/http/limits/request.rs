//! The bounds of one request: its head, and the time of its handler.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::super::problem::{ApiError, ErrorCode};

const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 64;

/// The last resort, for a handler that hangs: the longest `wait` and a minute. Everything that a handler
/// waits for has a shorter limit of its own.
pub(in super::super) const HANDLER_PATIENCE: Duration = Duration::from_secs(360);

/// Headers of which a second one would be somebody's attempt to be read one way here and another elsewhere.
const ONCE: [HeaderName; 4] =
    [header::AUTHORIZATION, header::CONTENT_TYPE, header::HOST, HeaderName::from_static("idempotency-key")];

/// Refuses heads that are too large or ambiguous, and gives up on handlers that take too long. The time
/// counts anew from each piece of the body that arrives, so an upload may take as long as it flows, and ends
/// with the head of the answer, so a stream may flow as long as it likes.
pub(in super::super) async fn bounded(
    State(patience): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(refusal) = check_head(&request) {
        return refusal.into_response();
    }
    let progress = Progress::now();
    let request = request.map(|body| progress.watch(body));
    let mut answer = pin!(next.run(request));
    loop {
        let deadline = progress.last() + patience;
        match timeout_at(deadline, &mut answer).await {
            Ok(answer) => return answer,
            Err(_) if progress.last() + patience > deadline => {}
            Err(_) => break,
        }
    }
    tracing::warn!("gave up a request after {} seconds", patience.as_secs());
    ApiError::new(ErrorCode::Timeout).into_response()
}

fn check_head(request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    // As they are sent: `name: value` and a line break.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > MAX_HEADERS || bytes + request.uri().to_string().len() > MAX_HEAD_BYTES {
        let detail = "address and headers have at most 32 KiB together, and there are at most 64 headers";
        return Err(ApiError::because(ErrorCode::HeadersTooLarge, detail));
    }
    match ONCE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        Some(name) => Err(ApiError::because(
            ErrorCode::InvalidHeader,
            format!("there is more than one `{name}` header"),
        )),
        None => Ok(()),
    }
}

/// When the request last made progress.
#[derive(Clone)]
struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same body, each piece of which is progress.
    fn watch(&self, body: Body) -> Body {
        if hyper::body::Body::is_end_stream(&body) {
            return body;
        }
        let progress = self.clone();
        Body::new(body.map_frame(move |frame| {
            *progress.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            frame
        }))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Bytes;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{get, post};
    use tower::ServiceExt as _;

    use super::*;

    async fn status(patience: Duration, request: Request) -> StatusCode {
        let router = Router::new()
            .route("/hang", get(std::future::pending::<()>))
            .route("/read", post(async |body: Bytes| body.len().to_string()))
            .layer(from_fn_with_state(patience, bounded));
        router.oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_handler_that_hangs_is_given_up() {
        let request = Request::get("/hang").body(Body::empty()).unwrap();
        assert_eq!(status(Duration::from_millis(20), request).await, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_body_that_flows_may_take_longer() {
        let pieces = futures_util::stream::unfold(0, async |count| {
            tokio::time::sleep(Duration::from_millis(200)).await;
            (count < 8).then(|| (Ok::<_, std::io::Error>(Bytes::from_static(b"x")), count + 1))
        });
        let request = Request::post("/read").body(Body::from_stream(pieces)).unwrap();
        assert_eq!(status(Duration::from_secs(1), request).await, StatusCode::OK);
        let stuck = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let request = Request::post("/read").body(stuck).unwrap();
        assert_eq!(status(Duration::from_millis(20), request).await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
