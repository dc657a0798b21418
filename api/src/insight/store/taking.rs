//! SQL of what hosts bring. All of it is scoped to the host that says it.

use std::collections::BTreeSet;

use protocol::HostId;
use protocol::agent::{GuestAnswer, GuestReport, Sample};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::super::sample::Kept;
use crate::app::App;

/// Of advisory locks, those of a host that is being heard.
const TAKING_LOCK: i32 = 38;
const SLOTS: i64 = 8;
const SLOT_SECONDS: i64 = 1800;
/// What was held back longer is not worth keeping.
const OLDEST: Duration = Duration::seconds(60);
/// Closer to another of its instance, neither a sample nor an answer is kept, whatever a host sends.
const APART_SECONDS: f64 = 4.0;

/// The slot of that time.
pub(crate) fn slot(at: OffsetDateTime) -> i16 {
    // Of eight.
    i16::try_from(at.unix_timestamp().div_euclid(SLOT_SECONDS).rem_euclid(SLOTS)).unwrap_or_default()
}

/// Empties the slot whose turn is next; what is in it is three hours old and more.
pub(crate) async fn empty_next_slot(app: &App) -> Result<(), sqlx::Error> {
    let next = slot(app.clock.now() + Duration::seconds(SLOT_SECONDS));
    sqlx::query!("SELECT empty_sample_slot($1)", next).execute(&app.pool).await.map(drop)
}

/// Keeps what a host says of its own instances, in a transaction. Each has one sample in it, and one answer. Of what a host
/// says twice at once, one is dropped: [`APART_SECONDS`] is a promise about the disk of the database.
pub(crate) async fn take(
    conn: &mut PgConnection,
    host: HostId,
    samples: &[Sample],
    guests: Vec<GuestReport>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let is_alone = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock($1, hashtext($2)) AS "alone!""#,
        TAKING_LOCK,
        host.to_string()
    );
    if !is_alone.fetch_one(&mut *conn).await? {
        return Ok(());
    }
    if !samples.is_empty() {
        take_samples(conn, host, samples, now).await?;
    }
    if !guests.is_empty() {
        take_guests(conn, host, guests, now).await?;
    }
    Ok(())
}

/// When it was, by our clock.
fn taken_at(age_ms: u32, now: OffsetDateTime) -> OffsetDateTime {
    now - Duration::milliseconds(age_ms.into())
}

async fn take_samples(
    conn: &mut PgConnection,
    host: HostId,
    samples: &[Sample],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let fresh: Vec<_> = samples.iter().filter(|sample| taken_at(sample.age_ms, now) > now - OLDEST).collect();
    let parts = parts_of(conn, fresh.iter().map(|sample| sample.id.as_uuid()).collect()).await?;
    let (mut ids, mut times, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for sample in fresh {
        ids.push(sample.id.as_uuid());
        times.push(taken_at(sample.age_ms, now));
        let own = Kept::of(sample, |part| parts.contains(&(sample.id.as_uuid(), part)));
        kept.push(serde_json::to_value(own).map_err(|error| sqlx::Error::Encode(error.into()))?);
    }
    sqlx::query!(
        "INSERT INTO instance_samples (slot, instance_id, at, sample)
         SELECT $1, i.id, s.at, s.sample
         FROM (SELECT DISTINCT ON (id) id, at, sample
               FROM unnest($2::uuid[], $3::timestamptz[], $4::jsonb[]) AS s (id, at, sample) ORDER BY id) s
         JOIN instances i ON i.id = s.id AND i.host_id = $5
         WHERE NOT EXISTS (
             SELECT FROM instance_samples o WHERE o.slot = ANY($6) AND o.instance_id = i.id
                AND o.at > s.at - make_interval(secs => $7) AND o.at < s.at + make_interval(secs => $7))",
        slot(now),
        &ids,
        &times,
        &kept,
        host.as_uuid(),
        &[slot(now), slot(now - OLDEST)][..],
        APART_SECONDS
    )
    .execute(conn)
    .await
    .map(drop)
}

/// The volumes and ports of instances, each with whose it is: hosts may invent others.
async fn parts_of(
    conn: &mut PgConnection,
    instances: Vec<Uuid>,
) -> Result<BTreeSet<(Uuid, Uuid)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT instance_id AS "instance!", id AS "part!" FROM volumes WHERE instance_id = ANY($1)
           UNION ALL SELECT instance_id, id FROM ports WHERE instance_id = ANY($1)"#,
        &instances
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.instance, row.part)).collect())
}

async fn take_guests(
    conn: &mut PgConnection,
    host: HostId,
    guests: Vec<GuestReport>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (mut ids, mut times, mut silences, mut infos) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for report in guests {
        ids.push(report.id.as_uuid());
        times.push(taken_at(report.age_ms, now).max(now - OLDEST));
        let (silence, info) = match report.answer {
            GuestAnswer::Silent(why) => (Some(why.as_str().to_owned()), None),
            GuestAnswer::Told(info) => {
                let info = serde_json::to_value(info.bounded());
                (None, Some(info.map_err(|error| sqlx::Error::Encode(error.into()))?))
            }
        };
        silences.push(silence);
        infos.push(info);
    }
    sqlx::query!(
        "INSERT INTO instance_guests (instance_id, asked_at, silence, info, seen_at)
         SELECT i.id, g.at, g.silence, g.info, CASE WHEN g.info IS NOT NULL THEN g.at END
         FROM (SELECT DISTINCT ON (id) id, at, silence, info
               FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::jsonb[]) AS g (id, at, silence, info)
               ORDER BY id) g
         JOIN instances i ON i.id = g.id AND i.host_id = $5
         ORDER BY i.id
         ON CONFLICT (instance_id) DO UPDATE
         SET asked_at = excluded.asked_at, silence = excluded.silence,
             info = coalesce(excluded.info, instance_guests.info),
             seen_at = coalesce(excluded.seen_at, instance_guests.seen_at)
         WHERE excluded.asked_at >= instance_guests.asked_at + make_interval(secs => $6)",
        &ids,
        &times,
        &silences as _,
        &infos as _,
        host.as_uuid(),
        APART_SECONDS
    )
    .execute(conn)
    .await
    .map(drop)
}
