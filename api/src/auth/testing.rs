//! Users of tests, made without calls.

use protocol::PrincipalId;

use super::store::{self, FirstPassword};
use crate::app::App;
use crate::policies;

pub(crate) async fn insert_user(app: &App, name: &str, administrator: bool, password: &str) {
    let hash = app.passwords.hash(password.to_owned()).await.unwrap();
    let mut conn = app.pool.acquire().await.unwrap();
    let (id, now): (PrincipalId, _) = (app.clock.new_id(), app.clock.now());
    let password = FirstPassword { hash: &hash, change_required: false };
    store::insert_user(&mut conn, id, name, "", Some(password), now).await.unwrap();
    if administrator {
        policies::managed::make_administrator(&mut conn, app.clock.new_id(), id, now).await.unwrap();
    }
}
