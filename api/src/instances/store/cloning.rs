//! SQL of what a clone takes over from its source.

use sqlx::PgConnection;
use uuid::Uuid;

/// What its guest was given.
pub(in crate::instances) struct Given {
    pub user_data: Option<Vec<u8>>,
    pub ssh_authorized_keys: Vec<String>,
}

/// What the guest of an instance was given, which the caller may clone.
pub(in crate::instances) async fn seed(conn: &mut PgConnection, id: Uuid) -> Result<Given, sqlx::Error> {
    sqlx::query_as!(Given, "SELECT user_data, ssh_authorized_keys FROM instances WHERE id = $1", id)
        .fetch_one(conn)
        .await
}
