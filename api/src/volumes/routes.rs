//! Handlers of volumes. How they come into instances is in `instances/routes/volumes.rs`.

mod change;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::{LayerId, VolumeId};
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::disks::no_image;
use super::model::gib_for;
use super::store::{self, Filter, NewVolume};
use super::types::{CreateVolume, Volume, VolumeQuery, VolumeSource};
use crate::app::App;
use crate::auth::{Allowed, Fact, New, actions, keys};
use crate::http::{ApiError, Call, FieldError, LabelledPageQuery, MutationQuery, Page, Path, Selector};
use crate::{images, pools};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_volume, list_volumes)).routes(routes!(
        get_volume,
        change::update_volume,
        change::delete_volume
    ))
}

/// Make a volume. Its data gets its place on a host when an instance with it does.
#[utoipa::path(post, path = "/v1/projects/{project}/volumes", tag = "volumes",
    params(MutationQuery), request_body = CreateVolume, responses(
        (status = 201, body = Volume),
))]
async fn create_volume(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateVolume = call.json()?;
    ApiError::reject(new.validate())?;
    let facts: Vec<_> = new.pool.iter().map(|pool| (keys::POOL, Fact::Text(pool))).collect();
    let place =
        (project.as_str(), New { labels: &new.labels, facts: &facts, ..New::named(new.name.as_str()) });
    let mut change = call.changing::<actions::CreateVolume>(&app, place).await?;
    let (id, layer): (VolumeId, LayerId) = (app.clock.new_id(), app.clock.new_id());
    let now = change.now;
    let (conn, allowed) = change.parts();
    let pool = match &new.pool {
        Some(pool) => Some(pools::store::named(conn, pool, "/pool").await?.id),
        None => None,
    };
    let (image, needed) = match &new.source {
        Some(source) => source_image(conn, allowed, source).await?,
        None => (None, 1),
    };
    let size_gib = new.size_gib.unwrap_or(needed);
    if size_gib < needed {
        let message = format!("the image needs {needed} GiB");
        return Err(ApiError::invalid(vec![FieldError::new("/size_gib", "too_small", message)]));
    }
    let volume = NewVolume {
        id,
        layer,
        name: new.name.as_str(),
        description: &new.description,
        labels: &new.labels,
        size_gib,
        image,
        pool,
        delete_protection: new.delete_protection,
        iops_limit: new.iops_limit,
        bytes_per_second_limit: new.bytes_per_second_limit,
        attachment: None,
        now,
    };
    store::insert(conn, allowed, &volume).await?;
    let row = store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?;
    let row = row.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire()).await
}

/// The image that the body names, and how many GiB it needs.
async fn source_image(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateVolume>,
    source: &VolumeSource,
) -> Result<(Option<Uuid>, i32), ApiError> {
    let pointer = "/source/image";
    let image = images::hold(conn, allowed.project(), &source.image).await?;
    let image = image.ok_or_else(|| ApiError::invalid(vec![no_image(pointer)]))?;
    let virtual_size = image.virtual_size_bytes.ok_or_else(|| {
        let message = "nothing has been uploaded to this image yet";
        ApiError::invalid(vec![FieldError::new(pointer, "not_ready", message)])
    })?;
    Ok((Some(image.id), gib_for(virtual_size).max(image.min_disk_gib)))
}

/// List the volumes of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/volumes", tag = "volumes", params(VolumeQuery), responses(
    (status = 200, body = Page<Volume>),
))]
async fn list_volumes(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Volume>>, ApiError> {
    let query: VolumeQuery = call.query()?;
    // A text that is neither a name nor an id matches nothing.
    let instance = query.instance.map(|text| Selector::parse(&text).map_or_else(String::new, |_| text));
    let (query, labels) =
        LabelledPageQuery::new(query.limit, query.cursor, query.name, query.label_selector).checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListVolumes>(&app, &project).await?;
    let (conn, allowed) = reading.parts();
    let (instance, rows) = (instance.as_deref(), query.rows());
    let filter = Filter { after, name: query.name(), labels: &labels, instance, rows };
    let rows = store::list(conn, allowed, &filter).await?;
    let items = rows.into_iter().map(store::Row::into_wire).collect();
    Ok(axum::Json(query.page(items, |volume: &Volume| volume.id.as_uuid())))
}

/// Get a volume.
#[utoipa::path(get, path = "/v1/projects/{project}/volumes/{volume}", tag = "volumes", responses(
    (status = 200, body = Volume),
))]
async fn get_volume(
    State(app): State<App>,
    Path((project, volume)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetVolume>(&app, (&project, &volume)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire())
}
