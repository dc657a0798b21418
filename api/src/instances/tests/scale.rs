//! In a cloud with thousands of instances, what is done for one reads the rows of that one. Rows are counted, not seconds.

use protocol::{Revision, Sha256};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::{INSTANCES, running};
use crate::images::blob_for_host;
use crate::instances::store::{hosts, placement};
use crate::testing::TestCloud;

const OTHERS: i64 = 3000;
/// Far less than all others, more than what belongs to one instance and its host.
const FEW: i64 = 200;

/// Copies the one instance with its layer and its volume. What follows from rows by itself is left to the originals.
async fn multiply(cloud: &TestCloud) {
    let copies = format!(
        "DO $$ DECLARE
            relation text;
            columns  text;
        BEGIN
            FOREACH relation IN ARRAY ARRAY['instances', 'layers', 'volumes'] LOOP
                SELECT string_agg(quote_ident(column_name), ', ') INTO columns FROM information_schema.columns
                WHERE table_schema = 'public' AND table_name = relation AND is_generated = 'NEVER';
                EXECUTE format('ALTER TABLE %I DISABLE TRIGGER USER', relation);
                EXECUTE format(
                    'INSERT INTO %1$I (%2$s) SELECT %2$s FROM (
                         SELECT copy.* FROM %1$I r, generate_series(1, {OTHERS}) n, LATERAL (
                             SELECT jsonb_object_agg(key, md5(value || n)::uuid) AS ids FROM jsonb_each_text(to_jsonb(r))
                             WHERE key IN (''id'', ''layer_id'', ''instance_id'') AND value IS NOT NULL) own,
                         LATERAL jsonb_populate_record(NULL::%1$I, to_jsonb(r) || own.ids
                             || CASE WHEN to_jsonb(r) ? ''name'' THEN jsonb_build_object(''name'', ''other-'' || n)
                                     ELSE ''{{}}'' END) copy) copies', relation, columns);
                EXECUTE format('ALTER TABLE %I ENABLE TRIGGER USER', relation);
            END LOOP;
        END $$;
        ANALYZE instances; ANALYZE layers; ANALYZE volumes"
    );
    sqlx::raw_sql(AssertSqlSafe(copies)).execute(&cloud.app.pool).await.unwrap();
}

/// Rows of what grows with instances that this transaction has read by reading a table or an index from end to end.
async fn read(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
         WHERE relname IN ('instances', 'layers', 'volumes')",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

#[tokio::test]
async fn what_is_done_for_one_instance_reads_no_others() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let old = cloud.join_host("host-1").await;
    running(&cloud, &old).await;
    multiply(&cloud).await;
    let new = cloud.join_host("host-2").await;
    let other = json!({"name": "other", "image": "image", "instance_type": "tiny"});
    cloud.post(INSTANCES, other).await.expect(202);

    let now = cloud.app.clock.now();
    let mut tx = cloud.app.begin().await.unwrap();
    let mut steps = Vec::new();
    let mut before = read(&mut tx).await;
    let mut step = async |tx: &mut PgConnection, name| {
        let after = read(tx).await;
        steps.push((name, after - before));
        before = after;
    };
    let pending = placement::take_pending(&mut tx, now, 64).await.unwrap();
    let [pending] = &pending[..] else { panic!("{} are pending", pending.len()) };
    assert_eq!(pending.request.image_on, [old.id]);
    step(&mut tx, "what it needs").await;
    placement::fleet(&mut tx, now).await.unwrap();
    step(&mut tx, "the fleet").await;
    placement::assign(&mut tx, pending.id, new.id, 1, now).await.unwrap();
    step(&mut tx, "its place").await;
    let told = hosts::desired_after(&mut tx, new.id, Revision(0)).await.unwrap();
    assert_eq!(told.len(), 1);
    step(&mut tx, "what its host is told").await;
    hosts::lock_all(&mut tx, new.id, &[pending.id], &[Uuid::now_v7()]).await.unwrap();
    step(&mut tx, "the locks of a report").await;
    let sha256 = sqlx::query_scalar("SELECT sha256 FROM blobs").fetch_one(&mut *tx).await.unwrap();
    let sha256: Vec<u8> = sha256;
    let sha256 = Sha256::from_bytes(sha256.try_into().unwrap());
    assert!(blob_for_host(&mut tx, new.id, sha256).await.unwrap().is_some());
    step(&mut tx, "its image").await;
    assert!(steps.iter().all(|(_, rows)| *rows < FEW), "rows that were read: {steps:?}");
}
