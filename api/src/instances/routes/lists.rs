//! The instances of a project, and those of all of them.

use std::collections::BTreeMap;

use axum::extract::State;

use super::super::store;
use super::super::types::{CloudInstance, CloudInstanceQuery, Instance, InstanceQuery};
use crate::app::App;
use crate::auth::actions;
use crate::hosts;
use crate::http::{ApiError, Call, ErrorCode, LabelledPageQuery, Page, PageQuery, Path, Selector};

/// List the instances of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/instances", tag = "instances", params(InstanceQuery), responses(
    (status = 200, body = Page<Instance>),
))]
pub(super) async fn list_instances(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Instance>>, ApiError> {
    let query: InstanceQuery = call.query()?;
    let state = query.state;
    let (query, labels) =
        LabelledPageQuery::new(query.limit, query.cursor, query.name, query.label_selector).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListInstances>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let filter = store::Filter { after, name: query.name(), labels: &labels, state, rows: query.rows() };
    let page = query.page(store::list(conn, allowed, &filter).await?, |id| *id);
    let rows = store::rows_of(conn, &page.items).await?;
    let (knows_hosts, now) = (reading.finish().knows_hosts(), app.clock.now());
    let items = rows.into_iter().map(|row| row.into_wire_with_host(knows_hosts, now)).collect();
    Ok(axum::Json(Page { items, next_cursor: page.next_cursor }))
}

/// List the instances of all projects, oldest first, each with its project.
#[utoipa::path(get, path = "/v1/instances", tag = "instances", params(CloudInstanceQuery), responses(
    (status = 200, body = Page<CloudInstance>),
))]
pub(super) async fn list_cloud_instances(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<Page<CloudInstance>>, ApiError> {
    let query: CloudInstanceQuery = call.query()?;
    // A text that is neither a name nor an id matches nothing.
    let named = |text: String| Selector::parse(&text).map_or_else(String::new, |_| text);
    let (project, host, state) = (query.project.map(named), query.host.map(named), query.state);
    let query = PageQuery::new(query.limit, query.cursor).named(query.name).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListCloudInstances>(&app, ()).await?;
    let knows_hosts = reading.caller.knows_hosts();
    if host.is_some() && !knows_hosts {
        let why = "host: only who may list the hosts of the cloud may ask what is on one; leave it out";
        return Err(ApiError::because(ErrorCode::Forbidden, why));
    }
    let (conn, allowed) = reading.parts();
    hosts::store::known_to_filter(conn, host.as_deref()).await?;
    let filter = store::CloudFilter {
        after,
        name: query.name(),
        state,
        project: project.as_deref(),
        host: host.as_deref(),
        rows: query.rows(),
    };
    let page = query.page(store::list_of_cloud(conn, allowed, &filter).await?, |one| one.id);
    let (ids, mut projects): (Vec<_>, BTreeMap<_, _>) =
        page.items.into_iter().map(|one| (one.id, (one.id, one.project))).unzip();
    let (rows, now) = (store::rows_of(conn, &ids).await?, app.clock.now());
    let items = rows.into_iter().filter_map(|row| {
        let project = projects.remove(&row.id)?;
        Some(CloudInstance { project, instance: row.into_wire_with_host(knows_hosts, now) })
    });
    Ok(axum::Json(Page { items: items.collect(), next_cursor: page.next_cursor }))
}
