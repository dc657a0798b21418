//! The outermost layer: request ids, problem documents, security headers, metrics and one log line.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use protocol::RequestId;
use tracing::Instrument;

use super::client::Client;
use super::headers::SecurityHeaders;
use super::limits::Standings;
use super::problem::{ErrorCode, Failure, Problem};
use crate::app::App;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Gives the request an id (the caller's, if it is a UUID), and the answer its final form.
pub(super) async fn wrap(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = incoming_id(request.headers()).unwrap_or_else(|| app.clock.new_id());
    let client = Client::find(request.extensions(), request.headers(), &app.edge.trusted_proxies);
    let security = SecurityHeaders::new(request.uri().path(), client);
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(client);
    let standings = Standings::default();
    request.extensions_mut().insert(standings.clone());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let span = tracing::info_span!("request", %id, %method, route, client = %client.address);
    let started = Instant::now();

    let response = next.run(request).instrument(span.clone()).await;

    let mut response = span.in_scope(|| finish(response, id));
    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    tracing::debug!(parent: &span, status, elapsed_ms = elapsed.as_secs_f64() * 1e3, "answered");
    metrics::histogram!("cumulo_http_request_duration_seconds",
        "method" => known(&method), "route" => route, "status" => status.to_string())
    .record(elapsed.as_secs_f64());
    standings.add_headers(response.headers_mut());
    security.add(response.headers_mut());
    add_headers(response.headers_mut(), id);
    response
}

/// A label of few values, whatever callers invent.
fn known(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

/// An id of the caller's is taken when it is a UUID; anything else is replaced, never echoed.
fn incoming_id(headers: &HeaderMap) -> Option<RequestId> {
    headers.get(X_REQUEST_ID)?.to_str().ok()?.parse().ok()
}

/// Turns every error status into a problem document, also those that the framework made.
fn finish(mut response: Response, id: RequestId) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let failure = match response.extensions_mut().remove::<Arc<Failure>>() {
        Some(failure) => failure,
        None if response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM_JSON) => return response,
        None => Arc::new(rejected(&response)),
    };
    log_failure(&failure);
    let problem = Problem {
        kind: "about:blank",
        code: failure.code.as_str(),
        title: failure.code.title(),
        status: failure.code.status().as_u16(),
        detail: failure.detail.clone(),
        request_id: id.to_string(),
        errors: failure.errors.clone(),
        denial: failure.denial.clone(),
        quota: failure.quota.clone(),
        placement: failure.placement.clone(),
    };
    let mut rendered = (failure.code.status(), axum::Json(problem)).into_response();
    let headers = rendered.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    if let Some(allow) = response.headers().get(header::ALLOW) {
        headers.insert(header::ALLOW, allow.clone());
    }
    if failure.code.status() == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = failure.retry_after_secs {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    rendered
}

/// The chain of causes is logged here and nowhere else.
fn log_failure(failure: &Failure) {
    let Some(cause) = &failure.cause else { return };
    let mut chain = cause.to_string();
    let mut next = cause.source();
    while let Some(source) = next {
        chain.push_str(": ");
        chain.push_str(&source.to_string());
        next = source.source();
    }
    match failure.code {
        ErrorCode::Internal => tracing::error!(code = failure.code.as_str(), cause = %chain, "call failed"),
        _ => tracing::info!(code = failure.code.as_str(), cause = %chain, "call refused"),
    }
}

/// What the framework has refused.
fn rejected(response: &Response) -> Failure {
    let mut failure = Failure::new(code_for(response.status()));
    // The framework adds the header when this is over.
    if failure.code == ErrorCode::MethodNotAllowed {
        failure.detail = Some("the header `Allow` names the methods that this path takes".into());
    }
    failure
}

/// What the framework's own rejections mean.
fn code_for(status: StatusCode) -> ErrorCode {
    match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ErrorCode::HeadersTooLarge,
        StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
        status if status.is_client_error() => ErrorCode::BadRequest,
        _ => ErrorCode::Internal,
    }
}

fn add_headers(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(X_REQUEST_ID, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The answer to a panic in a handler; the panic itself has been logged by the runtime's hook.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
