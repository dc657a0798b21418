//! `cumulo-api verify`: looks for what must never be, and says where it is.
//!
//! Each check has a stable code. New invariants of the database get their check here.

use std::fmt;

use anyhow::Context;
use serde::Serialize;
use sqlx::{Executor as _, PgConnection, PgPool};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::audit::{self, ExpectedHead};
use crate::clock::Clock;
use crate::database::{Database, Location};
use crate::drift;
use crate::hosts;
use crate::images::{self, ImageStoreOptions};
use crate::instances;
use crate::networks;
use crate::operations;
use crate::pools;
use crate::quotas;
use crate::snapshots;
use crate::volumes;

/// The sweeper looks twice a minute; after this long, something keeps it from its work.
const SWEPT_WITHIN: Duration = Duration::hours(1);

/// What to look at, and how to say it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub database: Location,
    #[command(flatten)]
    pub image_store: ImageStoreOptions,
    /// A link of the audit log that an earlier run printed: it must still be there.
    #[arg(long, value_name = "POSITION:HASH")]
    pub audit_head: Option<ExpectedHead>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Something that must never be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Stable.
    pub code: String,
    /// What it is about, if that has an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// In words.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(code: &str, id: Uuid, detail: String) -> Self {
        Self { code: code.to_owned(), id: Some(id), detail }
    }
}

/// What was looked at and found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Records of the audit log that were checked.
    pub audit_records: i64,
    /// The newest link of the audit log: keep it elsewhere, and give it to a later run as `--audit-head`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_head: Option<String>,
    /// Hosts of which nothing is heard: of what is there nothing is known.
    pub silent_hosts: i64,
    pub findings: Vec<Finding>,
}

/// Looks at a cloud, running or not.
///
/// # Errors
/// When its database cannot be reached; what is wrong in it is a finding.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let Database { pools, keeper } = Database::join(&options.database).await?;
    let looked = look_at_all(&pools.own, options).await;
    pools.own.close().await;
    keeper.leave().await.context("cannot stop PostgreSQL again")?;
    looked
}

async fn look_at_all(pool: &PgPool, options: &Options) -> anyhow::Result<Report> {
    let store = options.image_store.open(&options.database.data_dir)?;
    let mut conn = pool.acquire().await?;
    // It reads all that there is, and nobody waits for it; the connection ends with it.
    conn.execute("SET statement_timeout = 0").await?;
    let mut report = look(&mut conn, options.audit_head.as_ref(), Clock::system().now()).await?;
    let broken = images::verify_files(&mut conn, &store).await.context("cannot look at the image store")?;
    report.findings.extend(broken.into_iter().map(of_images));
    Ok(report)
}

/// Runs every check of the database.
pub async fn look(
    conn: &mut PgConnection,
    head: Option<&ExpectedHead>,
    now: OffsetDateTime,
) -> Result<Report, sqlx::Error> {
    let audit = audit::verify(conn, head).await?;
    let mut findings: Vec<_> = audit.findings.iter().map(of_audit).collect();
    findings.extend(quotas::drift(conn).await?.iter().map(of_quotas));
    findings.extend(networks::verify(conn).await?.into_iter().map(of_networks));
    findings.extend(volumes::verify(conn).await?);
    findings.extend(pools::verify(conn, now).await?);
    findings.extend(snapshots::verify(conn, now).await?);
    findings.extend(hosts::verify(conn, now).await?);
    findings.extend(drift::verify(conn, now).await?);
    findings.extend(instances::verify(conn, now).await?);
    findings.extend(operations::verify(conn, now).await?);
    let deleted_before = now - SWEPT_WITHIN;
    findings.extend(images::verify_rows(conn, deleted_before).await?.into_iter().map(of_images));
    let silent_hosts = hosts::silent(conn, now).await?;
    Ok(Report { audit_records: audit.links, audit_head: audit.head, silent_hosts, findings })
}

/// For people: what was looked at, a line for each finding, and their number.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "audit records checked: {}", self.audit_records)?;
        if let Some(head) = &self.audit_head {
            writeln!(out, "audit head {head}")?;
        }
        if self.silent_hosts > 0 {
            writeln!(out, "silent hosts, of which nothing is known: {}", self.silent_hosts)?;
        }
        for finding in &self.findings {
            let id = finding.id.map(|id| format!(" {id}")).unwrap_or_default();
            writeln!(out, "{}{id}: {}", finding.code, finding.detail)?;
        }
        write!(out, "findings: {}", self.findings.len())
    }
}

fn of_audit(finding: &audit::Finding) -> Finding {
    let place = match finding.position {
        0 => String::new(),
        position => format!("position {position}: "),
    };
    Finding {
        code: finding.code.to_owned(),
        id: finding.record_id,
        detail: format!("{place}{}", finding.detail),
    }
}

fn of_quotas(drift: &quotas::Drift) -> Finding {
    let detail = format!("{}: {} counted, {} recorded", drift.resource, drift.counted, drift.used);
    Finding { code: "quota_drift".to_owned(), id: Some(drift.project.as_uuid()), detail }
}

fn of_networks(broken: networks::Broken) -> Finding {
    Finding { code: broken.code, id: Some(broken.id), detail: broken.detail }
}

fn of_images(broken: images::Broken) -> Finding {
    Finding { code: broken.code, id: broken.id, detail: broken.detail }
}
