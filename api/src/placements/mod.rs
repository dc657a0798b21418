//! Questions about placement that change nothing: whether many would find room together, why one waits, host by host,
//! how much more fits, and what the loss of hosts would do. All of them ask [`crate::scheduler`], as the real decision
//! does.

mod capacity;
mod explain;
mod plan;
mod store;
#[cfg(test)]
mod tests;
mod types;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(plan::plan_placements))
        .routes(routes!(explain::explain_placement))
        .routes(routes!(capacity::get_capacity))
}
