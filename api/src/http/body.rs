//! JSON bodies: strict, and errors that point at the field.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::PartialSchema;
use utoipa::openapi::{RefOr, Schema};

use super::problem::{ApiError, ErrorCode, FieldError};
use super::unique_keys::UniqueKeys;
use super::words;

/// The largest body that is held in memory.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of a call that takes no fields.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

/// A bounded body, as it came.
pub(crate) struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read_bounded(request.into_body()).await.map(Self)
    }
}

/// A JSON body of a call that needs no sign-in; see [`parse_json`].
pub(crate) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read_bounded(body).await?;
        parse_json(&parts.headers, &body, Vec::new).map(Self)
    }
}

/// Reads a body of at most 1 MiB within 30 s.
pub(super) async fn read_bounded(body: Body) -> Result<Bytes, ApiError> {
    let read = Limited::new(body, MAX_BODY_BYTES).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(|_| {
        ApiError::because(ErrorCode::RequestTimeout, "the body did not arrive within 30 seconds")
    })?;
    body.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::because(ErrorCode::PayloadTooLarge, "a body has at most 1 MiB")
        } else {
            ApiError::caused(ErrorCode::BadRequest, error)
        }
    })
}

/// Parses a body; an empty one counts as `{}`.
///
/// # Errors
/// `unsupported_media_type` when it is not sent as JSON, which also keeps foreign web pages from sending it;
/// `invalid_json` when it is not JSON at all, `validation_failed` with a pointer when it is JSON of another
/// shape: a wrong type, an unknown or missing field, a value that its type refuses. When a field of the body itself is
/// missing, all of `required` that are not there are named.
pub(super) fn parse_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &[u8],
    required: impl FnOnce() -> Vec<String>,
) -> Result<T, ApiError> {
    check_media_type(headers, body)?;
    parse(body, required)
}

/// The fields that a body of this type has at least, as its schema says.
pub(super) fn required_fields<T: PartialSchema>() -> Vec<String> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object.required,
        _ => Vec::new(),
    }
}

fn check_media_type(headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()) {
        _ if body.is_empty() => Ok(()),
        Some(essence) if ["application/json", "application/merge-patch+json"].contains(&essence.as_str()) => {
            Ok(())
        }
        _ => Err(ApiError::because(ErrorCode::UnsupportedMediaType, "send the body as application/json")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8], required: impl FnOnce() -> Vec<String>) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    // serde takes an array for a struct, field by field; this API does not.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid(vec![FieldError::new("", "invalid", "a JSON object is expected")]));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(parsed) => parsed,
        Err(error) => return with_whole_numbers(body).ok_or_else(|| refusal(&error, body, required)),
    };
    deserializer
        .end()
        .map_err(|error| ApiError::because(ErrorCode::InvalidJson, words::plain_syntax(&error)))?;
    Ok(parsed)
}

fn refusal(
    error: &serde_path_to_error::Error<serde_json::Error>,
    body: &[u8],
    required: impl FnOnce() -> Vec<String>,
) -> ApiError {
    let inner = error.inner();
    let pointer = pointer(error.path());
    if inner.is_data() {
        let message = without_position(inner);
        let Some(field) = words::missing_field(&message) else {
            return ApiError::invalid(vec![FieldError::new(pointer, "invalid", words::plain(&message))]);
        };
        // serde stops at the first.
        let others = if pointer.is_empty() { absent(body, required()) } else { Vec::new() };
        let others = others.iter().map(String::as_str).filter(|other| *other != field);
        let missing = |field: &str| {
            let message = format!("missing field `{field}`");
            FieldError::new(format!("{pointer}{}", below(field)), "invalid", words::plain(&message))
        };
        ApiError::invalid(std::iter::once(field).chain(others).map(missing).collect())
    } else if serde_json::from_slice::<Value>(body).is_ok() {
        // So says serde of a number or null in place of one of several words.
        ApiError::invalid(vec![FieldError::new(
            pointer,
            "invalid",
            "one of the words that it takes is expected",
        )])
    } else {
        ApiError::because(ErrorCode::InvalidJson, words::plain_syntax(inner))
    }
}

/// Which of the fields an object does not have.
fn absent(body: &[u8], fields: Vec<String>) -> Vec<String> {
    let given: serde_json::Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    fields.into_iter().filter(|field| !given.contains_key(field)).collect()
}

/// JSON has one kind of number, and JSON Schema counts 5.0 among the integers; serde does not. So a body that is
/// refused gets a second reading with such numbers written as 5.
fn with_whole_numbers<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let UniqueKeys(mut value) = serde_json::from_slice(body).ok()?;
    let mut changed = false;
    write_whole(&mut value, &mut changed);
    changed.then(|| serde_json::from_value(value).ok()).flatten()
}

fn write_whole(value: &mut Value, changed: &mut bool) {
    /// Beyond it, a double no longer tells one integer from the next.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| write_whole(item, changed)),
        Value::Object(fields) => fields.values_mut().for_each(|field| write_whole(field, changed)),
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT);
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
                *changed = true;
            }
        }
        _ => {}
    }
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(below(key)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn below(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The message alone; the pointer already says where.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(default)]
        list: Vec<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only refused")]
    struct Outer {
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only refused")]
    struct Inner {
        name: String,
    }

    #[test]
    fn errors_point_at_the_field() {
        let error = parse::<Body>(br#"{"list":[1,"x"]}"#, Vec::new).unwrap_err();
        assert!(format!("{error:?}").contains("/list/1"), "{error:?}");
        for (text, code) in [
            ("{", ErrorCode::InvalidJson),
            ("{} {}", ErrorCode::InvalidJson),
            ("[]", ErrorCode::ValidationFailed),
            (r#"{"unknown":1}"#, ErrorCode::ValidationFailed),
        ] {
            assert_eq!(parse::<Body>(text.as_bytes(), Vec::new).unwrap_err().code(), Some(code), "{text}");
        }
        assert!(parse::<Body>(b"", Vec::new).unwrap().list.is_empty());
    }

    #[test]
    fn a_missing_field_is_pointed_at() {
        for (body, pointer) in [("{}", "/inner"), (r#"{"inner":{}}"#, "/inner/name")] {
            let error = format!("{:?}", parse::<Outer>(body.as_bytes(), Vec::new).unwrap_err());
            assert!(error.contains(&format!("pointer: \"{pointer}\"")), "{error}");
        }
    }

    #[test]
    fn five_point_nothing_is_five() {
        assert_eq!(parse::<Body>(br#"{"list":[1,2.0,3e0]}"#, Vec::new).unwrap().list, [1, 2, 3]);
        for wrong in [r#"{"list":[1.5]}"#, r#"{"list":[256.0]}"#, r#"{"list":[-1.0]}"#, r#"{"list":[1e300]}"#]
        {
            let error = parse::<Body>(wrong.as_bytes(), Vec::new).unwrap_err();
            assert!(format!("{error:?}").contains("/list/0"), "{error:?}");
        }
    }

    #[test]
    fn a_body_nests_so_deep_and_no_deeper() {
        #[derive(Debug, Deserialize)]
        struct Free {
            document: serde_json::Value,
        }
        let nested = |levels| format!(r#"{{"document":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(parse::<Free>(nested(126).as_bytes(), Vec::new).unwrap().document.is_array());
        for levels in [127, 100_000] {
            assert_eq!(
                parse::<Free>(nested(levels).as_bytes(), Vec::new).unwrap_err().code(),
                Some(ErrorCode::InvalidJson)
            );
            // What is only skipped is not recursed into without bound either.
            let unknown = nested(levels).replace("document", "other");
            assert!(parse::<Body>(unknown.as_bytes(), Vec::new).is_err());
        }
    }
}
