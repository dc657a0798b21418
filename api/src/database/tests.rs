//! Opening the database, from nothing to a pool.

mod keys;
mod names;
mod outage;

use std::time::Duration;

use sqlx::ConnectOptions as _;
use tokio::time::Instant;

use super::testing::{ClusterFolder, TestDatabase};
use super::*;

#[tokio::test]
async fn a_private_database_opens_from_nothing_with_schema_and_session_limits() {
    let folder = ClusterFolder::new();
    let Database { pools, keeper } = Database::open(None, &folder.root).await.unwrap();
    let applied: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&pools.own).await.unwrap();
    assert_eq!(applied, i64::try_from(MIGRATOR.iter().count()).unwrap());
    for (setting, value) in [
        ("statement_timeout", "15s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
    ] {
        for pool in pools.each() {
            let query = sqlx::query_scalar("SELECT current_setting($1)").bind(setting);
            let found: String = query.fetch_one(pool).await.unwrap();
            assert_eq!(found, value, "{setting}");
        }
    }
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(shutdown.clone()));
    shutdown.cancel();
    keeper.await.unwrap().unwrap();
    assert!(is_unavailable(&sqlx::query("SELECT 1").execute(&pools.own).await.unwrap_err()));
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused_and_the_cluster_stopped() {
    let folder = ClusterFolder::new();
    let cluster = folder.start().await.unwrap();
    let mut connection = cluster.connect_options().connect().await.unwrap();
    MIGRATOR.run(&mut connection).await.unwrap();
    sqlx::raw_sql("UPDATE _sqlx_migrations SET version = version + 1000")
        .execute(&mut connection)
        .await
        .unwrap();
    drop(connection);
    cluster.stop().await.unwrap();

    let answer = Database::open(None, &folder.root).await;
    assert!(matches!(answer.err(), Some(OpenError::Migrate(MigrateError::VersionMissing(_)))));
    assert!(!folder.cluster().join("data/postmaster.pid").exists());
}

#[tokio::test]
async fn a_database_that_refuses_us_is_an_error_at_once() {
    let existing = TestDatabase::create().await;
    let options = existing.options().database("absent");
    let started = Instant::now();
    let Err(OpenError::Connect(error)) = prepare(&options.into()).await else { panic!("connected") };
    assert!(!is_unavailable(&error), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_address_that_makes_no_sense_is_an_error_that_does_not_repeat_it() {
    for (url, is_url) in [
        ("hunter2", false),
        ("mysql://user:hunter2@localhost/x", false),
        ("postgres://user:hunter2@localhost:port/x", true),
        ("postgresql://localhost/x?sslmode=hunter2", true),
    ] {
        let error = Database::open(Some(url), Utf8Path::new("/nonexistent")).await.err().unwrap();
        assert_eq!(matches!(error, OpenError::Url(_)), is_url, "{error:?}");
        assert_eq!(matches!(error, OpenError::Scheme), !is_url, "{error:?}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn whoever_goes_while_a_transaction_begins_leaves_no_connection_inside_of_it() {
    let database = TestDatabase::create().await;
    // Each in a place of its own: before BEGIN is sent, while it is answered, after that.
    for microseconds in 0..400 {
        let patience = Duration::from_micros(microseconds * 2);
        let _gone = tokio::time::timeout(patience, begin(&database.pool)).await;
        let _gone = tokio::time::timeout(patience, begin_reading(&database.pool)).await;
    }
    // From outside of the pool, which would show its own connection as active.
    let mut outside = database.options().connect().await.unwrap();
    let left = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let none = async {
        while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut outside).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), none).await.expect("no transaction is left open");
}
