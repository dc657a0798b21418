//! `cumulo-api verify`: looks for what must never be, and says where it is.
//!
//! Each check has a stable code. New invariants of the database get their check here.

use anyhow::Context;
use camino::Utf8PathBuf;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::audit::{self, ExpectedHead};
use crate::database::Database;
use crate::networks;
use crate::quotas;
use crate::volumes;

/// What to look at, and how to say it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where the private PostgreSQL lives.
    #[arg(long, env = "CUMULO_DATA_DIR", default_value = "/var/lib/cumulo/api")]
    pub data_dir: Utf8PathBuf,
    /// PostgreSQL to look at; without it, the private one in the data directory.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
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

/// What was looked at and found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Records of the audit log that were checked.
    pub audit_records: i64,
    /// The newest link of the audit log: keep it elsewhere, and give it to a later run as `--audit-head`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_head: Option<String>,
    pub findings: Vec<Finding>,
}

/// Looks at a cloud, running or not.
///
/// # Errors
/// When its database cannot be reached; what is wrong in it is a finding.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let Database { pool, keeper } =
        Database::join(options.database_url.as_deref(), &options.data_dir).await?;
    let looked = match pool.acquire().await {
        Ok(mut conn) => look(&mut conn, options.audit_head.as_ref()).await,
        Err(error) => Err(error),
    };
    pool.close().await;
    keeper.leave().await.context("cannot stop PostgreSQL again")?;
    Ok(looked?)
}

/// Runs every check.
pub async fn look(conn: &mut PgConnection, head: Option<&ExpectedHead>) -> Result<Report, sqlx::Error> {
    let audit = audit::verify(conn, head).await?;
    let mut findings: Vec<_> = audit.findings.iter().map(of_audit).collect();
    findings.extend(quotas::drift(conn).await?.iter().map(of_quotas));
    findings.extend(networks::verify(conn).await?.into_iter().map(of_networks));
    findings.extend(volumes::verify(conn).await?);
    Ok(Report { audit_records: audit.links, audit_head: audit.head, findings })
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
