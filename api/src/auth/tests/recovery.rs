//! The way back in, as the operator goes it.

use axum::http::Method;
use protocol::Name;
use serde_json::{Value, json};

use super::{post, with_token};
use crate::auth::bootstrap::FirstRunOptions;
use crate::auth::recovery::{Options, recover, recover_in};
use crate::clock::Clock;
use crate::database::testing::ClusterFolder;
use crate::database::{Database, Location};
use crate::testing::TestCloud;

const NEW: &str = "battery staple";

async fn sign_in(cloud: &TestCloud, name: &str) -> String {
    let tokens = post(cloud, "/v1/auth/login", json!({"username": name, "password": NEW})).await.expect(200);
    tokens["access_token"].as_str().unwrap().to_owned()
}

async fn redeem(cloud: &TestCloud, name: &str, code: &str) {
    let body = json!({"username": name, "code": code, "new_password": NEW});
    post(cloud, "/v1/auth/reset_password", body).await.expect(204);
}

#[tokio::test]
async fn a_user_who_has_lost_everything_is_an_administrator_again() {
    let cloud = TestCloud::start().await;
    let ada = cloud.user("ada", false).await;
    let ada = ada.strip_prefix("Bearer ").unwrap();
    // A second factor whose app is gone, and disabled on top.
    sqlx::query(
        "INSERT INTO user_totp (user_id, secret, confirmed_at, created_at)
         SELECT id, '12345678901234567890', now(), now() FROM principals WHERE name = 'ada'",
    )
    .execute(&cloud.app.pool)
    .await
    .unwrap();
    with_token(&cloud, ada).await.expect(200);
    let disable = Some(json!({"disabled": true}));
    cloud.call(Method::PATCH, "/v1/users/ada", disable).await.expect(200);

    let name: Name = "ada".parse().unwrap();
    let recovered = recover_in(&cloud.app.pool, &cloud.app.clock, &name, &[]).await.unwrap();
    assert_eq!(recovered.policies, ["administrator", "everyone"]);
    with_token(&cloud, ada).await.expect_problem(401, "invalid_token");
    redeem(&cloud, "ada", &recovered.code).await;
    let ada = format!("Bearer {}", sign_in(&cloud, "ada").await);
    let users = cloud.call_with(Method::GET, "/v1/users", &[("authorization", &ada)], None).await;
    assert_eq!(users.expect(200)["items"].as_array().unwrap().len(), 2);

    let (actor, kind, after): (String, String, Value) = sqlx::query_as(
        "SELECT principal_name, credential_kind, after FROM audit_records WHERE action = 'iam:RecoverUser'",
    )
    .fetch_one(&cloud.app.pool)
    .await
    .unwrap();
    assert_eq!((actor.as_str(), kind.as_str()), ("cumulo-api recover", "none"));
    assert_eq!((&after["made"], &after["detached"]), (&json!(false), &json!([])));
    assert!(!after.to_string().contains(&recovered.code));
}

#[tokio::test]
async fn a_policy_that_denies_everyone_everything_can_be_detached() {
    let cloud = TestCloud::start().await;
    // Attached to everyone, it denies whoever has signed in without a second factor.
    sqlx::query(
        "INSERT INTO policy_attachments (id, policy_id, created_at)
         SELECT gen_random_uuid(), id, now() FROM policies WHERE name = 'require-second-factor'",
    )
    .execute(&cloud.app.pool)
    .await
    .unwrap();
    cloud.get("/v1/users").await.expect_problem(403, "forbidden");
    let [name, policy, other]: [Name; 3] =
        ["admin", "require-second-factor", "power-user"].map(|name| name.parse().unwrap());
    let recover = async |detach: &[Name]| recover_in(&cloud.app.pool, &cloud.app.clock, &name, detach).await;
    let error = recover(&[policy.clone(), other]).await.err().unwrap();
    assert!(error.to_string().contains("power-user"), "{error}");
    let recovered = recover(&[]).await.unwrap();
    assert_eq!(recovered.policies, ["administrator", "everyone", "require-second-factor"]);
    let recovered = recover(&[policy]).await.unwrap();
    assert_eq!(recovered.policies, ["administrator", "everyone"]);
    redeem(&cloud, "admin", &recovered.code).await;
    let admin = format!("Bearer {}", sign_in(&cloud, "admin").await);
    cloud.call_with(Method::GET, "/v1/users", &[("authorization", &admin)], None).await.expect(200);
}

#[tokio::test]
async fn it_works_beside_a_control_plane_that_runs_and_without_one() {
    let folder = ClusterFolder::new();
    let options = |data_dir: &camino::Utf8Path| Options {
        database: Location { data_dir: data_dir.to_owned(), database_url: None },
        user: "ada".parse().unwrap(),
        detach: Vec::new(),
    };
    let nothing = recover(&options(&folder.root.join("elsewhere"))).await.err().unwrap();
    assert!(nothing.to_string().contains("there is no database in"), "{nothing}");
    assert!(!folder.root.join("elsewhere").exists());

    let Database { pools, keeper } = Database::open(None, &folder.root).await.unwrap();
    let running = recover(&options(&folder.root)).await.unwrap();
    let users = "SELECT count(*) FROM principals WHERE name = 'ada'";
    assert_eq!(sqlx::query_scalar::<_, i64>(users).fetch_one(&pools.own).await.unwrap(), 1);
    pools.own.close().await;
    keeper.leave().await.unwrap();
    let pid = folder.root.join("postgresql/data/postmaster.pid");
    assert!(!pid.exists());

    let stopped = recover(&options(&folder.root)).await.unwrap();
    assert_ne!(running.code, stopped.code);
    assert!(!pid.exists(), "PostgreSQL was left running");

    let Database { pools, keeper } = Database::open(None, &folder.root).await.unwrap();
    let (made, again): (bool, bool) = sqlx::query_as(
        "SELECT bool_or((after ->> 'made')::bool), bool_or(NOT (after ->> 'made')::bool) FROM audit_records",
    )
    .fetch_one(&pools.own)
    .await
    .unwrap();
    assert!(made && again);
    // The first start that follows does not make another administrator.
    let passwords = crate::auth::Passwords::new().unwrap();
    crate::auth::bootstrap::run(&pools.own, &Clock::system(), &passwords, &FirstRunOptions::default())
        .await
        .unwrap();
    let users: i64 =
        sqlx::query_scalar("SELECT count(*) FROM principals").fetch_one(&pools.own).await.unwrap();
    assert_eq!(users, 1);
    pools.own.close().await;
    keeper.leave().await.unwrap();
}
