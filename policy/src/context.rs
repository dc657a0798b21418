//! A request as policies see it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A value of a condition key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    String(String),
    Number(f64),
    Bool(bool),
    Date(OffsetDateTime),
    Ip(IpAddr),
}

macro_rules! values {
    ($($from:ty => |$value:ident| $into:expr;)+) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        })+
    };
}

values! {
    &str => |value| Self::String(value.to_owned());
    String => |value| Self::String(value);
    f64 => |value| Self::Number(value);
    i32 => |value| Self::Number(value.into());
    u32 => |value| Self::Number(value.into());
    i64 => |value| Self::Number(value as f64);
    bool => |value| Self::Bool(value);
    OffsetDateTime => |value| Self::Date(value);
    IpAddr => |value| Self::Ip(value.to_canonical());
}

/// The condition keys of a request.
#[derive(Debug, Clone, Default)]
pub struct Context {
    // A dozen keys are found sooner in a row than in a map.
    entries: Vec<(Cow<'static, str>, Vec<Value>)>,
}

impl Context {
    /// Gives a key one value, instead of what it had.
    pub fn set(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.set_many(key, vec![value.into()]);
    }

    /// Gives a key these values, instead of what it had.
    pub fn set_many(&mut self, key: impl Into<Cow<'static, str>>, values: Vec<Value>) {
        let key = key.into();
        match self.entries.iter_mut().find(|(known, _)| *known == key) {
            Some((_, present)) => *present = values,
            None => self.entries.push((key, values)),
        }
    }

    /// The values of a key; none when it is not there.
    pub(crate) fn values(&self, key: &str) -> &[Value] {
        self.entries.iter().find(|(known, _)| known == key).map_or(&[], |(_, values)| values)
    }

    /// The one value of a key as text, for a variable.
    pub(crate) fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        let [value] = self.values(key) else { return None };
        Some(match value {
            Value::String(text) => Cow::Borrowed(text),
            Value::Number(number) => number.to_string().into(),
            Value::Bool(truth) => truth.to_string().into(),
            Value::Date(date) => date.format(&Rfc3339).ok()?.into(),
            Value::Ip(address) => address.to_string().into(),
        })
    }
}

/// What a thing is called: policies may use its name or its id.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub name: &'a str,
    /// `None` for what does not exist yet.
    pub id: Option<&'a str>,
}

/// Where resources are.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In no project.
    Cloud,
    Project(Names<'a>),
    /// Each project that there is or will ever be.
    AnyProject,
}

impl<'a> From<Option<Names<'a>>> for Place<'a> {
    fn from(project: Option<Names<'a>>) -> Self {
        project.map_or(Self::Cloud, Self::Project)
    }
}

/// What an action is done to.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    pub service: &'a str,
    /// `None` for what belongs to the cloud.
    pub project: Option<Names<'a>>,
    /// The type, like `instance`.
    pub kind: &'a str,
    /// `None` for all resources of the type: only a pattern that covers them all matches.
    pub target: Option<Names<'a>>,
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let project = self.project.map_or("", |project| project.name);
        let target = self.target.map_or("*", |target| target.name);
        write!(f, "crn:cumulo:{}:{project}:{}/{target}", self.service, self.kind)
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub action: &'a str,
    pub resource: Resource<'a>,
    pub context: &'a Context,
}
