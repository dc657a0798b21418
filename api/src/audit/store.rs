//! SQL of the audit log.

use protocol::ProjectId;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::chain::Stored;
use super::types::{AuditRecord, Filter};
use crate::auth::{Action, Allowed};

/// One notary for all replicas; the number is arbitrary but ours.
const NOTARY_LOCK: i64 = 0x6175_6469_7400;

/// Whether this transaction may notarise.
pub(super) async fn become_notary(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "locked!""#, NOTARY_LOCK)
        .fetch_one(conn)
        .await
}

/// Takes committed records that are in no link yet, oldest first.
pub(super) async fn take_pending(conn: &mut PgConnection, limit: i64) -> Result<Vec<Stored>, sqlx::Error> {
    sqlx::query_as!(
        Stored,
        r#"WITH taken AS (
               DELETE FROM audit_pending
               WHERE record_id IN (SELECT record_id FROM audit_pending ORDER BY record_id LIMIT $1)
               RETURNING record_id)
           SELECT r.id, r.at, r.project_id, r.request_id, r.principal_id, r.principal_name, r.credential_kind,
                  r.credential_id, r.source_address, r.action, r.resource, r.resource_id, r.outcome,
                  r.deciding::text AS "deciding!", r.before::text AS before, r.after::text AS after
           FROM taken JOIN audit_records r ON r.id = taken.record_id ORDER BY r.id"#,
        limit
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn last_link(conn: &mut PgConnection) -> Result<Option<(i64, [u8; 32])>, sqlx::Error> {
    let row = sqlx::query!("SELECT position, hash FROM audit_chain ORDER BY position DESC LIMIT 1")
        .fetch_optional(conn)
        .await?;
    Ok(row.and_then(|row| Some((row.position, row.hash.try_into().ok()?))))
}

pub(super) async fn insert_links(
    conn: &mut PgConnection,
    links: &[(i64, Uuid, [u8; 32])],
) -> Result<(), sqlx::Error> {
    let positions: Vec<i64> = links.iter().map(|link| link.0).collect();
    let records: Vec<Uuid> = links.iter().map(|link| link.1).collect();
    let hashes: Vec<Vec<u8>> = links.iter().map(|link| link.2.to_vec()).collect();
    sqlx::query!(
        "INSERT INTO audit_chain (position, record_id, hash)
         SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bytea[])",
        &positions,
        &records,
        &hashes
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The notary's key.
pub(super) async fn signing_key(conn: &mut PgConnection) -> Result<Option<(Uuid, Vec<u8>)>, sqlx::Error> {
    let row = sqlx::query!("SELECT id, private_pkcs8 FROM audit_keys ORDER BY created_at DESC LIMIT 1")
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| (row.id, row.private_pkcs8)))
}

pub(super) async fn insert_key(
    conn: &mut PgConnection,
    id: Uuid,
    private_pkcs8: &[u8],
    public_key: &[u8],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO audit_keys (id, private_pkcs8, public_key, created_at) VALUES ($1, $2, $3, $4)",
        id,
        private_pkcs8,
        public_key,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn insert_head(
    conn: &mut PgConnection,
    position: i64,
    hash: &[u8; 32],
    key_id: Uuid,
    signature: &[u8],
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO audit_heads (position, hash, key_id, signature, signed_at) VALUES ($1, $2, $3, $4, $5)",
        position,
        &hash[..],
        key_id,
        signature,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Everything that follows sees one moment.
pub(super) async fn begin_snapshot(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(conn).await.map(drop)
}

pub(super) async fn end_snapshot(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("ROLLBACK").execute(conn).await.map(drop)
}

/// A link with its record, if that is still there.
pub(super) struct Link {
    pub position: i64,
    pub record_id: Uuid,
    pub hash: Vec<u8>,
    pub record: Option<Stored>,
}

pub(super) async fn links_after(
    conn: &mut PgConnection,
    position: i64,
    limit: i64,
) -> Result<Vec<Link>, sqlx::Error> {
    let links = sqlx::query!(
        "SELECT position, record_id, hash FROM audit_chain WHERE position > $1 ORDER BY position LIMIT $2",
        position,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = links.iter().map(|link| link.record_id).collect();
    let records = sqlx::query_as!(
        Stored,
        r#"SELECT id, at, project_id, request_id, principal_id, principal_name, credential_kind, credential_id,
                  source_address, action, resource, resource_id, outcome, deciding::text AS "deciding!",
                  before::text AS before, after::text AS after
           FROM audit_records WHERE id = ANY($1)"#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    let mut records: std::collections::HashMap<Uuid, Stored> =
        records.into_iter().map(|record| (record.id, record)).collect();
    let links = links.into_iter().map(|link| Link {
        position: link.position,
        record: records.remove(&link.record_id),
        record_id: link.record_id,
        hash: link.hash,
    });
    Ok(links.collect())
}

/// A signature over a link, with the key that should have made it.
pub(super) struct Head {
    pub position: i64,
    pub hash: Vec<u8>,
    pub signature: Vec<u8>,
    pub public_key: Option<Vec<u8>>,
}

pub(super) async fn heads(conn: &mut PgConnection) -> Result<Vec<Head>, sqlx::Error> {
    sqlx::query_as!(
        Head,
        r#"SELECT h.position, h.hash, h.signature, k.public_key AS "public_key?"
           FROM audit_heads h LEFT JOIN audit_keys k ON k.id = h.key_id ORDER BY h.position"#
    )
    .fetch_all(conn)
    .await
}

/// A record that is in no link and does not wait for one.
pub(super) async fn unlinked(conn: &mut PgConnection) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT r.id FROM audit_records r
         WHERE NOT EXISTS (SELECT FROM audit_chain c WHERE c.record_id = r.id)
           AND NOT EXISTS (SELECT FROM audit_pending p WHERE p.record_id = r.id)
         ORDER BY r.id LIMIT 1"
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn count_pending(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM audit_pending"#).fetch_one(conn).await
}

struct Row {
    id: Uuid,
    at: OffsetDateTime,
    project_id: Option<Uuid>,
    request_id: Uuid,
    principal_id: Option<Uuid>,
    principal_name: String,
    credential_kind: String,
    credential_id: Option<Uuid>,
    source_address: String,
    action: String,
    resource: String,
    resource_id: Option<Uuid>,
    outcome: String,
    deciding: Json<Vec<Value>>,
    before: Option<Value>,
    after: Option<Value>,
    position: Option<i64>,
    hash: Option<Vec<u8>>,
}

impl From<Row> for AuditRecord {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: row.at,
            project_id: row.project_id,
            request_id: row.request_id,
            principal_id: row.principal_id,
            principal_name: row.principal_name,
            credential_kind: row.credential_kind,
            credential_id: row.credential_id,
            source_address: row.source_address,
            action: row.action,
            resource: row.resource,
            resource_id: row.resource_id,
            outcome: row.outcome,
            deciding: row.deciding.0,
            before: row.before,
            after: row.after,
            position: row.position,
            hash: row.hash.map(hex::encode),
        }
    }
}

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    NewestFirst,
    OldestFirst,
}

/// Records of the proof's project, or of the whole cloud, beyond this id.
pub(super) async fn list<A: Action>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    filter: &Filter,
    order: Order,
    beyond: Option<Uuid>,
    rows: i64,
) -> Result<Vec<AuditRecord>, sqlx::Error> {
    let newest_first = order == Order::NewestFirst;
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT r.id, r.at, r.project_id, r.request_id, r.principal_id, r.principal_name, r.credential_kind,
                  r.credential_id, r.source_address, r.action, r.resource, r.resource_id, r.outcome,
                  r.deciding AS "deciding: Json<Vec<Value>>", r.before, r.after,
                  c.position AS "position?", c.hash AS "hash?"
           FROM audit_records r LEFT JOIN audit_chain c ON c.record_id = r.id
           WHERE ($1::uuid IS NULL OR r.project_id = $1)
             AND ($2::uuid IS NULL OR CASE WHEN $3 THEN r.id < $2 ELSE r.id > $2 END)
             AND ($4::text IS NULL OR r.principal_name = $4)
             AND ($5::text IS NULL OR r.action = $5)
             AND ($6::uuid IS NULL OR r.resource_id = $6)
             AND ($7::text IS NULL OR r.outcome = $7)
             AND ($8::timestamptz IS NULL OR r.at >= $8)
             AND ($9::timestamptz IS NULL OR r.at < $9)
             AND ($10::uuid IS NULL OR r.request_id = $10)
           ORDER BY CASE WHEN $3 THEN r.id END DESC, r.id LIMIT $11"#,
        allowed.project_or_cloud().map(ProjectId::as_uuid),
        beyond,
        newest_first,
        filter.principal.as_deref(),
        filter.action.as_deref(),
        filter.resource_id,
        filter.outcome.map(|outcome| outcome.as_str()),
        filter.since,
        filter.until,
        filter.request_id,
        rows
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(AuditRecord::from).collect())
}

pub(super) async fn find<A: Action>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    id: Uuid,
) -> Result<Option<AuditRecord>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT r.id, r.at, r.project_id, r.request_id, r.principal_id, r.principal_name, r.credential_kind,
                  r.credential_id, r.source_address, r.action, r.resource, r.resource_id, r.outcome,
                  r.deciding AS "deciding: Json<Vec<Value>>", r.before, r.after,
                  c.position AS "position?", c.hash AS "hash?"
           FROM audit_records r LEFT JOIN audit_chain c ON c.record_id = r.id
           WHERE r.id = $2 AND ($1::uuid IS NULL OR r.project_id = $1)"#,
        allowed.project_or_cloud().map(ProjectId::as_uuid),
        id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(AuditRecord::from))
}
