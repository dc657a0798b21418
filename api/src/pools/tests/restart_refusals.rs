//! What cannot start elsewhere, and what hosts cannot say.

use axum::http::Method;
use serde_json::json;

use super::restart::{flush, heard, restarting};
use super::{INSTANCES, VOLUMES, WEB, directory, fast, findings, instance, two_with_the_pool};
use crate::instances::place_pending;
use crate::testing::TestCloud;

#[tokio::test]
async fn what_has_data_on_its_host_does_not_start_elsewhere() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    for host in &hosts {
        heard(&cloud, host, 1, json!([])).await;
    }
    let mut local = restarting("web");
    local["root_volume"] = json!({});
    let mut second = restarting("web");
    second["volumes"] = json!([{"size_gib": 1, "name": "own"}]);
    for (body, name) in [(local, "its volume root-"), (second, "its volume own is")] {
        for path in [INSTANCES.to_owned(), format!("{INSTANCES}?dry_run=true")] {
            let refused = cloud.post(&path, body.clone()).await.expect_problem(422, "validation_failed");
            let error = &refused["errors"][0];
            assert_eq!(
                (&error["pointer"], &error["code"]),
                (&json!("/on_host_failure"), &json!("local_volume"))
            );
            assert!(error["message"].as_str().unwrap().contains(name), "{error}");
        }
    }
    let mut unknown = instance("web");
    unknown["on_host_failure"] = json!("evacuate");
    cloud.post(INSTANCES, unknown).await.expect_problem(422, "validation_failed");

    cloud.post(INSTANCES, restarting("web")).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    cloud.post(VOLUMES, json!({"name": "own", "size_gib": 1})).await.expect(201);
    let attach = format!("{WEB}/attach_volume");
    let refused = cloud.post(&attach, json!({"volume": "own"})).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("set on_host_failure to wait first"), "{refused}");
    let rescue = cloud.post(&format!("{WEB}/rescue"), json!({"image": "image"})).await;
    rescue.expect_problem(409, "wrong_state");
    let patch = |value: &str| Some(json!({"on_host_failure": value}));
    for wrong in [json!(null), json!(1), json!(["restart"]), json!(true)] {
        let refused = cloud.call(Method::PATCH, WEB, Some(json!({"on_host_failure": wrong}))).await;
        let refused = refused.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/on_host_failure", "{refused}");
    }
    cloud.call(Method::PATCH, WEB, patch("wait")).await.expect(200);
    cloud.post(&attach, json!({"volume": "own"})).await.expect(202);
    let dry = format!("{WEB}?dry_run=true");
    for path in [WEB, dry.as_str()] {
        let refused = cloud.call(Method::PATCH, path, patch("restart")).await;
        let refused = refused.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/on_host_failure");
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn it_goes_only_where_a_guard_watches() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let dry = format!("{INSTANCES}?dry_run=true");
    let plan = cloud.post(&dry, restarting("web")).await.expect(200)["plan"].clone();
    assert_eq!(plan["placement"]["rejections"], json!([{"reason": "no_guard", "hosts": 2}]));
    assert_eq!(plan["placement"]["remedies"][0]["change"], "wait_for_host");
    assert_eq!(cloud.post(&dry, instance("web")).await.expect(200)["plan"]["placeable"], true);
    heard(&cloud, &hosts[1], 1, json!([])).await;
    assert_eq!(cloud.post(&dry, restarting("web")).await.expect(200)["plan"]["placeable"], true);
    let made = cloud.post(INSTANCES, restarting("web")).await.expect(202);
    assert_eq!(made["on_host_failure"], "restart");
    place_pending(&cloud.app).await.unwrap();
    hosts[1].disks(&made["id"]).await.expect("it is elsewhere");
    let page = hosts[1].desired(0).await;
    assert_eq!(page["objects"][0]["on_host_failure"], "restart");
}

#[tokio::test]
async fn hosts_say_what_they_can_know_and_no_more() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (one, other) = (&hosts[0], &hosts[1]);
    let seen = |count: usize| -> Vec<_> {
        (0..count)
            .map(|counter| json!({"pool": "fast", "host": other.id, "counter": counter, "unchanged_seconds": 1}))
            .collect()
    };
    let pools = json!([fast(directory(1), 20)]);
    let refused = one.beat_with(json!({"shared_pools": pools, "seen_leases": seen(1001)})).await;
    let refused = refused.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["pointer"], "/seen_leases");
    let many: Vec<_> = (0..33).map(|n| json!({"pool": format!("p{n}"), "counter": 1})).collect();
    let refused = one.beat_with(json!({"shared_pools": pools, "guarded_pools": many})).await;
    refused.expect_problem(422, "validation_failed");
    // Of pools that it has not, itself, what is no host, and numbers that no guard reaches.
    let seen = json!([
        {"pool": "slow", "host": other.id, "counter": 1, "unchanged_seconds": 99},
        {"pool": "fast", "host": one.id, "counter": 1, "unchanged_seconds": 99},
        {"pool": "fast", "host": "00000000-0000-7000-8000-000000000000", "counter": 1, "unchanged_seconds": 99},
        {"pool": "fast", "host": other.id, "counter": u64::MAX, "unchanged_seconds": u32::MAX},
        {"pool": "fast", "host": other.id, "counter": 5, "unchanged_seconds": u32::MAX},
    ]);
    let guarded = json!([{"pool": "slow", "counter": 1}, {"pool": "fast", "counter": u64::MAX}]);
    let beat = json!({"shared_pools": pools, "guarded_pools": guarded, "seen_leases": seen});
    one.beat_with(beat).await.expect(200);
    flush(&cloud).await;
    let sql = "SELECT jsonb_array_length(seen)::bigint + (guarded = '{}')::integer FROM host_leases WHERE host_id = $1";
    let kept: i64 = sqlx::query_scalar(sql).bind(one.id.as_uuid()).fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(kept, 3, "the unknown host, the long time, and no guarded pool");
    assert!(cloud.get(&format!("/v1/hosts/{}", one.id)).await.expect(200).get("guarded_pools").is_none());
    crate::instances::recover(&cloud.app).await.unwrap();
}
