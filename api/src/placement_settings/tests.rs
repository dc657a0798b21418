//! Settings through the router.

use axum::http::Method;
use serde_json::json;

use crate::instances::place_pending;
use crate::testing::TestCloud;

const SETTINGS: &str = "/v1/placement_settings";
const HOST: &str = "/v1/hosts/host-1";

#[tokio::test]
async fn settings_are_read_and_changed() {
    let cloud = TestCloud::start().await;
    let defaults = json!({"strategy": "spread", "image_weight": 0.05, "load_weight": 0.01, "vcpu_overcommit": 4.0,
        "memory_overcommit": 1.0});
    assert_eq!(cloud.get(SETTINGS).await.expect(200), defaults);
    for (wrong, pointer) in [
        (json!({"image_weight": 1.1}), "/image_weight"),
        (json!({"load_weight": -0.1}), "/load_weight"),
        (json!({"vcpu_overcommit": 0}), "/vcpu_overcommit"),
        (json!({"memory_overcommit": 4.1}), "/memory_overcommit"),
    ] {
        let refused = cloud.call(Method::PATCH, SETTINGS, Some(wrong)).await;
        assert_eq!(refused.expect_problem(422, "validation_failed")["errors"][0]["pointer"], pointer);
    }
    let pack = json!({"strategy": "pack"});
    let stale = [("if-match", "\"9.0\"")];
    cloud
        .call_with(Method::PATCH, SETTINGS, &stale, Some(pack.clone()))
        .await
        .expect_problem(412, "precondition_failed");
    cloud.call(Method::PATCH, &format!("{SETTINGS}?dry_run=true"), Some(pack.clone())).await.expect(200);
    assert_eq!(cloud.get(SETTINGS).await.expect(200), defaults);
    assert_eq!(cloud.call(Method::PATCH, SETTINGS, Some(pack)).await.expect(200)["strategy"], "pack");
}

#[tokio::test]
async fn hosts_offer_as_much_as_the_cloud_says_unless_they_say_otherwise() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let mut host = cloud.join_host("host-1").await;
    let offered = async || {
        let host = cloud.get(HOST).await.expect(200);
        (host["vcpus"]["total"].as_i64().unwrap(), host["memory_mib"]["total"].as_i64().unwrap())
    };
    assert_eq!(offered().await, (16, 7680));
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let twice = json!({"vcpu_overcommit": 2, "memory_overcommit": 1.5});
    cloud.call(Method::PATCH, SETTINGS, Some(twice)).await.expect(200);
    assert_eq!(offered().await, (8, 11_520));
    cloud.call(Method::PATCH, HOST, Some(json!({"vcpu_overcommit": 1}))).await.expect(200);
    assert_eq!(offered().await, (4, 11_520));
    host.open_session().await;
    assert_eq!(offered().await, (4, 11_520));
    // What is promised already stays promised.
    let nothing = json!({"vcpu_overcommit": 0.1, "memory_overcommit": null});
    cloud.call(Method::PATCH, HOST, Some(nothing)).await.expect(200);
    assert_eq!(offered().await, (1, 11_520));
    cloud.call(Method::PATCH, HOST, Some(json!({"vcpu_overcommit": null}))).await.expect(200);
    assert_eq!(offered().await, (8, 11_520));
    for wrong in [json!({"vcpu_overcommit": 65}), json!({"memory_overcommit": 5})] {
        cloud.call(Method::PATCH, HOST, Some(wrong)).await.expect_problem(422, "validation_failed");
    }
}

/// Whoever places instances is waited for by those alone who may change what it goes by.
#[tokio::test]
async fn who_may_not_change_them_waits_for_nobody() {
    let cloud = TestCloud::start().await;
    cloud.join_host("host-1").await;
    let bearer = cloud.user("ann", false).await;
    let ann = [("authorization", bearer.as_str())];
    let mut placing = cloud.app.begin().await.unwrap();
    crate::instances::store::placement::take_turn(&mut placing).await.unwrap();
    for (path, body) in [(SETTINGS, json!({"strategy": "pack"})), (HOST, json!({"rack": "a"}))] {
        let call = cloud.call_with(Method::PATCH, path, &ann, Some(body));
        let refused = tokio::time::timeout(std::time::Duration::from_secs(4), call).await;
        assert!([403, 404].contains(&refused.expect("it waits for placement").status.as_u16()), "{path}");
    }
    placing.commit().await.unwrap();
}
