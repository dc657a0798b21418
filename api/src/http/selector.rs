//! A path segment that names a resource: its name or its id.

use std::fmt;

use protocol::Name;
use uuid::Uuid;

/// A name is never a UUID, so a segment is one or the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    Id(Uuid),
    Name(Name),
}

impl Selector {
    /// `None` for a text that cannot name anything; the answer is then 404 like for any other unknown name.
    pub fn parse(segment: &str) -> Option<Self> {
        match Uuid::try_parse(segment) {
            Ok(id) => Some(Self::Id(id)),
            Err(_) => segment.parse().ok().map(Self::Name),
        }
    }

    /// What these texts name, each as a path would: for a query. What can name nothing is left out.
    pub fn texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        texts.into_iter().filter_map(|text| Some(Self::parse(text)?.to_string())).collect()
    }

    pub const fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Name(_) => None,
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Id(_) => None,
            Self::Name(name) => Some(name.as_str()),
        }
    }
}

/// As it stands in a path.
impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(out),
            Self::Name(name) => out.write_str(name.as_str()),
        }
    }
}
