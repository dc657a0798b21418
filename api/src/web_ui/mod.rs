//! The web console: the files that `web-ui/` was built into, inside the program.
//!
//! It is a page like any other client's and asks the API for everything, so there is nothing here but files. Its
//! pages lie below a few prefixes of their own; whatever else nobody serves stays a problem document.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::http::ApiError;

#[cfg(test)]
mod tests;

/// A file of the console.
#[derive(Debug, Clone, Copy)]
struct File {
    name: &'static str,
    plain: &'static [u8],
    /// The same, compressed, where that is worth while.
    gzip: Option<&'static [u8]>,
}

/// None but when the console has been built before the API.
static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/console_files.rs"));

/// Takes the place of a console that has not been built.
static STUB: File = File { name: "index.html", plain: include_bytes!("stub.html"), gzip: None };

/// Scripts come from here and from nowhere else, and none stands in the page. Mantine writes style elements.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The name of such a file changes with its content.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

pub(crate) fn router() -> Router<App> {
    let mut router = Router::new()
        .route("/", get(page))
        .route("/icon.svg", get(async |headers: HeaderMap| file(&headers, "icon.svg")))
        .route("/assets/{file}", get(asset));
    for place in ["/projects", "/cloud", "/account"] {
        router = router.route(place, get(page)).route(&format!("{place}/{{*rest}}"), get(page));
    }
    router
}

/// The same page everywhere: what it shows, its script finds in the address.
async fn page(headers: HeaderMap) -> Response {
    let index = find("index.html").unwrap_or(&STUB);
    let mut response = send(&headers, index, ASK_AGAIN);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    response
}

async fn asset(headers: HeaderMap, Path(name): Path<String>) -> Response {
    file(&headers, &format!("assets/{name}"))
}

fn file(headers: &HeaderMap, name: &str) -> Response {
    let caching = if name.starts_with("assets/") { FOREVER } else { ASK_AGAIN };
    find(name).map_or_else(|| ApiError::not_found().into_response(), |file| send(headers, file, caching))
}

fn find(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

fn send(headers: &HeaderMap, file: &'static File, caching: HeaderValue) -> Response {
    let compressed = file.gzip.filter(|_| takes_gzip(headers));
    let body = compressed.unwrap_or(file.plain);
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(body)[..16]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let mut response = if known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, media_type(file.name))], body).into_response()
    };
    let answer = response.headers_mut();
    answer.insert(header::CACHE_CONTROL, caching);
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        answer.insert(header::ETAG, etag);
    }
    if compressed.is_some() {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether the caller lists gzip, and does not rule it out.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        named && !parts.any(|weight| matches!(weight, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
