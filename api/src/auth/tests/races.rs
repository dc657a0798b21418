//! Sign-ins beside changes of what they rest on.

use serde_json::json;

use crate::auth::store::passwords;
use crate::testing::TestCloud;

#[tokio::test]
async fn a_login_that_was_overtaken_by_a_reset_gives_no_session() {
    let cloud = TestCloud::start().await;
    cloud.user("ada", false).await;
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    // What a login knows after it has checked the password.
    let user = passwords::find(&mut conn, "ada").await.unwrap().unwrap();
    assert!(passwords::still_holds(&mut conn, &user).await.unwrap());
    cloud.post("/v1/users/ada/reset_password", json!({})).await.expect(200);
    assert!(!passwords::still_holds(&mut conn, &user).await.unwrap());
}

#[tokio::test]
async fn a_login_in_progress_holds_a_reset_up() {
    let cloud = TestCloud::start().await;
    cloud.user("ada", false).await;
    let mut tx = cloud.app.begin().await.unwrap();
    let user = passwords::find(&mut tx, "ada").await.unwrap().unwrap();
    assert!(passwords::still_holds(&mut tx, &user).await.unwrap());
    let taken = sqlx::query("SELECT FROM principals WHERE name = 'ada' FOR UPDATE NOWAIT")
        .execute(&cloud.app.pool)
        .await;
    let code = taken.unwrap_err().as_database_error().unwrap().code().unwrap().into_owned();
    assert_eq!(code, "55P03");
    tx.rollback().await.unwrap();
}
