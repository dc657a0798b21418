//! The agent listener's routes.

use axum::routing::{get, post};
use axum::{Router, middleware};

use super::{consoles, desired, drift, heartbeat, images, insight, join, observed, session, transfers};
use crate::app::App;
use crate::http::limits;

/// Every route of the agent protocol; see [`protocol::agent`].
pub(crate) fn agent_router(app: &App) -> Router {
    let router = Router::new()
        .route("/agent/v1/join", post(join::join))
        .route("/agent/v1/renew", post(join::renew))
        .route("/agent/v1/sessions", post(session::open))
        .route("/agent/v1/desired", get(desired::get))
        .route("/agent/v1/observed", post(observed::report))
        .route("/agent/v1/heartbeat", post(heartbeat::beat))
        .route("/agent/v1/insight", post(insight::take))
        .route("/agent/v1/drift", post(drift::take))
        .route("/agent/v1/blobs/{sha256}", get(desired::get_blob))
        .route("/agent/v1/transfers/{id}", post(transfers::fill))
        .route("/agent/v1/requests/{id}/refusal", post(transfers::refuse))
        .route("/agent/v1/consoles/{id}", get(consoles::bring))
        .route("/agent/v1/images/{id}", post(images::take))
        .route("/agent/v1/images/{id}/status", post(images::note));
    let app = app.for_agents();
    let router = router.layer(middleware::from_fn_with_state(app.clone(), limits::counted_agents));
    crate::http::router::layered(router, app)
}
