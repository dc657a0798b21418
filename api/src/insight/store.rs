//! SQL of metrics and guests, for their owners. What hosts bring is in the file below.

pub(super) mod taking;

use std::collections::BTreeMap;
use std::net::IpAddr;

use protocol::agent::GuestInfo;
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use self::taking::slot;
use super::history::Window;
use super::sample::{At, Kept};
use crate::auth::{Action, Allowed, InProject, actions};
use crate::http::{LabelSelector, Labels, Selector};

/// What is older says nothing of now.
const FRESH: Duration = Duration::seconds(60);
/// A host that asks each guest every five minutes has missed two turns.
const FRESH_GUEST: Duration = Duration::minutes(15);
/// Before a window, so that its first rate has a beginning.
const LEAD: Duration = Duration::seconds(60);

/// The instance, and whether it was seen running.
pub(super) async fn find<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    selector: &Selector,
) -> Result<Option<(Uuid, bool)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT id, host_id IS NOT NULL AND coalesce(observed_state = 'running', false) AS "runs!"
           FROM instances WHERE project_id = $1 AND (id = $2 OR name = $3)"#,
        allowed.project().as_uuid(),
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.runs)))
}

/// The samples of that time, oldest first.
pub(super) async fn samples(
    conn: &mut PgConnection,
    _: &Allowed<actions::GetInstanceMetrics>,
    instance: Uuid,
    window: &Window,
) -> Result<Vec<At>, sqlx::Error> {
    // PostgreSQL knows fewer times than we do.
    let earliest = OffsetDateTime::UNIX_EPOCH;
    let from = window.from.max(earliest + LEAD) - LEAD;
    let rows = sqlx::query!(
        r#"SELECT at, sample AS "sample: Json<Kept>" FROM instance_samples
           WHERE instance_id = $1 AND at >= $2 AND at < $3 ORDER BY at"#,
        instance,
        from,
        window.to.max(earliest)
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| At { at: row.at, kept: row.sample.0 }).collect())
}

/// What came of asking a guest.
pub(super) struct Guest {
    pub asked_at: OffsetDateTime,
    pub silence: Option<String>,
    pub info: Option<Json<GuestInfo>>,
    pub seen_at: Option<OffsetDateTime>,
}

pub(super) async fn guest(
    conn: &mut PgConnection,
    _: &Allowed<actions::GetInstanceGuest>,
    instance: Uuid,
) -> Result<Option<Guest>, sqlx::Error> {
    sqlx::query_as!(
        Guest,
        r#"SELECT asked_at, silence, info AS "info: Json<GuestInfo>", seen_at
           FROM instance_guests WHERE instance_id = $1"#,
        instance
    )
    .fetch_optional(conn)
    .await
}

/// The newest of one instance.
pub(super) struct Newest {
    pub id: Uuid,
    pub name: String,
    pub instance_type: String,
    pub labels: Json<Labels>,
    pub vcpus: i32,
    pub sample: Option<Json<Kept>>,
    pub info: Option<Json<GuestInfo>>,
}

/// The newest of the first instances of a project that have these labels, as far as it is fresh.
pub(super) async fn newest(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListInstanceMetrics>,
    labels: &LabelSelector,
    now: OffsetDateTime,
    most: usize,
) -> Result<Vec<Newest>, sqlx::Error> {
    sqlx::query_as!(
        Newest,
        r#"SELECT i.id, i.name, t.name AS instance_type, i.labels AS "labels: Json<Labels>", i.vcpus,
                  s.sample AS "sample?: Json<Kept>", g.info AS "info?: Json<GuestInfo>"
           FROM instances i JOIN instance_types t ON t.id = i.instance_type_id
           LEFT JOIN LATERAL (
               SELECT sample FROM instance_samples
               WHERE slot = ANY($2) AND instance_id = i.id AND at > $3 ORDER BY at DESC LIMIT 1) s ON true
           LEFT JOIN instance_guests g ON g.instance_id = i.id AND g.seen_at > $4
           WHERE i.project_id = $1 AND i.labels @> $5 AND i.labels ?& $6 AND NOT i.labels ?| $7
             AND NOT i.labels @> ANY($8)
           ORDER BY i.id LIMIT $9"#,
        allowed.project().as_uuid(),
        &[slot(now), slot(now - FRESH)][..],
        now - FRESH,
        now - FRESH_GUEST,
        labels.equal(),
        labels.present(),
        labels.absent(),
        &labels.not_equal(),
        i64::try_from(most).unwrap_or(i64::MAX)
    )
    .fetch_all(conn)
    .await
}

/// An instance that wants to be scraped.
pub(super) struct Scraped {
    pub id: Uuid,
    pub name: String,
    pub project: String,
    pub instance_type: String,
    pub labels: Json<Labels>,
    pub nics: Json<Vec<ScrapedNic>>,
    /// By the private address that each stands for.
    pub floating_ips: Json<BTreeMap<IpAddr, IpAddr>>,
}

/// The part of `instance_nics()` that says where it can be reached.
#[derive(Debug, Deserialize)]
pub(super) struct ScrapedNic {
    pub network_name: String,
    pub addresses: Vec<NicAddress>,
    pub detaching: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct NicAddress {
    pub address: IpAddr,
}

/// Those with the label `prometheus.io/scrape` of the value `true`.
pub(super) async fn scraped(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::ListScrapeTargets>,
) -> Result<Vec<Scraped>, sqlx::Error> {
    sqlx::query_as!(
        Scraped,
        r#"SELECT i.id, i.name, p.name AS project, t.name AS instance_type, i.labels AS "labels: Json<Labels>",
                  instance_nics(i.id) AS "nics!: Json<Vec<ScrapedNic>>",
                  (SELECT coalesce(jsonb_object_agg(host(f.fixed_address), host(f.address)), '{}')
                   FROM floating_ips f JOIN ports o ON o.id = f.port_id WHERE o.instance_id = i.id)
                      AS "floating_ips!: Json<BTreeMap<IpAddr, IpAddr>>"
           FROM instances i JOIN projects p ON p.id = i.project_id
           JOIN instance_types t ON t.id = i.instance_type_id
           WHERE i.project_id = $1 AND i.labels @> '{"prometheus.io/scrape": "true"}' AND i.deletion_requested_at IS NULL
           ORDER BY i.id"#,
        allowed.project().as_uuid()
    )
    .fetch_all(conn)
    .await
}
