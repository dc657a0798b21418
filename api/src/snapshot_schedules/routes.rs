//! Handlers of schedules.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::SnapshotScheduleId;
use serde_json::json;
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store::{self, New};
use super::types::{CreateSnapshotSchedule, KEEP, SnapshotSchedule, UpdateSnapshotSchedule, validate_keep};
use crate::app::App;
use crate::auth::{Action, InProject, New as NewResource, actions};
use crate::http::{
    ApiError, Call, FieldError, LabelledPageQuery, Mutation, MutationQuery, Page, Path, Selector,
    merge_labels, validate_description, validate_labels,
};
use crate::snapshots::store::taking::{self, Source};
use crate::volumes;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_snapshot_schedule, list_snapshot_schedules)).routes(routes!(
        get_snapshot_schedule,
        update_snapshot_schedule,
        delete_snapshot_schedule
    ))
}

/// Take snapshots of a volume or an instance at regular times. Needs `volume:CreateSnapshot` and the right to take one of it,
/// too; from then on it runs by itself. It goes with the volume or the instance.
#[utoipa::path(post, path = "/v1/projects/{project}/snapshot_schedules", tag = "snapshots",
    params(MutationQuery), request_body = CreateSnapshotSchedule, responses(
        (status = 201, body = SnapshotSchedule),
))]
async fn create_snapshot_schedule(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateSnapshotSchedule = call.json()?;
    ApiError::reject(new.validate())?;
    let mut entry = call.entering(&app, Some(&project)).await?;
    let instance = match &new.instance {
        Some(instance) => taking::lock_instance(entry.conn(), &project, instance).await?,
        None => None,
    };
    let place = NewResource { labels: &new.labels, ..NewResource::named(new.name.as_str()) };
    let change = entry.decide::<actions::CreateSnapshotSchedule>((&project, place)).await?;
    let change = change.also::<actions::CreateSnapshot>((&project, place), ApiError::not_found).await?;
    let named = Named { volume: new.volume.as_deref(), instance: new.instance.as_deref() };
    let (mut change, source) = source(change, &project, named, instance).await?;
    let (id, now): (SnapshotScheduleId, _) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let schedule = New {
        id,
        name: new.name.as_str(),
        description: &new.description,
        labels: &new.labels,
        source,
        consistency: new.consistency,
        rhythm: new.rhythm(),
        keep: new.keep,
        now,
    };
    store::insert(conn, allowed, &schedule).await?;
    check_room(conn, id.as_uuid()).await?;
    let row =
        store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// Refuses a schedule with which all those of a volume together would keep more than its chain takes: none of them would
/// ever take another snapshot.
async fn check_room(conn: &mut PgConnection, schedule: Uuid) -> Result<(), ApiError> {
    let kept = store::kept_with(conn, schedule).await?;
    if kept <= (*KEEP.end()).into() {
        return Ok(());
    }
    let message = format!(
        "all schedules of a volume together would keep {kept} snapshots of it; they may keep {}",
        KEEP.end()
    );
    Err(ApiError::invalid(vec![FieldError::new("/keep", "out_of_range", message)]))
}

/// What a body names: one of both.
#[derive(Clone, Copy)]
struct Named<'a> {
    volume: Option<&'a str>,
    instance: Option<&'a str>,
}

/// What the body names, locked.
async fn source<A: Action<On: InProject>>(
    change: Mutation<A>,
    project: &str,
    named: Named<'_>,
    instance: Option<Uuid>,
) -> Result<(Mutation<A>, Source), ApiError> {
    let invalid =
        |pointer, message: &str| ApiError::invalid(vec![FieldError::new(pointer, "not_found", message)]);
    if let Some(volume) = named.volume {
        let missing = || invalid("/volume", "this project has no such volume");
        let mut change = change.also::<actions::SnapshotVolume>((project, volume), missing).await?;
        let (conn, allowed) = change.parts();
        let found = volumes::store::identify(conn, allowed, volume).await?.ok_or_else(missing)?;
        return Ok((change, Source::Volume(found.id)));
    }
    let name = named.instance.unwrap_or_default();
    let missing = || invalid("/instance", "this project has no such instance");
    let change = change.also::<actions::SnapshotInstance>((project, name), missing).await?;
    Ok((change, Source::Instance(instance.ok_or_else(missing)?)))
}

/// List the schedules of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/snapshot_schedules", tag = "snapshots", params(LabelledPageQuery), responses(
    (status = 200, body = Page<SnapshotSchedule>),
))]
async fn list_snapshot_schedules(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<SnapshotSchedule>>, ApiError> {
    let (query, labels) = call.query::<LabelledPageQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListSnapshotSchedules>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let rows = store::list(conn, allowed, after, query.name(), &labels, query.rows()).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |schedule: &SnapshotSchedule| schedule.id.as_uuid())))
}

/// Get a schedule.
#[utoipa::path(get, path = "/v1/projects/{project}/snapshot_schedules/{schedule}", tag = "snapshots", responses(
    (status = 200, body = SnapshotSchedule),
))]
async fn get_snapshot_schedule(
    State(app): State<App>,
    Path((project, schedule)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetSnapshotSchedule>(&app, (&project, &schedule)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}

/// Change a schedule, or pause it. Another volume or instance needs `volume:CreateSnapshot` and the right to take one of it,
/// too; what was made before of something else stays.
#[utoipa::path(patch, path = "/v1/projects/{project}/snapshot_schedules/{schedule}", tag = "snapshots",
    params(MutationQuery), request_body = UpdateSnapshotSchedule, responses(
        (status = 200, body = SnapshotSchedule),
))]
async fn update_snapshot_schedule(
    State(app): State<App>,
    Path((project, schedule)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateSnapshotSchedule = call.json()?;
    let mut entry = call.entering(&app, Some(&project)).await?;
    let instance = match &patch.instance {
        Some(instance) => taking::lock_instance(entry.conn(), &project, instance).await?,
        None => None,
    };
    let mut change = entry.decide::<actions::UpdateSnapshotSchedule>((&project, &schedule)).await?;
    let named = Named { volume: patch.volume.as_deref(), instance: patch.instance.as_deref() };
    let mut taken = None;
    if named.volume.is_some() || named.instance.is_some() {
        let (asked, source) = source(change, &project, named, instance).await?;
        (change, taken) = (asked, Some(source));
    }
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::lock(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let mut errors = patch.validate(row.at_minute.is_some());
    if let Some(source) = taken {
        row.set_source(source);
    }
    let rhythm = patch.rhythm(row.rhythm());
    row.name = patch.name.map_or(row.name, |name| name.as_str().to_owned());
    row.description = patch.description.unwrap_or(row.description);
    row.labels.0 = merge_labels(row.labels.0, patch.labels);
    row.keep = patch.keep.unwrap_or(row.keep);
    validate_description(&row.description, &mut errors);
    validate_labels(&row.labels, &mut errors);
    validate_keep(row.keep, &mut errors);
    ApiError::reject(errors)?;
    if let Some(rhythm) = rhythm {
        row.set_rhythm(rhythm);
    }
    if rhythm.is_some() || patch.paused == Some(false) && row.paused {
        // What was due meanwhile is not made up for.
        row.next_at = row.rhythm().next(row.created_at, now);
    }
    row.paused = patch.paused.unwrap_or(row.paused);
    row.generation += 1;
    row.updated_at = now;
    let mut change = change.check_renamed(row.id, &row.name, &row.labels).await?;
    if taken.is_some() {
        // As for a new one: what it will take is called like it.
        let place = NewResource { labels: &row.labels, ..NewResource::named(&row.name) };
        change = change.also::<actions::CreateSnapshot>((&project, place), ApiError::not_found).await?;
    }
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    if patch.keep.is_some() || taken.is_some() {
        check_room(conn, row.id).await?;
    }
    let row = store::find(conn, allowed, &Selector::Id(row.id)).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire()).await
}

/// Delete a schedule. The snapshots that it made stay.
#[utoipa::path(delete, path = "/v1/projects/{project}/snapshot_schedules/{schedule}", tag = "snapshots",
    params(MutationQuery), responses(
        (status = 204, description = "Gone"),
))]
async fn delete_snapshot_schedule(
    State(app): State<App>,
    Path((project, schedule)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::DeleteSnapshotSchedule>(&app, (&project, &schedule)).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire());
    let (conn, allowed) = change.parts();
    store::delete(conn, allowed, row.id).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
