//! The OpenAPI document: what the handlers say of themselves, and what is true of all of them.

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder};

use super::router::routes;

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
            for (status, response) in &mut operation.responses.responses {
                if let (true, RefOr::T(named)) = (status.starts_with(['4', '5']), &*response) {
                    *response = problem(&named.description);
                }
            }
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, patch, delete, .. } = item;
    [get, put, post, patch, delete].into_iter().flatten()
}

/// `project` and `image` of `/v1/projects/{project}/images/{image}`.
fn variable_segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// Every resource is named alike; only operations have no names.
fn segment_parameter(name: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(if name == "operation" { "Id" } else { "Name or id" }))
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
