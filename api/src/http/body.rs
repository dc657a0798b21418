//! JSON bodies: strict, and errors that point at the field.

use serde::de::DeserializeOwned;

use super::problem::{ApiError, ErrorCode, FieldError};

/// Parses a body; an empty one counts as `{}`.
///
/// # Errors
/// `invalid_json` when it is not JSON at all, `validation_failed` with a pointer when it is JSON of another
/// shape: a wrong type, an unknown or missing field, a value that its type refuses.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.inner();
        if inner.is_data() {
            ApiError::invalid(vec![FieldError::new(pointer, "invalid", without_position(inner))])
        } else {
            ApiError::because(ErrorCode::InvalidJson, inner.to_string())
        }
    })?;
    deserializer.end().map_err(|error| ApiError::because(ErrorCode::InvalidJson, error.to_string()))?;
    Ok(parsed)
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
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

    #[test]
    fn errors_point_at_the_field() {
        let error = parse_json::<Body>(br#"{"list":[1,"x"]}"#).unwrap_err();
        assert!(format!("{error:?}").contains("/list/1"), "{error:?}");
        for (text, code) in [
            ("{", ErrorCode::InvalidJson),
            ("{} {}", ErrorCode::InvalidJson),
            ("[]", ErrorCode::ValidationFailed),
            (r#"{"unknown":1}"#, ErrorCode::ValidationFailed),
        ] {
            assert_eq!(parse_json::<Body>(text.as_bytes()).unwrap_err().code(), Some(code), "{text}");
        }
        assert!(parse_json::<Body>(b"").unwrap().list.is_empty());
    }
}
