//! Resource names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// A resource name: an RFC 1035 label. 1 to 63 characters of `a-z`, `0-9` and `-`, beginning with a
/// letter and not ending with `-`. A name is never a UUID, so a path segment is one or the other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "openapi",
    schema(value_type = String, pattern = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", min_length = 1, max_length = 63, example = "web-1")
)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseNameError {
    #[error("a name has 1 to 63 characters")]
    Length,
    #[error("a name begins with a lower-case letter")]
    Start,
    #[error("a name has only lower-case letters, digits and hyphens")]
    Character,
    #[error("a name does not end with a hyphen")]
    End,
    #[error("a name must not look like an id")]
    LooksLikeId,
}

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > 63 {
            return Err(ParseNameError::Length);
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(ParseNameError::Character);
        }
        if Uuid::try_parse(text).is_ok() {
            return Err(ParseNameError::LooksLikeId);
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(ParseNameError::Start);
        }
        if text.ends_with('-') {
            return Err(ParseNameError::End);
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_labels() {
        for name in ["a", "web-1", "x0", &"a".repeat(63)] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_everything_else_with_the_reason() {
        use ParseNameError::*;
        let long = "a".repeat(64);
        for (text, reason) in [
            ("", Length),
            (long.as_str(), Length),
            ("1a", Start),
            ("-a", Start),
            ("a-", End),
            ("Web", Character),
            ("a_b", Character),
            ("a\0b", Character),
            ("a\nb", Character),
            ("../etc", Character),
            ("wéb", Character),
            ("ａ", Character),
            ("a\u{202e}b", Character),
            ("a0a0a0a0-0000-4000-8000-000000000000", LooksLikeId),
        ] {
            assert_eq!(text.parse::<Name>(), Err(reason), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_safe_as_a_file_name_and_a_word(text in ".{0,80}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert!(name.as_str().bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')));
                prop_assert!(!name.as_str().starts_with('-'));
            }
        }
    }
}
