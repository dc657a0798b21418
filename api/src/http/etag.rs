//! Entity tags: `"<version>.<fingerprint>"`.
//!
//! The version counts what people changed, the fingerprint is a hash of the answer itself. `If-None-Match`
//! compares both, so a 304 never hides anything, not even what is computed while reading, like a host that
//! has fallen silent. `If-Match` compares the version alone, so a change of state does not get in the way of
//! a change of intent.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};

use super::problem::{ApiError, ErrorCode};

/// Counts the changes of a resource by people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub i64);

/// The tag of one representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ETag {
    version: Version,
    fingerprint: u64,
}

impl Version {
    /// Checks `If-Match` of a change that overwrites what the caller must have seen.
    ///
    /// # Errors
    /// `precondition_required` without the header, and those of [`Version::check_if_match`].
    pub(crate) fn require_if_match(self, headers: &HeaderMap) -> Result<(), ApiError> {
        if !headers.contains_key(header::IF_MATCH) {
            let detail = "this call overwrites everything: read first, and send the ETag of what you have seen as \
                          If-Match; `*` overwrites whatever is there";
            return Err(ApiError::because(ErrorCode::PreconditionRequired, detail));
        }
        self.check_if_match(headers)
    }

    /// Checks `If-Match` of a change.
    ///
    /// # Errors
    /// `precondition_failed` when the caller has seen another version, `invalid_header` when the header is no
    /// list of our tags.
    pub(crate) fn check_if_match(self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(tags) = tags(headers, &header::IF_MATCH)? else { return Ok(()) };
        if tags.iter().any(|tag| tag.is_none_or(|tag| tag.version == self)) {
            return Ok(());
        }
        let detail =
            format!("the resource is at version {} now; read it again and repeat the change", self.0);
        Err(ApiError::because(ErrorCode::PreconditionFailed, detail))
    }
}

impl ETag {
    pub(super) fn of(version: Version, body: &[u8]) -> Self {
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&Sha256::digest(body)[..8]);
        Self { version, fingerprint: u64::from_be_bytes(fingerprint) }
    }

    /// Whether `If-None-Match` says that the caller has this very representation. A header that makes no
    /// sense says nothing.
    pub(super) fn is_known(self, headers: &HeaderMap) -> bool {
        let known = tags(headers, &header::IF_NONE_MATCH).ok().flatten().unwrap_or_default();
        known.iter().any(|tag| tag.is_none_or(|tag| tag == self))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{:016x}\"", self.version.0, self.fingerprint)
    }
}

/// The tags of a header; `None` in the list stands for `*`.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Vec<Option<ETag>>>, ApiError> {
    let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    if values.is_empty() {
        return Ok(None);
    }
    let texts: Result<Vec<_>, _> = values.into_iter().map(HeaderValue::to_str).collect();
    let parsed = texts.ok().and_then(|texts| {
        texts.into_iter().flat_map(|text| text.split(',')).map(|tag| parse(tag.trim())).collect()
    });
    parsed.map(Some).ok_or_else(|| {
        ApiError::because(ErrorCode::InvalidHeader, format!("{name} takes an ETag as this API gave it"))
    })
}

fn parse(tag: &str) -> Option<Option<ETag>> {
    if tag == "*" {
        return Some(None);
    }
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let (version, fingerprint) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('.')?;
    let version = Version(version.parse().ok()?);
    Some(Some(ETag { version, fingerprint: u64::from_str_radix(fingerprint, 16).ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn another_body_breaks_a_304_but_not_a_change() {
        let now = ETag::of(Version(3), b"running");
        let before = ETag::of(Version(3), b"stopped").to_string();
        assert!(now.is_known(&headers(header::IF_NONE_MATCH, &now.to_string())));
        assert!(now.is_known(&headers(header::IF_NONE_MATCH, &format!("W/{now}"))));
        assert!(!now.is_known(&headers(header::IF_NONE_MATCH, &before)));
        assert!(!now.is_known(&headers(header::IF_NONE_MATCH, "three")));
        let check = |value: &str| Version(3).check_if_match(&headers(header::IF_MATCH, value));
        for fine in [before.as_str(), "*", "\"1.0\", \"3.0\""] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        for (wrong, code) in [
            ("\"2.0\"", ErrorCode::PreconditionFailed),
            ("three", ErrorCode::InvalidHeader),
            ("\"3.0\", three", ErrorCode::InvalidHeader),
            ("", ErrorCode::InvalidHeader),
        ] {
            assert_eq!(check(wrong).unwrap_err().code(), Some(code), "{wrong}");
        }
    }
}
