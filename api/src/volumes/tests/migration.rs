//! Instances of the release before get a volume each, and nothing else changes.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::database::MIGRATOR;
use crate::database::testing::TestDatabase;

/// The newest migration of the release before, and that of volumes.
const LAST_BEFORE: i64 = 14;
const VOLUMES: i64 = 18;

/// What the release before had: an instance that runs, one that waits for a host, and one that is being deleted.
const BEFORE: &str = "
    INSERT INTO projects VALUES ('00000000-0000-7000-8000-000000000001', 'p', '', '{}', 1, '2026-01-01Z', '2026-01-01Z');
    INSERT INTO hosts (id, name, generation, vcpus_capacity, memory_mib_capacity, disk_gib_capacity, created_at,
                       updated_at)
    SELECT id, 'h', 1, 9, 9999, 99, created_at, created_at FROM projects;
    INSERT INTO images (id, project_id, name, description, labels, architecture, format, generation, created_at,
                        updated_at)
    SELECT id, id, 'i', '', '{}', 'x86_64', 'raw', 1, created_at, created_at FROM projects;
    INSERT INTO instance_types (id, name, architecture, vcpus, memory_mib, root_disk_gib, generation, created_at,
                                updated_at)
    SELECT id, 't', 'x86_64', 1, 256, 4, 1, created_at, created_at FROM projects;
    INSERT INTO operations (id, project_id, kind, resource_id, resource_name, status, principal_id, request_id,
                            created_at, updated_at, deadline_at)
    SELECT id, id, 'create_instance', id, 'x', 'running', id, id, created_at, created_at, created_at FROM projects;
    INSERT INTO instances (id, project_id, name, labels, generation, image_id, instance_type_id, architecture,
                           vcpus, memory_mib, root_disk_gib, hostname, ssh_authorized_keys, power, boot, stop_mode,
                           stop_timeout_seconds, operation_id, request_id, placement_due_at, created_at, updated_at,
                           host_id, desired_revision, observed_state, deletion_requested_at)
    SELECT ('00000000-0000-7000-8000-00000000000' || n)::uuid, p.id, was.name, '{}', 1, p.id, p.id, 'x86_64',
           1, 256, size, was.name, '{}', 'running', 1, 'graceful', 60, p.id, p.id, p.created_at, p.created_at, p.created_at,
           CASE WHEN placed THEN p.id END, CASE WHEN placed THEN 1 END, state,
           CASE WHEN deleted THEN p.created_at END
    FROM projects p, (VALUES (2, 'runs', 4, true, 'running', false), (3, 'waits', 5, false, NULL, false),
                             (4, 'goes', 6, true, 'stopping', true)) was (n, name, size, placed, state, deleted)";

const USED: &str = "SELECT string_agg(resource || ' ' || used, ', ' ORDER BY resource) FROM project_quotas
                    WHERE used > 0";

async fn text(conn: &mut PgConnection, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(conn).await.unwrap()
}

#[tokio::test]
async fn old_instances_become_instances_with_a_root_volume() {
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
    assert_eq!(text(&mut conn, USED).await, "disk_gib 15, images 1, instances 3, memory_mib 768, vcpus 3");
    let next = |version: i64| (LAST_BEFORE + 1..=VOLUMES).contains(&version);
    for migration in MIGRATOR.iter().filter(|migration| next(migration.version)) {
        sqlx::raw_sql(migration.sql.clone()).execute(&mut conn).await.unwrap();
    }

    assert_eq!(
        text(&mut conn, USED).await,
        "disk_gib 15, images 1, instances 3, memory_mib 768, vcpus 3, volumes 3"
    );
    assert_eq!(text(&mut conn, "SELECT disk_gib_reserved::text FROM hosts").await, "10");
    let shape = "SELECT string_agg(concat_ws(' ', i.name, v.size_gib, v.attachment_state, v.delete_with_instance,
                            v.id = i.id AND v.layer_id = i.id AND v.host_id IS NOT DISTINCT FROM i.host_id
                            AND l.host_id IS NOT DISTINCT FROM i.host_id AND v.image_id = i.image_id
                            AND v.position = 0, l.removed_with IS NOT NULL AND v.deletion_requested_at IS NOT NULL),
                     ', ' ORDER BY i.id)
                 FROM instances i JOIN volumes v ON v.instance_id = i.id JOIN layers l ON l.id = v.layer_id";
    assert_eq!(
        text(&mut conn, shape).await,
        "runs 4 attached t t f, waits 5 attaching t t f, goes 6 attached t t t"
    );
    // What is counted goes on being counted.
    sqlx::raw_sql(
        "UPDATE volumes SET size_gib = 7 WHERE size_gib = 4;
         UPDATE instances SET vcpus = 2 WHERE name = 'runs'; SELECT release_volumes(array_agg(id), '2026-01-02Z')
         FROM volumes WHERE size_gib = 5; DELETE FROM instances WHERE name = 'waits'",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    assert_eq!(
        text(&mut conn, "SELECT concat_ws(' ', vcpus_reserved, disk_gib_reserved) FROM hosts").await,
        "3 13"
    );
    assert_eq!(
        text(&mut conn, USED).await,
        "disk_gib 18, images 1, instances 2, memory_mib 512, vcpus 3, volumes 3"
    );
}
