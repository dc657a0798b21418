//! What images hold that were deleted before such files counted.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::database::MIGRATOR;
use crate::database::testing::TestDatabase;

/// The newest migration that counts nothing of a deleted image, and the one that makes up for it.
const LAST_BEFORE: i64 = 40;
const COUNTED: i64 = 49;

/// Four deleted images of 3 GiB: of one there is a volume, of one there is none, of one the project is gone, and of one
/// nobody knows who made it.
const BEFORE: &str = "
    INSERT INTO projects (id, name, description, labels, generation, created_at, updated_at)
    VALUES ('00000000-0000-7000-8000-000000000001', 'p', '', '{}', 1, '2026-01-01Z', '2026-01-01Z');
    INSERT INTO blobs (id, state, sha256, format, size_bytes, virtual_size_bytes, created_at, lease_until)
    SELECT ('00000000-0000-7000-8000-00000000000' || n)::uuid, 'stored', decode(repeat('0' || n, 32), 'hex'), 'raw',
           2147483649, 512, '2026-01-01Z', '2026-01-01Z' FROM generate_series(1, 4) n;
    INSERT INTO images (id, project_id, name, description, labels, architecture, format, generation, created_at, updated_at,
                        blob_id)
    SELECT b.id, p.id, 'i-' || b.id, '', '{}', 'x86_64', 'raw', 1, b.created_at, b.created_at, b.id
    FROM projects p, blobs b;
    UPDATE images SET project_id = NULL, deleted_at = '2026-01-02Z';
    INSERT INTO audit_records (id, at, project_id, request_id, principal_name, credential_kind, source_address, action,
                               resource, resource_id, outcome, deciding)
    SELECT gen_random_uuid(), '2026-01-01Z', CASE WHEN n = 3 THEN gen_random_uuid() ELSE p.id END, p.id, 'u', 'session',
           '192.0.2.1', 'image:CreateImage', 'r', ('00000000-0000-7000-8000-00000000000' || n)::uuid, 'allowed', '[]'
    FROM projects p, generate_series(1, 3) n;
    INSERT INTO layers (id, created_at) SELECT id, created_at FROM images;
    INSERT INTO volumes (id, project_id, name, description, labels, generation, size_gib, image_id, layer_id, created_at,
                         updated_at)
    SELECT m.id, p.id, 'v-' || m.id, '', '{}', 1, 4, m.id, m.id, m.created_at, m.created_at
    FROM projects p, images m WHERE m.id <> '00000000-0000-7000-8000-000000000002'";

const HELD: &str =
    "SELECT coalesce(string_agg(right(image_id::text, 1) || ' ' || held_gib, ', '), '') FROM image_remains";
const USED: &str = "SELECT used::text FROM project_quotas WHERE resource = 'image_gib'";

async fn text(conn: &mut PgConnection, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(conn).await.unwrap()
}

#[tokio::test]
async fn images_deleted_before_their_files_counted_count() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect_with(&database.options()).await.unwrap();
    sqlx::raw_sql("CREATE SCHEMA before; SET search_path TO before, public")
        .execute(&mut conn)
        .await
        .unwrap();
    for migration in MIGRATOR.iter().filter(|migration| migration.version <= LAST_BEFORE) {
        sqlx::raw_sql(migration.sql.clone()).execute(&mut conn).await.unwrap();
    }
    sqlx::raw_sql(BEFORE).execute(&mut conn).await.unwrap();
    // Its limit is no reason to charge less.
    sqlx::raw_sql("UPDATE project_quotas SET overridden = true, limit_value = 1")
        .execute(&mut conn)
        .await
        .unwrap();
    for migration in MIGRATOR.iter().filter(|migration| migration.version > LAST_BEFORE) {
        if migration.version == COUNTED {
            assert_eq!(
                (text(&mut conn, HELD).await, text(&mut conn, USED).await),
                (String::new(), "0".to_owned())
            );
        }
        sqlx::raw_sql(migration.sql.clone()).execute(&mut conn).await.unwrap();
    }
    assert_eq!((text(&mut conn, HELD).await.as_str(), text(&mut conn, USED).await.as_str()), ("1 3", "3"));
    let drift =
        "SELECT count(*)::text FROM recount_quotas() r JOIN project_quotas q USING (project_id, resource)
                 WHERE r.used <> q.used";
    assert_eq!(text(&mut conn, drift).await, "0");
    sqlx::raw_sql("DELETE FROM volumes; DELETE FROM images").execute(&mut conn).await.unwrap();
    assert_eq!(text(&mut conn, USED).await, "0");
}
