//! All routes and the layers around them.

use axum::Router;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::openapi::openapi_document;
use super::problem::{ApiError, ErrorCode, Problem};
use super::{limits, request};
use crate::app::App;
use crate::{
    address_pools, api_keys, audit, auth, consoles, drift, events, floating_ips, groups, hosts, images,
    insight, instance_types, instances, key_pairs, networks, operations, placement_groups,
    placement_settings, placements, policies, pools, ports, projects, quotas, routers, security_groups,
    service_accounts, snapshot_schedules, snapshots, subnets, users, volumes, web_ui,
};

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
        (name = "users", description = "People, their sign-in methods and sessions"),
        (name = "groups", description = "Users who share policies"),
        (name = "service_accounts", description = "Programs that act in a project"),
        (name = "api_keys", description = "What programs prove themselves with"),
        (name = "projects", description = "Tenants"),
        (name = "policies", description = "Who may do what where"),
        (name = "instances", description = "Virtual machines"),
        (name = "key_pairs", description = "SSH keys for instances"),
        (name = "images", description = "Operating systems as files"),
        (name = "instance_types", description = "Sizes of instances"),
        (name = "placement", description = "Where instances go, and why not"),
        (name = "volumes", description = "Disks of instances, which may outlive them"),
        (name = "snapshots", description = "Volumes and instances as they were, to go back to or to make new ones from"),
        (name = "pools", description = "Directories that several hosts share, for volumes"),
        (name = "networks", description = "Private Ethernets"),
        (name = "subnets", description = "Ranges of addresses in networks"),
        (name = "ports", description = "Network cards and their addresses"),
        (name = "security_groups", description = "Rules about who may reach a port"),
        (name = "routers", description = "What leads from subnet to subnet, and out of the cloud"),
        (name = "floating_ips", description = "Public addresses that stand for private ones"),
        (name = "address_pools", description = "Public addresses that the operator gives out"),
        (name = "operations", description = "What became of a call"),
        (name = "quotas", description = "How much a project may have"),
        (name = "events", description = "What happened to what, to be followed"),
        (name = "hosts", description = "The machines of the cloud"),
        (name = "audit", description = "Who did what"),
        (name = "service", description = "Health and metrics"),
    ),
)]
struct Root;

/// Every route of the public API.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Root::openapi())
        .merge(auth::routes::router())
        .merge(auth::browser::router())
        .merge(auth::me::router())
        .merge(auth::signing_keys::router())
        .merge(users::router())
        .merge(groups::router())
        .merge(service_accounts::router())
        .merge(api_keys::router())
        .merge(projects::router())
        .merge(policies::router())
        .merge(instances::router())
        .merge(insight::router())
        .merge(key_pairs::router())
        .merge(consoles::router())
        .merge(images::router())
        .merge(instance_types::router())
        .merge(placement_groups::router())
        .merge(placement_settings::router())
        .merge(placements::router())
        .merge(volumes::router())
        .merge(snapshots::router())
        .merge(snapshot_schedules::router())
        .merge(pools::router())
        .merge(networks::router())
        .merge(subnets::router())
        .merge(ports::router())
        .merge(security_groups::router())
        .merge(routers::router())
        .merge(floating_ips::router())
        .merge(address_pools::router())
        .merge(operations::router())
        .merge(quotas::router())
        .merge(events::router())
        .merge(hosts::router())
        .merge(drift::router())
        .merge(audit::router())
        .merge(super::health::router())
}

/// The public API with everything around it.
pub fn public_router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    let reference = SwaggerUi::new("/docs").url("/openapi.json", openapi_document());
    let router = router
        .merge(reference)
        .merge(web_ui::router())
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(app.clone(), limits::counted));
    layered(router, app)
}

/// The layers that public and agent API share, innermost first.
pub(crate) fn layered(router: Router<App>, app: App) -> Router {
    router
        .layer(middleware::from_fn_with_state(limits::HANDLER_PATIENCE, limits::bounded))
        .layer(CatchPanicLayer::custom(request::panicked))
        .layer(middleware::from_fn_with_state(app.clone(), request::wrap))
        .with_state(app)
}

async fn not_found() -> Response {
    let detail =
        "there is no such path; /docs shows those that there are, and /openapi.json lists them for programs";
    ApiError::because(ErrorCode::NotFound, detail).into_response()
}
