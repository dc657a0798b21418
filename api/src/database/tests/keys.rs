//! What the schema says of its foreign keys.

use super::super::MIGRATOR;
use super::TestDatabase;

/// Whoever deletes what a row names looks for such rows, with all that are there if no index says where.
#[tokio::test]
async fn each_foreign_key_has_an_index_or_a_reason() {
    let without: [(&str, &str); 2] = [
        ("project_quotas_resource_fkey", "resources are never deleted"),
        ("quota_sources_resource_fkey", "resources are never deleted"),
    ];
    let database = TestDatabase::create().await;
    let pool = sqlx::PgPool::connect_with(database.options()).await.unwrap();
    MIGRATOR.run(&pool).await.unwrap();
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT c.conname::text FROM pg_constraint c
         WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace
           AND NOT EXISTS (SELECT FROM pg_index i
                           WHERE i.indrelid = c.conrelid AND (i.indkey::int2[])[0] = ANY (c.conkey))
         ORDER BY c.conname",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(found, without.map(|(name, _)| name));
}
