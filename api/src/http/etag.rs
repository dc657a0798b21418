//! Entity tags: `"<generation>.<observation>"`.
//!
//! The generation counts changes of intent, the observation changes of what was seen. `If-None-Match`
//! compares both, so a 304 never hides a new state; `If-Match` compares the generation alone, so a change of
//! state does not get in the way of a change of intent.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue, header};

use super::problem::{ApiError, ErrorCode};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ETag {
    pub generation: i64,
    pub observation: i64,
}

impl ETag {
    /// The tag of a resource that has nothing to observe.
    pub const fn of_generation(generation: i64) -> Self {
        Self { generation, observation: 0 }
    }

    pub(super) fn header(self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }

    /// Checks `If-Match` of a change.
    ///
    /// # Errors
    /// `precondition_failed` when the caller has seen another generation, `invalid_header` when the header
    /// is no list of our tags.
    pub(super) fn check_if_match(self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(tags) = tags(headers, header::IF_MATCH)? else { return Ok(()) };
        if tags.iter().any(|tag| tag.is_none_or(|tag| tag.generation == self.generation)) {
            return Ok(());
        }
        Err(ApiError::because(
            ErrorCode::PreconditionFailed,
            format!("the resource is at {self} now; read it again and repeat the change"),
        ))
    }

    /// Whether `If-None-Match` says that the caller has this very representation.
    pub(super) fn is_known(self, headers: &HeaderMap) -> bool {
        let known = tags(headers, header::IF_NONE_MATCH).ok().flatten().unwrap_or_default();
        known.iter().any(|tag| tag.is_none_or(|tag| tag == self))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{}\"", self.generation, self.observation)
    }
}

/// The tags of a header; `None` in the list stands for `*`.
fn tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Vec<Option<ETag>>>, ApiError> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.split(',').map(|tag| parse(tag.trim())).collect());
    parsed.map(Some).ok_or_else(|| {
        ApiError::because(ErrorCode::InvalidHeader, format!("{name} takes an ETag as this API gave it"))
    })
}

fn parse(tag: &str) -> Option<Option<ETag>> {
    if tag == "*" {
        return Some(None);
    }
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let (generation, observation) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('.')?;
    Some(Some(ETag { generation: generation.parse().ok()?, observation: observation.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_change_of_state_breaks_a_304_but_not_a_change() {
        let now = ETag { generation: 3, observation: 8 };
        assert!(now.is_known(&headers(header::IF_NONE_MATCH, "\"3.8\"")));
        assert!(!now.is_known(&headers(header::IF_NONE_MATCH, "\"3.7\"")));
        assert!(now.check_if_match(&headers(header::IF_MATCH, "\"3.7\"")).is_ok());
        assert!(now.check_if_match(&headers(header::IF_MATCH, "*")).is_ok());
        assert!(now.check_if_match(&headers(header::IF_MATCH, "\"1.0\", \"3.0\"")).is_ok());
        let stale = now.check_if_match(&headers(header::IF_MATCH, "\"2.8\"")).unwrap_err();
        assert_eq!(stale.code(), Some(ErrorCode::PreconditionFailed));
        let garbage = now.check_if_match(&headers(header::IF_MATCH, "three")).unwrap_err();
        assert_eq!(garbage.code(), Some(ErrorCode::InvalidHeader));
    }
}
