//! Names in SQL that mean two things.

use super::super::MIGRATOR;
use super::TestDatabase;

/// Where a name is that of a parameter and of a column of what it reads, a function in SQL takes the column and says nothing.
#[tokio::test]
async fn no_parameter_of_a_function_in_sql_has_the_name_of_a_column() {
    let database = TestDatabase::create().await;
    let pool = sqlx::PgPool::connect_with(database.options()).await.unwrap();
    MIGRATOR.run(&pool).await.unwrap();
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT p.proname || ': ' || a.name FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang,
                unnest(p.proargnames[1:p.pronargs]) a (name)
         WHERE l.lanname = 'sql' AND p.pronamespace = 'public'::regnamespace AND EXISTS (
             SELECT FROM information_schema.columns c
             WHERE c.table_schema = 'public' AND c.column_name = a.name AND p.prosrc ~ ('\\m' || c.table_name || '\\M'))
         ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    // It says which of the two it means.
    assert_eq!(found, ["quota_charges: relation"]);
}
