//! What Terraform may write about a resource, and how each attribute behaves.

use serde_json::{Value as Json, json};

use crate::openapi;
use crate::protocol::tfplugin6::{self as wire, StringKind, schema};
use crate::value::Value;

#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    Text,
    /// A number or a text, which Terraform writes as a text.
    Scalar,
    /// JSON in a text.
    Json,
    Bool,
    Number,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Object(Vec<Attribute>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Required,
    Optional,
    /// The cloud decides where the configuration does not.
    OptionalComputed,
    Computed,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    pub name: String,
    pub ty: Type,
    pub mode: Mode,
    pub help: String,
    /// What the API says about its values.
    pub schema: &'static Json,
    /// Whether it is the id of another resource, and never its name.
    pub is_id: bool,
    pub sensitive: bool,
    /// Terraform keeps it nowhere.
    pub write_only: bool,
    /// Another value means another resource.
    pub replaces: bool,
    /// What it is without a word in the configuration.
    pub default: Option<Value>,
    /// The property of the API's answer that shows it; none shows what was written only once, or not at all.
    pub shown_as: Option<String>,
    /// Whether it stays as it is whatever else changes.
    pub stable: bool,
}

impl Attribute {
    pub fn new(name: &str, ty: Type, schema: &'static Json) -> Self {
        Self {
            name: name.to_owned(),
            ty,
            mode: Mode::Computed,
            help: openapi::help(schema),
            schema,
            is_id: false,
            sensitive: false,
            write_only: false,
            replaces: false,
            default: None,
            shown_as: None,
            stable: false,
        }
    }

    pub fn is_computed(&self) -> bool {
        matches!(self.mode, Mode::Computed | Mode::OptionalComputed)
    }

    fn wire(&self) -> schema::Attribute {
        let (ty, nested_type) = match &self.ty {
            Type::Object(inner) => (Vec::new(), Some(nested(inner, schema::object::NestingMode::Single))),
            Type::List(item) if matches!(**item, Type::Object(_)) => {
                let Type::Object(inner) = &**item else { unreachable!("it was looked at") };
                (Vec::new(), Some(nested(inner, schema::object::NestingMode::List)))
            }
            other => (other.wire().to_string().into_bytes(), None),
        };
        schema::Attribute {
            name: self.name.clone(),
            r#type: ty,
            nested_type,
            description: self.help.clone(),
            description_kind: StringKind::Markdown.into(),
            required: self.mode == Mode::Required,
            optional: matches!(self.mode, Mode::Optional | Mode::OptionalComputed),
            computed: self.is_computed(),
            sensitive: self.sensitive,
            write_only: self.write_only,
        }
    }
}

impl Type {
    fn wire(&self) -> Json {
        match self {
            Self::Text | Self::Scalar | Self::Json => json!("string"),
            Self::Bool => json!("bool"),
            Self::Number => json!("number"),
            Self::List(item) => json!(["list", item.wire()]),
            Self::Set(item) => json!(["set", item.wire()]),
            Self::Map(item) => json!(["map", item.wire()]),
            Self::Object(inner) => {
                let attributes: serde_json::Map<_, _> =
                    inner.iter().map(|one| (one.name.clone(), one.ty.wire())).collect();
                json!(["object", attributes])
            }
        }
    }
}

fn nested(attributes: &[Attribute], nesting: schema::object::NestingMode) -> schema::Object {
    schema::Object { attributes: attributes.iter().map(Attribute::wire).collect(), nesting: nesting.into() }
}

pub fn block(attributes: &[Attribute], about: &str) -> wire::Schema {
    wire::Schema {
        version: 0,
        block: Some(schema::Block {
            version: 0,
            attributes: attributes.iter().map(Attribute::wire).collect(),
            description: about.to_owned(),
            description_kind: StringKind::Markdown.into(),
        }),
    }
}
