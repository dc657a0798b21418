//! Export: the file as it was uploaded, whole or in ranges.

use std::ops::Range;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::{BlobId, Sha256};

use super::super::store::{self, ImageRow};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, Path};

/// RFC 9530.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Get the file of an image, as it was uploaded.
///
/// `ETag` is the SHA-256 of the file. `Range` with one range gives a part of it, so that `curl --continue-at -` goes
/// on after a broken connection.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}/content", tag = "images",
    params(
        ("Range" = Option<String>, Header, description = "One range of bytes, `bytes=<first>-<last>`"),
        ("If-Range" = Option<String>, Header, description = "Without it being the `ETag`, the whole file comes"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream", description = "The range"),
        (status = 304, description = "`If-None-Match` names the file that it is"),
        (status = 416, description = "`range_not_satisfiable`"),
))]
pub(super) async fn export_image(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    method: Method,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::ExportImage>(&app, (&project, &image)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    drop(reading);
    let file = File::of(&row)?;
    let etag = format!("\"{}\"", file.sha256);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::ETAG, etag.clone()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.{}\"", row.name, row.format)),
        (REPR_DIGEST, format!("sha-256=:{}:", STANDARD.encode(file.sha256.as_bytes()))),
    ] {
        headers.insert(name, value.parse().map_err(ApiError::internal)?);
    }
    let text = |name: &HeaderName| call.header(name).and_then(|value| value.to_str().ok());
    if text(&header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"))
    {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let same = text(&header::IF_RANGE).is_none_or(|tag| tag == etag);
    let wanted = text(&header::RANGE).filter(|_| same).and_then(|range| parse_range(range, file.size_bytes));
    let (status, range) = match wanted {
        None => (StatusCode::OK, 0..file.size_bytes),
        Some(Some(range)) => {
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, file.size_bytes);
            headers.insert(header::CONTENT_RANGE, text.parse().map_err(ApiError::internal)?);
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Some(None) => {
            let detail = format!("the file has {} bytes", file.size_bytes);
            return Err(ApiError::because(ErrorCode::RangeNotSatisfiable, detail));
        }
    };
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    let stream = app.images.stream_range(file.blob, range).await.map_err(ApiError::internal)?;
    Ok((status, headers, Body::from_stream(stream)).into_response())
}

struct File {
    blob: BlobId,
    sha256: Sha256,
    size_bytes: u64,
}

impl File {
    fn of(row: &ImageRow) -> Result<Self, ApiError> {
        let missing = || {
            ApiError::because(
                ErrorCode::WrongState,
                "the image has no content yet; upload or import it first",
            )
        };
        Ok(Self {
            blob: row.blob_id.ok_or_else(missing)?.into(),
            sha256: row.sha256.clone().and_then(store::digest).ok_or_else(missing)?,
            size_bytes: row.size_bytes.ok_or_else(missing)?.cast_unsigned(),
        })
    }
}

/// The range that is meant; `Some(None)` when the file ends before it. `None` for what is no single range: the
/// whole file is the answer then.
fn parse_range(text: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    let range = if first.is_empty() {
        // The last so many bytes.
        let count = number(last)?;
        size.saturating_sub(count)..size
    } else {
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        first..size.min(last.saturating_add(1))
    };
    Some((range.start < range.end).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (text, range) in [
            ("bytes=0-99", Some(Some(0..10))),
            ("bytes=0-0", Some(Some(0..1))),
            ("bytes=9-", Some(Some(9..10))),
            ("bytes=-3", Some(Some(7..10))),
            ("bytes=-99", Some(Some(0..10))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=0-18446744073709551615", Some(Some(0..10))),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=99999999999999999999-", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(parse_range(text, 10), range, "{text}");
        }
    }
}
