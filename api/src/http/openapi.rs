//! The OpenAPI document: what the handlers say of themselves, and what is true of all of them.

use std::collections::BTreeMap;

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayItems, Object, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder};

use super::router::routes;

/// What only an id stands for.
const NAMELESS: &[&str] = &["operation", "session", "api_key", "attachment", "rule"];

/// The OpenAPI 3.1 document, as it is checked in under `openapi/`.
pub fn openapi_document() -> OpenApi {
    let mut document = routes().into_openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert("bearer".to_owned(), SecurityScheme::Http(bearer).into());
    for (path, item) in &mut document.paths.paths {
        let segments: Vec<_> = variable_segments(path).map(segment_parameter).collect();
        for operation in operations(item) {
            let parameters = operation.parameters.take().unwrap_or_default();
            let all: Vec<_> = segments.iter().cloned().map(RefOr::T).chain(parameters).collect();
            operation.parameters = (!all.is_empty()).then_some(all);
            operation
                .responses
                .responses
                .insert("4XX".to_owned(), problem("A problem, told apart by its `code`"));
            document_dry_run(operation);
            for (status, response) in &mut operation.responses.responses {
                if let (true, RefOr::T(named)) = (status.starts_with(['4', '5']), &*response) {
                    *response = problem(&named.description);
                }
            }
        }
    }
    for item in document.paths.paths.values_mut() {
        for body in operations(item).filter_map(|operation| operation.request_body.as_mut()) {
            // An empty body counts as `{}`.
            if let RefOr::T(body) = body
                && !needs_fields(body, &components.schemas)
            {
                body.required = Some(Required::False);
            }
        }
    }
    for (name, schema) in &mut components.schemas {
        complete(schema, if name.starts_with("Update") { "LabelsPatch" } else { "Labels" });
    }
    // What the derive macro makes of the alias.
    components.schemas.remove("BTreeMap");
    components.schemas.insert("Labels".to_owned(), labels_schema(false).into());
    components.schemas.insert("LabelsPatch".to_owned(), labels_schema(true).into());
    document
}

/// A dry run answers 200 with what the call itself would answer.
fn document_dry_run(operation: &mut Operation) {
    let parameters = operation.parameters.iter().flatten();
    let dry = parameters
        .filter(|parameter| matches!(parameter, RefOr::T(named) if named.name == "dry_run"))
        .count()
        > 0;
    let responses = &mut operation.responses.responses;
    if !dry || responses.contains_key("200") {
        return;
    }
    let content = ["201", "202"].iter().find_map(|status| match responses.get(*status) {
        Some(RefOr::T(response)) => response.content.get("application/json").cloned(),
        _ => None,
    });
    let mut response =
        ResponseBuilder::new().description("What the call would have answered: nothing was stored").build();
    response.content.extend(content.map(|content| ("application/json".to_owned(), content)));
    responses.insert("200".to_owned(), response.into());
}

/// Says of every property what is true of all of its name, also in the items of a page: `labels` refers to what
/// labels are, and a `description` has no NUL, which PostgreSQL cannot store.
fn complete(schema: &mut RefOr<Schema>, labels: &str) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            for (name, property) in &mut object.properties {
                match (name.as_str(), &mut *property) {
                    ("labels", property) => *property = Ref::from_schema_name(labels).into(),
                    ("host_labels", RefOr::Ref(reference)) => {
                        reference.ref_location = Ref::from_schema_name("Labels").ref_location;
                    }
                    ("description", RefOr::T(Schema::Object(text))) if text.max_length.is_some() => {
                        text.pattern = Some("^[^\\u0000]*$".to_owned());
                    }
                    (_, property) => complete(property, labels),
                }
            }
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                complete(items, labels);
            }
        }
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

/// The rules of labels. In a patch, `null` removes one.
fn labels_schema(patch: bool) -> Schema {
    let text = |fewest: u8| {
        let pattern = format!("^[A-Za-z0-9._/-]{{{fewest},63}}$");
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
    };
    let value = match patch {
        true => text(0).schema_type(SchemaType::from_iter([Type::String, Type::Null])),
        false => text(0),
    };
    let mut labels = Object::new();
    labels.description =
        Some("Small key-value pairs, to find resources by and to write policies about.".to_owned());
    labels.property_names = Some(Box::new(text(1).into()));
    labels.additional_properties = Some(Box::new(AdditionalProperties::RefOr(RefOr::T(value.into()))));
    labels.max_properties = Some(32);
    labels.into()
}

/// Whether the schema of a body names fields that must be there.
fn needs_fields(body: &RequestBody, schemas: &BTreeMap<String, RefOr<Schema>>) -> bool {
    let schema = match body.content.get("application/json") {
        Some(RefOr::T(content)) => content.schema.as_ref(),
        _ => return true,
    };
    let schema = match schema {
        Some(RefOr::Ref(reference)) => {
            reference.ref_location.rsplit('/').next().and_then(|name| schemas.get(name))
        }
        schema => schema,
    };
    matches!(schema, Some(RefOr::T(Schema::Object(object))) if !object.required.is_empty())
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, patch, delete, .. } = item;
    [get, put, post, patch, delete].into_iter().flatten()
}

/// `project` and `image` of `/v1/projects/{project}/images/{image}`.
fn variable_segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// Every resource is named alike, but for those that have no name.
fn segment_parameter(name: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(if NAMELESS.contains(&name) { "Id" } else { "Name or id" }))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

/// Every error has the same body.
fn problem(description: &str) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response =
        ResponseBuilder::new().description(description).content("application/problem+json", content);
    response.build().into()
}
