//! Sizes that are not those of the type.

use axum::http::Method;
use serde_json::{Value, json};

use super::{INSTANCES, WEB, findings, running};
use crate::instances::{confirm_resizes, place_pending};
use crate::testing::TestCloud;

/// A furnished cloud with the type `small` of 2 vCPUs and 512 MiB.
async fn cloud_with_small() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let small = json!({"name": "small", "vcpus": 2, "memory_mib": 512, "root_disk_gib": 1});
    cloud.post("/v1/instance_types", small).await.expect(201);
    cloud
}

fn sized(name: &str, vcpus: &Value, memory_mib: &Value) -> Value {
    json!({"name": name, "image": "image", "instance_type": "small", "vcpus": vcpus, "memory_mib": memory_mib})
}

fn size(instance: &Value) -> (&Value, &Value, &Value) {
    (&instance["instance_type"]["name"], &instance["vcpus"], &instance["memory_mib"])
}

#[tokio::test]
async fn an_instance_has_the_size_that_is_asked_for_and_so_has_its_clone() {
    let cloud = cloud_with_small().await;
    let host = cloud.join_host("host-1").await;
    let body = sized("web", &json!(3), &json!(768));
    let dry = cloud.post(&format!("{INSTANCES}?dry_run=true"), body.clone()).await.expect(200);
    let vcpus = dry["plan"]["quota"].as_array().unwrap().iter().find(|one| one["resource"] == "vcpus");
    assert_eq!(vcpus.unwrap()["after"], 3);
    let web = cloud.post(INSTANCES, body).await.expect(202);
    assert_eq!(size(&web), (&json!("small"), &json!(3), &json!(768)));
    place_pending(&cloud.app).await.unwrap();
    let page = host.desired(0).await;
    let spec = page["objects"].as_array().unwrap().iter().find(|one| one["id"] == web["id"]).unwrap();
    assert_eq!((&spec["vcpus"], &spec["memory_mib"]), (&json!(3), &json!(768)));
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;

    let mut clone = json!({"name": "twin", "source": {"instance": "web"}});
    let twin = cloud.post(INSTANCES, clone.clone()).await.expect(202);
    assert_eq!(size(&twin), (&json!("small"), &json!(3), &json!(768)));
    // Another type comes with its own size.
    clone["name"] = json!("third");
    clone["instance_type"] = json!("tiny");
    let third = cloud.post(INSTANCES, clone).await.expect(202);
    assert_eq!((&third["instance_type"]["name"], &third["vcpus"]), (&json!("tiny"), &json!(1)));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_resize_changes_what_it_names() {
    let cloud = cloud_with_small().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let resize = async |body: Value| cloud.post(&format!("{WEB}/resize"), body).await;
    let made = async |boot: i64| {
        host.report(&web["id"], boot, boot, json!({"state": "running"})).await;
        confirm_resizes(&cloud.app).await.unwrap();
    };
    let own = web["memory_mib"].clone();

    let missing = resize(json!({"reboot": true})).await.expect_problem(422, "validation_failed");
    assert_eq!(missing["errors"][0]["pointer"], "/instance_type");
    let grown = resize(json!({"vcpus": 4, "reboot": true, "confirm_after_seconds": 0})).await.expect(202);
    assert_eq!(size(&grown), (&json!("tiny"), &json!(4), &own));
    made(2).await;
    let again = resize(json!({"vcpus": 4, "reboot": true})).await.expect_problem(422, "validation_failed");
    assert_eq!(again["errors"][0]["code"], "unchanged");
    // What is not named stays, and can be taken back.
    let more = resize(json!({"memory_mib": 640, "reboot": true})).await.expect(202);
    assert_eq!(size(&more), (&json!("tiny"), &json!(4), &json!(640)));
    assert_eq!((&more["resize"]["from_vcpus"], &more["resize"]["from_memory_mib"]), (&json!(4), &own));
    made(3).await;
    let reverted = cloud.post(&format!("{WEB}/revert_resize"), json!({})).await.expect(202);
    assert_eq!(size(&reverted), (&json!("tiny"), &json!(4), &own));
    made(4).await;
    // Its type by name means the size of that.
    let back = resize(json!({"instance_type": "tiny", "reboot": true, "confirm_after_seconds": 0}))
        .await
        .expect(202);
    assert_eq!(size(&back), (&json!("tiny"), &json!(1), &own));
    made(5).await;
    // A rebuild leaves the size alone.
    let odd = resize(
        json!({"instance_type": "small", "memory_mib": 1000, "reboot": true, "confirm_after_seconds": 0}),
    );
    assert_eq!(size(&odd.await.expect(202)), (&json!("small"), &json!(2), &json!(1000)));
    made(6).await;
    let rebuilt = cloud.post(&format!("{WEB}/rebuild"), json!({})).await.expect(202);
    assert_eq!(size(&rebuilt), (&json!("small"), &json!(2), &json!(1000)));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_no_size_is_refused_at_its_field() {
    let cloud = cloud_with_small().await;
    let laid_out = json!({"name": "laid-out", "vcpus": 4, "memory_mib": 512, "root_disk_gib": 1,
                          "hardware": {"topology": {"sockets": 1, "cores": 2, "threads": 2}}});
    cloud.post("/v1/instance_types", laid_out).await.expect(201);
    let least = json!({"min_memory_mib": 256});
    cloud.call(Method::PATCH, "/v1/projects/demo/images/image", Some(least)).await.expect(200);
    for (vcpus, memory_mib, instance_type, pointer) in [
        (json!(0), json!(null), "small", "/vcpus"),
        (json!(513), json!(null), "small", "/vcpus"),
        (json!(null), json!(31), "small", "/memory_mib"),
        (json!(null), json!(8_388_609), "small", "/memory_mib"),
        (json!(null), json!(4_294_967_295_u32), "small", "/memory_mib"),
        (json!(null), json!(128), "small", "/memory_mib"),
        (json!(2), json!(null), "laid-out", "/vcpus"),
    ] {
        let mut body = sized("web", &vcpus, &memory_mib);
        body["instance_type"] = json!(instance_type);
        let refused = cloud.post(INSTANCES, body.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}: {refused}");
    }
    for wrong in [json!(-1), json!("2"), json!(1.5), json!(4_294_967_296_u64)] {
        cloud
            .post(INSTANCES, sized("web", &wrong, &json!(null)))
            .await
            .expect_problem(422, "validation_failed");
        let planned = json!({"instances": [{"instance_type": "small", "vcpus": wrong}]});
        cloud
            .post("/v1/projects/demo/placements/plan", planned)
            .await
            .expect_problem(422, "validation_failed");
    }
    // The number that the topology has is no other size.
    let mut same = sized("web", &json!(4), &json!(600));
    same["instance_type"] = json!("laid-out");
    cloud.post(INSTANCES, same).await.expect(202);
    let plan = |memory_mib: i32| json!({"instances": [{"instance_type": "small", "memory_mib": memory_mib, "count": 2}]});
    cloud.join_host("host-1").await;
    let planned = cloud.post("/v1/projects/demo/placements/plan", plan(700)).await.expect(200);
    let memory =
        planned["quota"].as_array().unwrap().iter().find(|one| one["resource"] == "memory_mib").unwrap();
    assert_eq!(memory["after"].as_i64().unwrap() - memory["used"].as_i64().unwrap(), 1400);
    let planned = cloud.post("/v1/projects/demo/placements/plan", plan(70_000)).await.expect(200);
    assert_eq!(planned["placeable"], false);
}
