//! The role and the database that the control plane works with.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection};

use super::layout::{Layout, PORT};
use super::{ClusterError, DATABASE, ROLE, SUPERUSER};

/// How to connect as `role`; who may is decided by the user id of the process.
pub(super) fn options(layout: &Layout, role: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(layout.run())
        .port(PORT)
        .username(role)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// Creates what is missing. The control plane's role owns its database and is nothing beyond that.
pub(super) async fn ensure(layout: &Layout) -> Result<(), ClusterError> {
    let options = options(layout, SUPERUSER, "postgres");
    let mut connection = PgConnection::connect_with(&options).await.map_err(ClusterError::Provision)?;
    let ensured = ensure_over(&mut connection).await;
    let closed = connection.close().await;
    ensured.and(closed).map_err(ClusterError::Provision)
}

async fn ensure_over(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let role = sqlx::query("SELECT FROM pg_roles WHERE rolname = $1").bind(ROLE);
    if role.fetch_optional(&mut *connection).await?.is_none() {
        sqlx::raw_sql("CREATE ROLE cumulo LOGIN").execute(&mut *connection).await?;
    }
    let database = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(DATABASE);
    if database.fetch_optional(&mut *connection).await?.is_none() {
        sqlx::raw_sql("CREATE DATABASE cumulo OWNER cumulo").execute(&mut *connection).await?;
    }
    Ok(())
}
