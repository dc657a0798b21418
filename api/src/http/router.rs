//! All routes and the layers around them.

use axum::Router;
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::openapi::openapi_document;
use super::problem::{ApiError, Problem};
use super::request;
use crate::app::App;
use crate::{auth, hosts, images, instance_types, instances, operations, projects};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cumulo",
        description = "A private cloud on your own machines. Paths take names or ids; errors are RFC 9457 \
            problem documents with a stable `code`; every POST takes an `Idempotency-Key`, every mutation \
            `?dry_run=true`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    security(("bearer" = [])),
    components(schemas(Problem)),
    tags(
        (name = "auth", description = "Sign in and out"),
        (name = "projects", description = "Tenants"),
        (name = "instances", description = "Virtual machines"),
        (name = "images", description = "Operating systems as files"),
        (name = "instance_types", description = "Sizes of instances"),
        (name = "operations", description = "What became of a call"),
        (name = "hosts", description = "The machines of the cloud"),
        (name = "service", description = "Health and metrics"),
    ),
)]
struct Root;

/// Every route of the public API.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Root::openapi())
        .merge(auth::routes::router())
        .merge(projects::router())
        .merge(instances::router())
        .merge(images::router())
        .merge(instance_types::router())
        .merge(operations::router())
        .merge(hosts::router())
        .merge(super::health::router())
}

/// The public API with everything around it.
pub fn public_router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    let reference = SwaggerUi::new("/docs").url("/openapi.json", openapi_document());
    let router = router
        .merge(reference)
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .fallback(not_found);
    layered(router, app)
}

/// The layers that public and agent API share, innermost first.
pub(crate) fn layered(router: Router<App>, app: App) -> Router {
    router
        .layer(CatchPanicLayer::custom(request::panicked))
        .layer(middleware::from_fn_with_state(app.clone(), request::wrap))
        .with_state(app)
}

async fn not_found() -> Response {
    ApiError::not_found().into_response()
}
