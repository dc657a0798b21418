//! Users that no call makes yet.

use super::store;
use crate::app::App;

pub(crate) async fn insert_user(app: &App, name: &str, administrator: bool, password: &str) {
    let hash = app.passwords.hash(password.to_owned()).await.unwrap();
    let mut conn = app.pool.acquire().await.unwrap();
    store::insert_user(&mut conn, app.clock.new_id(), name, administrator, &hash, app.clock.now())
        .await
        .unwrap();
}
