//! Handlers of metrics and guests.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, Guest};
use super::types::{
    ExposedQuery, GuestAgentState, InstanceGuest, InstanceMetrics, MetricsQuery, ScrapeQuery, ScrapeTarget,
};
use super::{discovery, history, prometheus};
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, LabelSelector, Path};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_instance_metrics))
        .routes(routes!(get_instance_guest))
        .routes(routes!(list_instance_metrics))
        .routes(routes!(list_scrape_targets))
}

/// What an instance has used of its processors, memory, disks and networks in the last hours.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}/metrics", tag = "instances",
    params(MetricsQuery), responses(
        (status = 200, body = InstanceMetrics),
))]
async fn get_instance_metrics(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Json<InstanceMetrics>, ApiError> {
    let window = call.query::<MetricsQuery>()?.window(app.clock.now())?;
    let mut reading = call.reading::<actions::GetInstanceMetrics>(&app, (&project, &instance)).await?;
    let (conn, allowed) = reading.parts();
    let found = store::find(conn, allowed, allowed.selector()).await?;
    let (id, _) = found.ok_or_else(ApiError::not_found)?;
    let samples = store::samples(conn, allowed, id, &window).await?;
    drop(reading);
    Ok(Json(InstanceMetrics {
        instance_id: id.into(),
        from: window.from,
        to: window.to,
        step_seconds: window.step,
        items: history::points(&samples, &window),
    }))
}

/// What the guest of an instance says of itself, if `qemu-guest-agent` runs in it: its addresses, file systems, operating
/// system and clock. Its host asks soon after the boot, and then every five minutes.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}/guest", tag = "instances", responses(
    (status = 200, body = InstanceGuest),
))]
async fn get_instance_guest(
    State(app): State<App>,
    Path((project, instance)): Path<(String, String)>,
    call: Call,
) -> Result<Json<InstanceGuest>, ApiError> {
    let mut reading = call.reading::<actions::GetInstanceGuest>(&app, (&project, &instance)).await?;
    let (conn, allowed) = reading.parts();
    let found = store::find(conn, allowed, allowed.selector()).await?;
    let (id, runs) = found.ok_or_else(ApiError::not_found)?;
    let guest = store::guest(conn, allowed, id).await?;
    let (agent, detail) = agent_state(guest.as_ref(), runs);
    let (asked_at, seen_at, info) = match guest {
        Some(guest) => (Some(guest.asked_at), guest.seen_at, guest.info),
        None => (None, None, None),
    };
    let info = info.map(|info| info.0).unwrap_or_default();
    Ok(Json(InstanceGuest {
        instance_id: id.into(),
        agent,
        detail,
        asked_at,
        seen_at,
        hostname: info.hostname,
        os: info.os,
        time_zone: info.time_zone,
        utc_offset_seconds: info.utc_offset_seconds,
        clock_offset_ms: info.clock_offset_ms,
        interfaces: info.interfaces,
        filesystems: info.filesystems,
    }))
}

fn agent_state(guest: Option<&Guest>, runs: bool) -> (GuestAgentState, Option<&'static str>) {
    match guest.map(|guest| guest.silence.as_deref()) {
        _ if !runs => (GuestAgentState::NotRunning, Some("The instance does not run: start it.")),
        None => (
            GuestAgentState::NotAsked,
            Some("Its host asks some seconds after the boot, and ever more seldom until an agent answers."),
        ),
        Some(None) => (GuestAgentState::Answering, None),
        Some(Some("no_agent")) => (
            GuestAgentState::NoAgent,
            Some("No agent listens in the guest: install the package qemu-guest-agent there, and start it."),
        ),
        Some(Some(_)) => (
            GuestAgentState::NotAnswering,
            Some(
                "An agent listens in the guest and does not answer its host: restart qemu-guest-agent there.",
            ),
        ),
    }
}

/// The newest measurements of a project's instances, in Prometheus' text format: of the first 1000, with a comment that says
/// so when there are more.
#[utoipa::path(get, path = "/v1/projects/{project}/instance_metrics", tag = "instances", params(ExposedQuery), responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
async fn list_instance_metrics(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let query: ExposedQuery = call.query()?;
    let labels = LabelSelector::parse(query.label_selector.as_deref().unwrap_or_default())?;
    let mut reading = call.reading::<actions::ListInstanceMetrics>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let most = prometheus::MAX_INSTANCES + 1;
    let newest = store::newest(conn, allowed, &labels, app.clock.now(), most).await?;
    drop(reading);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((headers, prometheus::text(&newest)).into_response())
}

/// Instances with the label `prometheus.io/scrape=true`, as Prometheus' `http_sd_config` wants them. The labels
/// `prometheus.io/port`, `…/path` and `…/scheme` say where their exporters are: port 9100, `/metrics` and `http` unless
/// given.
#[utoipa::path(get, path = "/v1/projects/{project}/scrape_targets", tag = "instances", params(ScrapeQuery), responses(
    (status = 200, body = Vec<ScrapeTarget>),
))]
async fn list_scrape_targets(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Json<Vec<ScrapeTarget>>, ApiError> {
    let query: ScrapeQuery = call.query()?;
    let mut reading = call.reading::<actions::ListScrapeTargets>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let scraped = store::scraped(conn, allowed).await?;
    drop(reading);
    Ok(Json(scraped.iter().filter_map(|instance| discovery::target(instance, query.address)).collect()))
}
