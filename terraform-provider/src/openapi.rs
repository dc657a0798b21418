//! What the OpenAPI document says about operations and their bodies.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use client::Method;
use serde_json::Value as Json;

use crate::schema::{Attribute, Mode, Type};

#[expect(clippy::expect_used, reason = "it is part of this program, and tests read it")]
static DOCUMENT: LazyLock<Json> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../openapi/cumulo.json")).expect("the document is JSON")
});

/// One operation.
pub struct Operation {
    pub method: Method,
    /// Like `/v1/projects/{project}/networks/{network}`.
    pub path: &'static str,
    pub has_dry_run: bool,
    /// What the body and the answer may hold.
    pub body: BTreeMap<&'static str, Property>,
    pub answer: BTreeMap<&'static str, Property>,
}

#[derive(Clone, Copy)]
pub struct Property {
    pub schema: &'static Json,
    pub required: bool,
}

impl Operation {
    /// # Panics
    /// When there is no such operation, which a test would have told.
    pub fn of(id: &str) -> Self {
        #[expect(clippy::panic, reason = "the table names it, and tests read the whole table")]
        let (path, method, found) =
            all().find(|(.., one)| one["operationId"] == id).unwrap_or_else(|| panic!("no operation {id}"));
        let answers = ["200", "201", "202"]
            .map(|status| &found["responses"][status]["content"]["application/json"]["schema"]);
        let answer = answers.into_iter().find(|answer| answer.is_object());
        let parameters = found["parameters"].as_array().into_iter().flatten();
        Self {
            method,
            path,
            has_dry_run: parameters.clone().any(|one| one["name"] == "dry_run"),
            body: properties(&found["requestBody"]["content"]["application/json"]["schema"]),
            answer: answer.map(properties).unwrap_or_default(),
        }
    }

    /// The parameters of the path, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.path.split(['{', '}']).skip(1).step_by(2)
    }
}

/// Path, method and definition of each.
pub fn all() -> impl Iterator<Item = (&'static str, Method, &'static Json)> {
    let paths = DOCUMENT["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        methods.as_object().into_iter().flatten().filter_map(|(method, operation)| {
            operation["operationId"].is_string().then_some(())?;
            Some((path.as_str(), Method::from_bytes(method.to_uppercase().as_bytes()).ok()?, operation))
        })
    })
}

/// Behind references and "this or null".
pub fn resolve(schema: &'static Json) -> &'static Json {
    match schema["oneOf"].as_array().map(Vec::as_slice) {
        Some([one, null]) if null["type"] == "null" => resolve(one),
        _ => match schema["$ref"].as_str().and_then(|to| DOCUMENT.pointer(to.strip_prefix('#')?)) {
            Some(named) => resolve(named),
            None => schema,
        },
    }
}

pub fn is_nullable(schema: &Json) -> bool {
    let is_null = |one: &Json| one == "null" || one["type"] == "null";
    [&schema["type"], &schema["oneOf"]]
        .into_iter()
        .any(|ways| ways.as_array().is_some_and(|ways| ways.iter().any(is_null)))
}

pub fn properties(schema: &'static Json) -> BTreeMap<&'static str, Property> {
    let schema = resolve(schema);
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let own = schema["properties"].as_object().into_iter().flatten();
    let mut found: BTreeMap<_, _> = own
        .map(|(name, schema)| {
            (name.as_str(), Property { schema, required: required.iter().any(|one| one == name) })
        })
        .collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        found.extend(properties(part));
    }
    found
}

/// The description of a property, in one paragraph.
pub fn help(schema: &'static Json) -> String {
    let inner = schema["oneOf"].get(0).unwrap_or(schema);
    let words = [schema, inner, resolve(schema)].into_iter().find_map(|at| at["description"].as_str());
    let first = words.unwrap_or_default().split("\n\n").next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The type of a property. `mode` is that of the attributes of objects in it, where they need not be there.
pub fn ty(schema: &'static Json, mode: Mode) -> Type {
    let schema = resolve(schema);
    let kind = match &schema["type"] {
        Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => Type::Text,
        Some("integer" | "number") => Type::Number,
        Some("boolean") => Type::Bool,
        Some("array") if is_reference(&schema["items"]) => Type::Set(Box::new(Type::Text)),
        Some("array") => Type::List(Box::new(ty(&schema["items"], mode))),
        Some("object") if schema["additionalProperties"].is_object() => {
            Type::Map(Box::new(ty(&schema["additionalProperties"], mode)))
        }
        // Policy documents: whoever knows them writes them as JSON.
        Some("object") if schema["properties"]["Statement"].is_object() => Type::Json,
        Some("object") if is_reference(schema) => Type::Text,
        Some("object") => Type::Object(
            properties(schema)
                .into_iter()
                .map(|(name, inner)| Attribute {
                    mode: if inner.required && mode != Mode::Computed { Mode::Required } else { mode },
                    ..Attribute::new(name, ty(inner.schema, mode), inner.schema)
                })
                .collect(),
        ),
        _ if schema["oneOf"].is_array() => Type::Scalar,
        _ => Type::Json,
    }
}

/// Whether it is another resource in short, which Terraform knows by its id.
pub fn is_reference(schema: &'static Json) -> bool {
    let properties = properties(schema);
    !properties.is_empty() && properties.keys().all(|name| matches!(*name, "id" | "name" | "gone"))
}
