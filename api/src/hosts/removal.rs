//! Removing a host: nothing of any user is on it, and from then on nobody speaks for it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::HostId;
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::store;
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, MutationQuery, Path, Selector};
use crate::instances::store::hosts as instances;
use crate::instances::store::placement;
use crate::nudge::{self, Topic};
use crate::operations::store::{End, finish};
use crate::quotas;
use crate::volumes::store::hosts as volumes;

/// Remove a host on which nothing of anybody is left: neither instances nor volumes, snapshots or files that are to be removed, nor
/// guests that the cloud does not know. Its certificate is worth nothing from then on. Of a host that was declared dead, what its owners have deleted counts as
/// gone. The machine may join again, as a new host.
#[utoipa::path(delete, path = "/v1/hosts/{host}", tag = "hosts", params(MutationQuery), responses(
    (status = 204),
    (status = 409, description = "`in_use`: something is left on it; `detail` says what, and what to do"),
))]
pub(super) async fn delete_host(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut entry = call.entering(&app, None).await?;
    let mut gone = Gone::default();
    // Before the host: everybody locks instances and volumes first. Nothing is locked for whoever may not do this.
    if entry.foresee::<actions::DeleteHost>(&host).await?.is_some()
        && let Some(id) = dead_host(entry.conn(), &host).await?
    {
        gone = lock_gone(entry.conn(), id).await?;
    }
    let mut change = entry.decide::<actions::DeleteHost>(&host).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let (id, is_dead) = (row.id, row.declared_dead_at.is_some());
    change.note_before(&row.into_wire(now));
    let conn = change.conn();
    if is_dead {
        forget_gone(conn, id.into(), &gone, now).await?;
    }
    let left = leftovers(conn, id).await?;
    if !left.is_empty() {
        return Err(ApiError::because(ErrorCode::InUse, in_words(&left, is_dead)));
    }
    remove(conn, id).await?;
    // What waited for it goes elsewhere, and other hosts forget its address.
    placement::retry_now(conn, now).await?;
    nudge::send(conn, Topic::Networks).await?;
    nudge::send(conn, Topic::Host(id.into())).await?;
    tracing::info!(host = %HostId::from(id), "a host was removed");
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

async fn dead_host(conn: &mut PgConnection, host: &str) -> Result<Option<Uuid>, sqlx::Error> {
    let Some(selector) = Selector::parse(host) else { return Ok(None) };
    sqlx::query_scalar!(
        "SELECT id FROM hosts WHERE (id = $1 OR name = $2) AND declared_dead_at IS NOT NULL",
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

/// What owners have deleted, and what only a dead host could confirm.
#[derive(Default)]
struct Gone {
    instances: Vec<Uuid>,
    /// Orders to remove files.
    removals: Vec<Uuid>,
}

/// Locks it, as if the host itself had reported.
async fn lock_gone(conn: &mut PgConnection, host: Uuid) -> Result<Gone, sqlx::Error> {
    let instances = sqlx::query_scalar!(
        "SELECT id FROM instances WHERE host_id = $1 AND deletion_requested_at IS NOT NULL ORDER BY id FOR UPDATE",
        host
    )
    .fetch_all(&mut *conn)
    .await?;
    let removals = sqlx::query_scalar!(
        "SELECT id FROM layer_removals WHERE host_id = $1 AND pool_id IS NULL ORDER BY id",
        host
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        "SELECT FROM volumes WHERE instance_id = ANY($1) OR removal_id = ANY($2) ORDER BY id FOR UPDATE",
        &instances,
        &removals
    )
    .execute(&mut *conn)
    .await?;
    quotas::store::lock_before_going(conn, &instances, &[], &removals).await?;
    sqlx::query!(
        "SELECT FROM pools WHERE id IN (SELECT pool_id FROM volumes WHERE instance_id = ANY($1))
         ORDER BY id FOR NO KEY UPDATE",
        &instances
    )
    .execute(&mut *conn)
    .await?;
    Ok(Gone { instances, removals })
}

/// Ends the deletions that only this host could have confirmed. It is dead, and its row is held.
async fn forget_gone(
    conn: &mut PgConnection,
    host: HostId,
    gone: &Gone,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let operations =
        sqlx::query_scalar!("SELECT operation_id FROM instances WHERE id = ANY($1)", &gone.instances)
            .fetch_all(&mut *conn)
            .await?;
    let ids: Vec<_> = gone.instances.iter().map(|id| (*id).into()).collect();
    instances::delete(conn, host, &ids, &[], now).await?;
    for operation in operations {
        finish(conn, operation.into(), &End::Succeeded, now).await?;
    }
    let removals = sqlx::query_scalar!(
        "SELECT r.id FROM layer_removals r WHERE r.id = ANY($1)
           AND NOT EXISTS (SELECT FROM volumes v WHERE v.removal_id = r.id AND v.instance_id IS NOT NULL)",
        &gone.removals
    )
    .fetch_all(&mut *conn)
    .await?;
    volumes::forget(conn, &removals, now).await?;
    sqlx::query!("DELETE FROM departures WHERE host_id = $1", host.as_uuid()).execute(conn).await?;
    Ok(())
}

/// Something of users on a host.
struct Leftover {
    kind: String,
    count: i64,
    /// The first of them, each with its project.
    names: Vec<String>,
}

async fn leftovers(conn: &mut PgConnection, host: Uuid) -> Result<Vec<Leftover>, sqlx::Error> {
    sqlx::query_as!(
        Leftover,
        r#"WITH found (rank, kind, name) AS (
               SELECT 1, 'instances', p.name || '/' || i.name
               FROM instances i JOIN projects p ON p.id = i.project_id WHERE i.host_id = $1
               UNION ALL
               SELECT 2, 'volumes', p.name || '/' || v.name
               FROM volumes v JOIN projects p ON p.id = v.project_id WHERE v.host_id = $1 AND v.removal_id IS NULL
               UNION ALL
               SELECT DISTINCT 3, 'snapshots', p.name || '/' || s.name
               FROM snapshots s JOIN projects p ON p.id = s.project_id
               WHERE EXISTS (SELECT FROM layers l WHERE l.id = s.memory_id AND l.host_id = $1)
                  OR EXISTS (SELECT FROM snapshot_volumes sv JOIN layers l ON l.id = sv.layer_id
                             WHERE sv.snapshot_id = s.id AND l.host_id = $1)
               UNION ALL
               SELECT 4, 'images_in_the_making', p.name || '/' || m.name
               FROM image_imports g JOIN operations o ON o.id = g.operation_id JOIN images m ON m.id = o.resource_id
               JOIN projects p ON p.id = o.project_id WHERE g.host_id = $1
               UNION ALL
               SELECT 5, 'files_to_be_removed', r.id::text
               FROM layer_removals r WHERE r.host_id = $1 AND r.pool_id IS NULL
               UNION ALL
               SELECT 6, 'arrivals', p.name || '/' || i.name
               FROM migrations m JOIN instances i ON i.id = m.instance_id JOIN projects p ON p.id = i.project_id
               WHERE m.destination_host_id = $1
               UNION ALL
               SELECT 7, 'departures', d.instance_id::text FROM departures d WHERE d.host_id = $1
               UNION ALL
               -- Nobody else could remove them. A dead one cannot, either.
               SELECT 9, 'last_with_pool', p.name
               FROM pools p JOIN pool_hosts o ON o.pool_id = p.id JOIN hosts h ON h.id = o.host_id
               WHERE o.host_id = $1 AND h.declared_dead_at IS NULL
                 AND EXISTS (SELECT FROM layer_removals r WHERE r.pool_id = p.id)
                 AND NOT EXISTS (SELECT FROM pool_hosts e WHERE e.pool_id = p.id AND e.host_id <> $1)
               UNION ALL
               -- On a dead one nothing runs, so the operator. However many there are, as the host says: one row.
               SELECT 8, 'unknown_guests', h.name
               FROM hosts h WHERE h.id = $1 AND h.declared_dead_at IS NULL AND unknown_guests_on(h.id) > 0)
           SELECT kind AS "kind!", CASE kind WHEN 'unknown_guests' THEN unknown_guests_on($1) ELSE count(*) END AS "count!",
                  (array_agg(name ORDER BY name))[1:3] AS "names!"
           FROM found GROUP BY rank, kind ORDER BY rank"#,
        host
    )
    .fetch_all(conn)
    .await
}

fn in_words(left: &[Leftover], is_dead: bool) -> String {
    let what: Vec<_> = left.iter().map(Leftover::in_words).collect();
    let what = what.join("; ");
    if is_dead {
        format!(
            "still on it: {what}. It is dead: move instances whose volumes are all in shared pools; the data of the others \
             is lost with it, so their owners, or you in their projects, delete those instances, volumes and snapshots \
             first. Nothing is forgotten that nobody has deleted"
        )
    } else {
        format!("still on it: {what}. Drain it, and have deleted what stays; try again when that is done")
    }
}

impl Leftover {
    fn in_words(&self) -> String {
        let Self { kind, count, names } = self;
        let one = *count == 1;
        let names = || {
            let more = if *count > 3 { ", …" } else { "" };
            format!(" ({}{more})", names.join(", "))
        };
        match kind.as_str() {
            "instances" => format!("{count} {}{}", if one { "instance" } else { "instances" }, names()),
            "volumes" => format!("{count} {}{}", if one { "volume" } else { "volumes" }, names()),
            "snapshots" => format!("{count} {}{}", if one { "snapshot" } else { "snapshots" }, names()),
            "images_in_the_making" => format!("{count} images that it makes{}", names()),
            "arrivals" => format!("{count} instances that are on their way to it{}", names()),
            "files_to_be_removed" => format!("{count} orders to remove files that it has not confirmed"),
            "last_with_pool" => {
                let pools = if one { "a pool" } else { "pools" };
                format!("files to be removed in {pools} that no other host has{}", names())
            }
            "unknown_guests" => unknown_guests(*count, self.names.first().map_or("", String::as_str)),
            _ => format!("{count} instances that it has not confirmed to have let go of"),
        }
    }
}

/// Guests on a host of which the cloud knows nothing, and what to do about them: no call here removes them.
pub(super) fn unknown_guests(count: i64, host: &str) -> String {
    let (guests, run, them) = if count == 1 { ("guest", "runs", "it") } else { ("guests", "run", "them") };
    format!(
        "{count} {guests} that the cloud does not know {run} there (`cumulo host unknown-guest list {host}` names {them}): copy what \
         is needed of {them}, and end {them} on the host, as docs/operations.md says of quarantined domains"
    )
}

/// Removes the host with what the cloud alone knows of it. What refers to it and is not named here goes with its row, or
/// keeps it from going.
async fn remove(conn: &mut PgConnection, host: Uuid) -> Result<(), ApiError> {
    sqlx::query!("DELETE FROM transfers WHERE host_id = $1", host).execute(&mut *conn).await?;
    // What it was to remove from a shared pool another host removes.
    sqlx::query!(
        "UPDATE layer_removals SET host_id = NULL, desired_revision = NULL WHERE host_id = $1 AND pool_id IS NOT NULL",
        host
    )
    .execute(&mut *conn)
    .await?;
    let deleted = sqlx::query!("DELETE FROM hosts WHERE id = $1", host).execute(conn).await;
    deleted.map(drop).map_err(|error| match crate::http::violated_constraint(&error) {
        // Layers that nobody holds any more and that have not gone yet, as while they are merged.
        Some("layers_host_id_fkey") => ApiError::because(
            ErrorCode::InUse,
            "files of volumes are still on it that are merged or removed just now; try again when that is done",
        ),
        _ => error.into(),
    })
}
