//! Making volumes: empty, or from something.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::{LayerId, VolumeId};
use uuid::Uuid;

use super::pool;
use crate::app::App;
use crate::auth::{Fact, New, actions, keys};
use crate::http::{ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Path, Selector};
use crate::images;
use crate::pools;
use crate::quotas;
use crate::snapshots;
use crate::snapshots::store::taking::{self, Sealed};
use crate::snapshots::store::using;
use crate::volumes::disks::no_image;
use crate::volumes::model::gib_for;
use crate::volumes::store::{self, NewVolume};
use crate::volumes::types::{CreateVolume, Volume, VolumeSource};

/// Make a volume. Its data gets its place on a host when an instance with it does; that of a volume from a snapshot or another
/// volume is where theirs is. A snapshot needs `volume:RestoreSnapshot`, a volume `volume:SnapshotVolume`, too.
#[utoipa::path(post, path = "/v1/projects/{project}/volumes", tag = "volumes",
    params(MutationQuery), request_body = CreateVolume, responses(
        (status = 201, body = Volume),
))]
pub(super) async fn create_volume(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateVolume = call.json()?;
    ApiError::reject(new.validate())?;
    let source = new.source.clone().unwrap_or_default();
    let mut entry = call.entering(&app, Some(&project)).await?;
    let locked = match (&source.snapshot, &source.volume) {
        (None, Some(volume)) => store::lock_instance_of(entry.conn(), &project, volume).await?,
        _ => None,
    };
    let foreseen = pool::foresee(&mut entry, &project, new.pool.as_deref(), &source).await?;
    let facts: Vec<_> = foreseen.iter().map(|pool| (keys::POOL, Fact::Text(pool))).collect();
    let place =
        (project.as_str(), New { labels: &new.labels, facts: &facts, ..New::named(new.name.as_str()) });
    let change = entry.decide::<actions::CreateVolume>(place).await?;
    let (mut change, origin) = origin(&app, change, &project, &source, locked).await?;
    let size_gib = new.size_gib.unwrap_or(origin.needed_gib);
    if size_gib < origin.needed_gib {
        let message = format!("what it begins with needs {} GiB", origin.needed_gib);
        return Err(ApiError::invalid(vec![FieldError::new("/size_gib", "too_small", message)]));
    }
    let pool = match (origin.below.and_then(|below| below.pool), &new.pool) {
        (below, None) => below,
        (_, Some(pool)) => Some(pools::store::named(change.conn(), pool, "/pool").await?.id),
    };
    if origin.below.is_some_and(|below| below.pool != pool) {
        let message = "it is where the data is that it begins with";
        return Err(ApiError::invalid(vec![FieldError::new("/pool", "invalid", message)]));
    }
    if pool::name(change.conn(), pool).await? != foreseen {
        // What it begins with has become another one a moment ago.
        return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
    }
    let (id, layer): (VolumeId, LayerId) = (app.clock.new_id(), app.clock.new_id());
    let now = change.now;
    let volume = NewVolume {
        id,
        layer,
        below: origin.below,
        name: new.name.as_str(),
        description: &new.description,
        labels: &new.labels,
        size_gib,
        image: origin.image,
        pool,
        delete_protection: new.delete_protection,
        iops_limit: new.iops_limit,
        bytes_per_second_limit: new.bytes_per_second_limit,
        attachment: None,
        now,
    };
    let (conn, allowed) = change.parts();
    store::insert(conn, allowed, &volume).await?;
    let row = store::find(conn, allowed, &Selector::Id(id.as_uuid())).await?;
    let row = row.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::CREATED, Some(version), &row.into_wire(app.clock.now())).await
}

/// What a new volume begins with.
struct Origin {
    image: Option<Uuid>,
    needed_gib: i32,
    /// What its first layer stands on.
    below: Option<Sealed>,
}

impl From<Sealed> for Origin {
    fn from(sealed: Sealed) -> Self {
        Self { image: sealed.image, needed_gib: sealed.size_gib, below: Some(sealed) }
    }
}

type Change = Mutation<actions::CreateVolume>;

/// Finds what the body names, and asks for the right to it. The instance of a volume was locked before.
async fn origin(
    app: &App,
    change: Change,
    project: &str,
    source: &VolumeSource,
    locked: Option<Uuid>,
) -> Result<(Change, Origin), ApiError> {
    match (&source.image, &source.snapshot, &source.volume) {
        (Some(image), ..) => of_image(change, image).await,
        (None, Some(snapshot), volume) => of_snapshot(change, project, snapshot, volume.as_deref()).await,
        (None, None, Some(volume)) => of_volume(app, change, project, volume, locked).await,
        (None, None, None) => Ok((change, Origin { image: None, needed_gib: 1, below: None })),
    }
}

async fn of_image(mut change: Change, image: &str) -> Result<(Change, Origin), ApiError> {
    let pointer = "/source/image";
    let (conn, allowed) = change.parts();
    let image = images::hold(conn, allowed.project(), image).await?;
    let image = image.ok_or_else(|| ApiError::invalid(vec![no_image(pointer)]))?;
    let virtual_size = image.virtual_size_bytes.ok_or_else(|| {
        let message = "nothing has been uploaded to this image yet";
        ApiError::invalid(vec![FieldError::new(pointer, "not_ready", message)])
    })?;
    let needed_gib = gib_for(virtual_size).max(image.min_disk_gib);
    Ok((change, Origin { image: Some(image.id), needed_gib, below: None }))
}

async fn of_snapshot(
    change: Change,
    project: &str,
    snapshot: &str,
    volume: Option<&str>,
) -> Result<(Change, Origin), ApiError> {
    let (mut change, row) =
        snapshots::hold::<actions::RestoreSnapshot, _>(change, project, snapshot, "/source/snapshot").await?;
    let shown = using::choose(&row, volume, "/source/volume")?;
    let sealed = using::sealed(change.conn(), row.id, shown.position, None).await?;
    Ok((change, sealed.into()))
}

async fn of_volume(
    app: &App,
    change: Change,
    project: &str,
    volume: &str,
    locked: Option<Uuid>,
) -> Result<(Change, Origin), ApiError> {
    let missing = || {
        let message = "this project has no such volume";
        ApiError::invalid(vec![FieldError::new("/source/volume", "not_found", message)])
    };
    let mut change = change.also::<actions::SnapshotVolume>((project, volume), missing).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let found = store::identify(conn, allowed, volume).await?.ok_or_else(missing)?;
    if found.instance_id != locked {
        // Attached or detached a moment ago.
        return Err(ApiError::new(ErrorCode::Busy).retry_after(1));
    }
    // Before the host of its instance is told.
    quotas::store::lock(conn, allowed.project()).await?;
    let sealed = taking::seal(conn, found.id, &app.clock, now).await?;
    Ok((change, sealed.into()))
}
