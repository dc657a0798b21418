//! The operations of the API, as its OpenAPI document names them.
//!
//! Each becomes a command, so what the API can do the command line can do, in the same words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value;

use crate::fields::{Field, Kind};
use crate::names::{self, Named};

/// The document of the release that this program belongs to.
pub const DOCUMENT: &str = include_str!("../../openapi/cumulo.json");

/// One operation.
pub struct Operation {
    /// Like `create_instance`.
    pub id: String,
    pub method: client::Method,
    /// Like `/v1/projects/{project}/instances/{instance}`.
    pub path: String,
    pub summary: String,
    pub named: Named,
    /// Of the path, in order, without the project that the command works in.
    pub parameters: Vec<String>,
    pub query: Vec<Field>,
    pub body: Option<Vec<Field>>,
    /// Whether it answers a list, page by page.
    pub is_list: bool,
    /// Whether it makes or changes what a list of such resources shows.
    pub answers_resource: bool,
    /// Properties of each thing that it answers, those included that are absent at times.
    pub answers: Vec<String>,
}

impl Operation {
    /// Whether it works in a project that is not its subject.
    pub fn is_in_project(&self) -> bool {
        self.path.starts_with("/v1/projects/{project}/") || self.path.starts_with("/v1/projects/{project}:")
    }

    pub fn takes(&self, query: &str) -> bool {
        self.query.iter().any(|field| field.name == query)
    }
}

/// All operations, in the document's order, which is read once.
///
/// # Panics
/// When the document, which is part of this program, is none.
pub fn operations() -> &'static [Operation] {
    static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(read);
    &OPERATIONS
}

fn read() -> Vec<Operation> {
    #[expect(clippy::expect_used, reason = "a test reads it")]
    let document: Value = serde_json::from_str(DOCUMENT).expect("the OpenAPI document is JSON");
    let reader = Reader { document: &document };
    let empty = serde_json::Map::new();
    let paths = document["paths"].as_object().unwrap_or(&empty);
    let collections = names::collections(paths);
    // A list of instances is a `Page_Instance`.
    let pages = paths.values().filter_map(|methods| answer(&methods["get"])?.strip_prefix("Page_"));
    let listed: BTreeSet<_> = pages.collect();
    let mut all = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap_or(&empty) {
            let Ok(method) = client::Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            if let Some(id) = operation["operationId"].as_str() {
                let named = names::name(path, &method, id, &collections);
                let changes = method != client::Method::GET;
                let mut one = reader.operation(path, method, id, named, operation);
                one.answers_resource = changes && answer(operation).is_some_and(|name| listed.contains(name));
                all.push(one);
            }
        }
    }
    all
}

struct Reader<'a> {
    document: &'a Value,
}

impl Reader<'_> {
    fn operation(
        &self,
        path: &str,
        method: client::Method,
        id: &str,
        named: Named,
        from: &Value,
    ) -> Operation {
        let declared = from["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let is_in = |place: &'static str| declared.iter().filter(move |one| one["in"] == place);
        let own =
            path.strip_prefix("/v1/projects/{project}/").or(path.strip_prefix("/v1/projects/{project}:"));
        let parameters =
            own.unwrap_or(path).split(['{', '}']).skip(1).step_by(2).map(str::to_owned).collect();
        // It stands in the URL, so none is a secret, whatever its name.
        let query =
            is_in("query").filter_map(|one| self.plain(one["name"].as_str()?, one, &one["schema"], false));
        let schema = &from["requestBody"]["content"]["application/json"]["schema"];
        let answer = &from["responses"]["200"]["content"]["application/json"]["schema"];
        let items = &self.resolve(answer)["properties"];
        Operation {
            id: id.to_owned(),
            is_list: method == client::Method::GET
                && !items["items"].is_null()
                && !items["next_cursor"].is_null(),
            method,
            path: path.to_owned(),
            summary: paragraph(from["summary"].as_str().unwrap_or_default()),
            named,
            parameters,
            query: query.collect(),
            answers_resource: false,
            answers: self.answers(from),
            body: schema.is_object().then(|| self.fields(schema)),
        }
    }

    /// The names of the properties of an answer, of a list those of its items.
    fn answers(&self, operation: &Value) -> Vec<String> {
        let answers =
            SUCCESSES.map(|status| &operation["responses"][status]["content"]["application/json"]["schema"]);
        let Some(answer) = answers.into_iter().find(|schema| schema.is_object()) else { return Vec::new() };
        let properties = self.properties(answer);
        let list =
            LISTS.iter().find_map(|list| properties.get(*list).filter(|list| list["items"].is_object()));
        let properties = list.map_or(properties.clone(), |list| self.properties(&list["items"]));
        properties.into_keys().collect()
    }

    /// Also those of what it is made of.
    fn properties<'b>(&'b self, schema: &'b Value) -> BTreeMap<String, &'b Value> {
        let schema = self.resolve(schema);
        let own = schema["properties"].as_object().into_iter().flatten();
        let own = own.map(|(name, property)| (name.clone(), property));
        let parts = ["oneOf", "allOf", "anyOf"].into_iter().filter_map(|kind| schema[kind].as_array());
        own.chain(parts.flatten().flat_map(|part| self.properties(part))).collect()
    }

    /// The properties of an object.
    fn fields(&self, schema: &Value) -> Vec<Field> {
        let schema = self.resolve(schema);
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties
            .filter_map(|(name, property)| {
                let is_required = required.iter().any(|one| one == name);
                self.field(name, property, is_required)
            })
            .collect()
    }

    fn field(&self, name: &str, property: &Value, required: bool) -> Option<Field> {
        let field = self.plain(name, property, property, required);
        let is_secret = name.ends_with("password") || matches!(name, "otp" | "code");
        if is_secret { field.map(|field| Field { kind: Kind::Secret, ..field }) } else { field }
    }

    fn plain(&self, name: &str, described: &Value, schema: &Value, required: bool) -> Option<Field> {
        let inner = one_of(schema);
        let words =
            [described, inner, self.resolve(schema)].into_iter().find_map(|at| at["description"].as_str());
        let help = paragraph(words.unwrap_or_default());
        Some(Field { name: name.to_owned(), help, required, kind: self.kind(schema)? })
    }

    fn kind(&self, schema: &Value) -> Option<Kind> {
        let schema = self.resolve(schema);
        let types = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).find(|name| *name != "null"),
            other => other.as_str(),
        };
        let choices = schema["enum"].as_array().into_iter().flatten();
        let choices: Vec<_> = choices.filter_map(|one| Some(one.as_str()?.to_owned())).collect();
        Some(match types {
            Some("boolean") => Kind::Flag,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Json,
            Some("string") => Kind::Text(choices),
            Some("array") => Kind::List(Box::new(self.kind(&schema["items"])?)),
            Some("object") if schema["additionalProperties"].is_object() => Kind::Map,
            Some("object") => Kind::Object(self.fields(schema)),
            _ if self.is_scalar(schema) => Kind::Scalar,
            _ => Kind::Json,
        })
    }

    /// Whether it is a text or a number, whichever was written.
    fn is_scalar(&self, schema: &Value) -> bool {
        let ways = schema["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
        let is_simple = |way| matches!(self.kind(way), Some(Kind::Integer | Kind::Text(_)));
        !ways.is_empty() && ways.iter().all(is_simple)
    }

    /// What a schema stands for, behind references and "this or null".
    fn resolve<'b>(&'b self, schema: &'b Value) -> &'b Value {
        let schema = one_of(schema);
        match schema["$ref"].as_str().and_then(|to| self.document.pointer(to.strip_prefix('#')?)) {
            Some(named) => self.resolve(named),
            None => schema,
        }
    }
}

const SUCCESSES: [&str; 3] = ["200", "201", "202"];
/// What lists are called in answers.
const LISTS: [&str; 2] = ["items", "evacuations"];

/// The name of the schema that an operation answers with.
fn answer(operation: &Value) -> Option<&str> {
    let answers = SUCCESSES.map(|status| {
        operation["responses"][status]["content"]["application/json"]["schema"]["$ref"].as_str()
    });
    answers.into_iter().flatten().next()?.rsplit('/').next()
}

/// The one way that a value can be, if it is not null.
fn one_of(schema: &Value) -> &Value {
    let ways = schema["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
    match ways {
        [one, null] if null["type"] == "null" => one,
        _ => schema,
    }
}

/// Lines that belong together become one; a help text shows the first paragraph.
fn paragraph(text: &str) -> String {
    text.split("\n\n")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_a_body_has_and_not_what_a_list_is_asked_for() {
        let one = |id: &str| operations().iter().find(|one| one.id == id).unwrap();
        let code = one("list_drift").query.iter().find(|field| field.name == "code").unwrap();
        let word = "network_device_differs".to_owned();
        assert_eq!(code.value(std::slice::from_ref(&word)).unwrap(), Value::String(word));
        for (id, name) in [("change_user_password", "new_password"), ("redeem_password_code", "code")] {
            let field = one(id).body.iter().flatten().find(|field| field.name == name).unwrap();
            let refusal = field.value(&["hunter2".to_owned()]).unwrap_err().to_string();
            assert!(refusal.contains("others could read it here"), "{id} {name}: {refusal}");
        }
    }
}
