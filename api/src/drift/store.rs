//! SQL of drift.

use std::collections::{BTreeSet, HashMap, HashSet};

use protocol::HostId;
use protocol::agent::{
    DriftCode, DriftReport, DriftSubject, HostDifference, MAX_DRIFT, MAX_DRIFT_DETAIL_CHARS,
};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::model::repair;
use super::types::{Drift, DriftAbout, DriftKind};
use crate::agents::clean;
use crate::auth::{Allowed, actions};
use crate::clock::Clock;
use crate::instances::Reference;
use crate::ports::cards;

/// While nothing changes, the time of the last look is written this often.
const LOOK_WRITTEN: Duration = Duration::minutes(5);

/// What a list asks for.
pub(super) struct Filter<'a> {
    pub after: Uuid,
    /// On the host with this name or id; `None` is any.
    pub host: Option<&'a str>,
    pub code: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub rows: i64,
}

pub(super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListDrift>,
    filter: &Filter<'_>,
) -> Result<Vec<Drift>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT d.id, d.code, d.kind, d.subject_id, d.detail, d.first_seen_at, l.looked_at, h.id AS host_id,
                  h.name AS host_name, coalesce(i.name, p.name, n.name, r.name, g.name) AS name,
                  o.id AS "project_id?", o.name AS "project_name?"
           FROM drift d JOIN host_looks l ON l.host_id = d.host_id JOIN hosts h ON h.id = d.host_id
           LEFT JOIN instances i ON d.kind = 'instance' AND i.id = d.subject_id
           LEFT JOIN ports p ON d.kind = 'port' AND p.id = d.subject_id
           LEFT JOIN networks n ON d.kind = 'network' AND n.id = d.subject_id
           LEFT JOIN routers r ON d.kind = 'router' AND r.id = d.subject_id
           LEFT JOIN security_groups g ON d.kind = 'security_group' AND g.id = d.subject_id
           LEFT JOIN projects o
             ON o.id = coalesce(i.project_id, p.project_id, n.project_id, r.project_id, g.project_id)
           WHERE d.id > $1 AND ($2::text IS NULL OR h.name = $2 OR h.id::text = $2)
             AND ($3::text IS NULL OR d.code = $3) AND ($4::text IS NULL OR d.kind = $4)
           ORDER BY d.id LIMIT $5"#,
        filter.after,
        filter.host,
        filter.code,
        filter.kind,
        filter.rows
    )
    .fetch_all(conn)
    .await?;
    let drift = rows.into_iter().map(|row| {
        let kind = DriftKind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
        let project = row.project_id.zip(row.project_name).map(|(id, name)| Reference { id, name });
        let host = Reference { id: row.host_id, name: row.host_name };
        let about = DriftAbout {
            kind: kind.unwrap_or(DriftKind::Host),
            id: row.subject_id.unwrap_or(host.id),
            name: row.subject_id.map_or_else(|| Some(host.name.clone()), |_| row.name),
            project,
        };
        let repair = repair(DriftCode::from_name(&row.code).unwrap_or(DriftCode::Unknown)).to_owned();
        Drift {
            id: row.id,
            host,
            code: row.code,
            about,
            detail: row.detail,
            repair,
            since: row.first_seen_at,
            last_seen_at: row.looked_at,
        }
    });
    Ok(drift.collect())
}

/// A difference as it is stored, but for its age.
type Key = (String, &'static str, Option<Uuid>, String);

/// Takes in what a host has found; the caller has checked how much it says, and that it may.
pub(crate) async fn fold(
    conn: &mut PgConnection,
    host: HostId,
    report: DriftReport,
    clock: &Clock,
) -> Result<(), sqlx::Error> {
    let now = clock.now();
    let wanted = believed(conn, host, report.differences).await?;
    let named = i32::try_from(wanted.len()).unwrap_or(i32::MAX);
    let total = i32::try_from(report.total).unwrap_or(i32::MAX).max(named);
    let last =
        sqlx::query!("SELECT looked_at, differences FROM host_looks WHERE host_id = $1", host.as_uuid())
            .fetch_optional(&mut *conn)
            .await?;
    let is_news = last.is_none_or(|last| last.differences != total || now - last.looked_at >= LOOK_WRITTEN)
        || stored(conn, host).await?.into_keys().collect::<BTreeSet<_>>() != wanted;
    if !is_news {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO host_looks (host_id, looked_at, differences) VALUES ($1, $2, $3)
         ON CONFLICT (host_id) DO UPDATE SET looked_at = GREATEST(host_looks.looked_at, $2), differences = $3",
        host.as_uuid(),
        now,
        total
    )
    .execute(&mut *conn)
    .await?;
    // Anew: another report of this host may have come in between.
    let stored = stored(conn, host).await?;
    let gone: Vec<_> = stored.iter().filter(|(key, _)| !wanted.contains(*key)).map(|(_, id)| *id).collect();
    if !gone.is_empty() {
        sqlx::query!("DELETE FROM drift WHERE id = ANY($1)", &gone).execute(&mut *conn).await?;
    }
    let new = wanted.into_iter().filter(|key| !stored.contains_key(key));
    insert(conn, host, new.map(|key| (clock.new_id(), key)), now).await
}

async fn insert(
    conn: &mut PgConnection,
    host: HostId,
    new: impl Iterator<Item = (Uuid, Key)>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (mut ids, mut codes, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut subjects, mut details) = (Vec::new(), Vec::new());
    for (id, (code, kind, subject, detail)) in new {
        ids.push(id);
        codes.push(code);
        kinds.push(kind.to_owned());
        subjects.push(subject);
        details.push(detail);
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO drift (id, host_id, code, kind, subject_id, detail, first_seen_at)
         SELECT n.id, $1, n.code, n.kind, n.subject_id, n.detail, $2
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::text[])
              AS n (id, code, kind, subject_id, detail)",
        host.as_uuid(),
        now,
        &ids,
        &codes,
        &kinds,
        &subjects as &[Option<Uuid>],
        &details
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn stored(conn: &mut PgConnection, host: HostId) -> Result<HashMap<Key, Uuid>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, code, kind, subject_id, detail FROM drift WHERE host_id = $1",
        host.as_uuid()
    )
    .fetch_all(conn)
    .await?;
    let kind = |kind: &str| DriftKind::ALL.into_iter().find(|one| one.as_str() == kind);
    let keys = rows
        .into_iter()
        .filter_map(|row| Some(((row.code, kind(&row.kind)?.as_str(), row.subject_id, row.detail), row.id)));
    Ok(keys.collect())
}

/// What of it is stored: known codes, texts that are bounded and clean, and nothing of instances and ports that are
/// another host's, unless it is about what they have left here.
async fn believed(
    conn: &mut PgConnection,
    host: HostId,
    differences: Vec<HostDifference>,
) -> Result<BTreeSet<Key>, sqlx::Error> {
    let of_here = differences.iter().filter(|one| !one.code.is_of_strays());
    let instances: Vec<_> = of_here.clone().filter_map(|one| instance(one.about)).collect();
    let ports: Vec<_> = of_here
        .filter_map(|one| match one.about {
            DriftSubject::Port(id) => Some(id),
            _ => None,
        })
        .collect();
    let instances = on_host(conn, host, &instances).await?;
    let ports = cards::on_host(conn, host, &ports).await?;
    let is_here = |one: &HostDifference| match one.about {
        _ if one.code.is_of_strays() => true,
        DriftSubject::Instance(id) => instances.contains(&id.as_uuid()),
        DriftSubject::Port(id) => ports.contains(&id),
        _ => true,
    };
    let believed = differences.into_iter().take(MAX_DRIFT).filter(|one| one.code != DriftCode::Unknown);
    let keys = believed.filter(is_here).map(|one| {
        let (kind, id) = parts(one.about);
        (one.code.as_str().to_owned(), kind.as_str(), id, clean(&one.detail, MAX_DRIFT_DETAIL_CHARS))
    });
    Ok(keys.filter(|(.., detail)| !detail.is_empty()).collect())
}

fn instance(about: DriftSubject) -> Option<Uuid> {
    match about {
        DriftSubject::Instance(id) => Some(id.as_uuid()),
        _ => None,
    }
}

fn parts(about: DriftSubject) -> (DriftKind, Option<Uuid>) {
    match about {
        DriftSubject::Host => (DriftKind::Host, None),
        DriftSubject::Instance(id) => (DriftKind::Instance, Some(id.as_uuid())),
        DriftSubject::Port(id) => (DriftKind::Port, Some(id.as_uuid())),
        DriftSubject::Network(id) => (DriftKind::Network, Some(id.as_uuid())),
        DriftSubject::Router(id) => (DriftKind::Router, Some(id.as_uuid())),
        DriftSubject::SecurityGroup(id) => (DriftKind::SecurityGroup, Some(id.as_uuid())),
    }
}

/// Those of these instances that are on the host.
async fn on_host(
    conn: &mut PgConnection,
    host: HostId,
    instances: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM instances WHERE id = ANY($1) AND host_id = $2",
        instances,
        host.as_uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().collect())
}
