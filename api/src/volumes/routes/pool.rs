//! In which shared pool a new volume will be, for policies that ask.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::actions;
use crate::http::{ApiError, Entry, Selector};
use crate::pools;
use crate::snapshots::store::{self as snapshots, using};
use crate::volumes::store;
use crate::volumes::types::VolumeSource;

/// What policies call that pool: the one that the body names, or else that of what the volume begins with, if the caller
/// may use that.
pub(super) async fn foresee(
    entry: &mut Entry<'_>,
    project: &str,
    named: Option<&str>,
    source: &VolumeSource,
) -> Result<Option<String>, ApiError> {
    if let Some(named) = named {
        return Ok(Some(pools::store::called(entry.conn(), named).await?));
    }
    match (&source.snapshot, &source.volume) {
        (Some(snapshot), volume) => of_snapshot(entry, project, snapshot, volume.as_deref()).await,
        (None, Some(volume)) => of_volume(entry, project, volume).await,
        (None, None) => Ok(None),
    }
}

async fn of_snapshot(
    entry: &mut Entry<'_>,
    project: &str,
    snapshot: &str,
    volume: Option<&str>,
) -> Result<Option<String>, ApiError> {
    let Some(selector) = Selector::parse(snapshot) else { return Ok(None) };
    let Some(allowed) = entry.foresee::<actions::RestoreSnapshot>((project, snapshot)).await? else {
        return Ok(None);
    };
    let conn = entry.conn();
    let Some(row) = snapshots::find(conn, &allowed, &selector).await? else { return Ok(None) };
    match using::choose(&row, volume, "") {
        Ok(shown) => Ok(using::pool(conn, row.id, shown.position).await?),
        Err(_) => Ok(None),
    }
}

async fn of_volume(entry: &mut Entry<'_>, project: &str, volume: &str) -> Result<Option<String>, ApiError> {
    let Some(selector) = Selector::parse(volume) else { return Ok(None) };
    let Some(allowed) = entry.foresee::<actions::SnapshotVolume>((project, volume)).await? else {
        return Ok(None);
    };
    Ok(store::find(entry.conn(), &allowed, &selector).await?.and_then(|row| row.pool_name))
}

/// The name of the pool in which it is.
pub(super) async fn name(conn: &mut PgConnection, pool: Option<Uuid>) -> Result<Option<String>, sqlx::Error> {
    match pool {
        Some(pool) => Ok(Some(pools::store::called(conn, &pool.to_string()).await?)),
        None => Ok(None),
    }
}
