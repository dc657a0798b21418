//! Two at once, and what the database makes of it.

use axum::http::Method;
use serde_json::json;

use super::{INSTANCES, WEB, create, pair, running, state};
use crate::instances::place_pending;
use crate::testing::{TestCloud, during};

#[tokio::test]
async fn what_is_deleted_under_a_creation_was_never_there() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "empty"})).await.expect(201);
    let web = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    for (table, pointer) in [("images", "/image"), ("instance_types", "/instance_type")] {
        let refused = during(&cloud, &format!("DELETE FROM {table}"), INSTANCES, web.clone()).await;
        assert_eq!(refused.expect_problem(422, "validation_failed")["errors"][0]["pointer"], pointer);
        sqlx::query("DELETE FROM images").execute(&cloud.app.pool).await.unwrap();
        cloud.post("/v1/projects/demo/images", json!({"name": "image", "format": "raw"})).await.expect(201);
        cloud.put_bytes("/v1/projects/demo/images/image/content", vec![0; 4096]).await.expect(200);
    }
    let delete = "SELECT delete_project_networks(id) FROM projects WHERE name = 'empty';
                  DELETE FROM projects WHERE name = 'empty'";
    let image = json!({"name": "image", "format": "raw"});
    during(&cloud, delete, "/v1/projects/empty/images", image).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn an_instance_goes_only_when_its_host_has_seen_the_deletion() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = running(&cloud, &host).await;
    cloud.delete(WEB).await.expect(202);
    // Said before the deletion was heard of: the disk may still be about to be made.
    host.report(&created["id"], 1, 1, json!({"state": "absent"})).await;
    assert_eq!(state(&cloud).await, pair("deleting", "deletion_requested"));
    host.report(&created["id"], 2, 1, json!({"state": "absent"})).await;
    cloud.get(WEB).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn reports_and_calls_on_the_same_host_do_not_lock_each_other_out() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    for round in 0..8 {
        let mut ids = Vec::new();
        for name in ["a", "b"] {
            let body = json!({"name": format!("{name}-{round}"), "image": "image", "instance_type": "tiny"});
            ids.push(cloud.post(INSTANCES, body).await.expect(202)["id"].clone());
        }
        place_pending(&cloud.app).await.unwrap();
        cloud.delete(&format!("{INSTANCES}/a-{round}")).await.expect(202);
        let absent = json!({"id": ids[0], "generation": 2, "boot": 1, "state": {"state": "absent"}});
        let runs = json!({"id": ids[1], "generation": 1, "boot": 1, "state": {"state": "running"}});
        let batch = json!({"epoch": host.epoch, "reports": [absent, runs]});
        let stop = format!("{INSTANCES}/b-{round}/stop");
        let (reported, stopped) = tokio::join!(
            host.call(Method::POST, "/agent/v1/observed", Some(batch)),
            cloud.post(&stop, json!({}))
        );
        reported.expect(200);
        stopped.expect(202);
        cloud.get(&format!("{INSTANCES}/a-{round}")).await.expect_problem(404, "not_found");
        cloud.delete(&format!("{INSTANCES}/b-{round}")).await.expect(202);
        host.report(&ids[1], 3, 1, json!({"state": "absent"})).await;
    }
}

#[tokio::test]
async fn freed_room_is_given_away_at_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let created = running(&cloud, &host).await;
    sqlx::query("UPDATE hosts SET vcpus_capacity = 1").execute(&cloud.app.pool).await.unwrap();
    let body = json!({"name": "next", "image": "image", "instance_type": "tiny"});
    cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let next = format!("{INSTANCES}/next");
    assert_eq!(cloud.get(&next).await.expect(200)["state_reason"], "no_host_fits");
    cloud.delete(WEB).await.expect(202);
    host.report(&created["id"], 2, 1, json!({"state": "absent"})).await;
    // The clock stands still: nothing is due but for the room.
    place_pending(&cloud.app).await.unwrap();
    assert_eq!(cloud.get(&next).await.expect(200)["state_reason"], "awaiting_host");
}

/// A random but repeatable choice below the limit.
fn choose(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

#[tokio::test]
async fn reservations_are_the_recount_whatever_happens() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let big = json!({"name": "big", "vcpus": 5, "memory_mib": 2048, "root_disk_gib": 7});
    cloud.post("/v1/instance_types", big).await.expect(201);
    let hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    let recount =
        "SELECT count(*) FROM hosts h WHERE (vcpus_reserved, memory_mib_reserved, disk_gib_reserved)
        <> ALL (SELECT coalesce(sum(vcpus_held), 0), coalesce(sum(memory_mib_held), 0),
                       (SELECT coalesce(sum(size_gib), 0) FROM volumes WHERE host_id = h.id)
                          FROM instances WHERE host_id = h.id)";
    let mut seed = 7;
    let mut placed = 0;
    for step in 0..60 {
        let name = format!("web-{}", choose(&mut seed, 12));
        match choose(&mut seed, 4) {
            0 | 1 => {
                let size = if choose(&mut seed, 3) == 0 { "big" } else { "tiny" };
                cloud.post(INSTANCES, json!({"name": name, "image": "image", "instance_type": size})).await;
            }
            2 => place_pending(&cloud.app).await.unwrap(),
            _ => {
                let deleting = cloud.delete(&format!("{INSTANCES}/{name}")).await;
                if deleting.status == 202 {
                    let id = deleting.json()["id"].clone();
                    // Only its own host is believed; an unplaced one is gone already.
                    for host in &hosts {
                        host.report(&id, 2, 1, json!({"state": "absent"})).await;
                    }
                }
            }
        }
        let wrong: i64 = sqlx::query_scalar(recount).fetch_one(&cloud.app.pool).await.unwrap();
        assert_eq!(wrong, 0, "after step {step}");
        let sum = "SELECT sum(vcpus_reserved) FROM hosts";
        placed = placed.max(sqlx::query_scalar::<_, i64>(sum).fetch_one(&cloud.app.pool).await.unwrap());
    }
    assert!(placed > 5, "nothing was ever placed");
}

#[tokio::test]
async fn a_silent_host_is_not_waited_for() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    create(&cloud).await;
    assert_eq!(cloud.get(&format!("{WEB}/serial")).await.body, b"");
    let _host = cloud.join_host("host-1").await;
    place_pending(&cloud.app).await.unwrap();
    cloud.pass(21);
    let refused = cloud.get(&format!("{WEB}/serial")).await;
    refused.expect_problem(503, "host_unreachable");
    assert_eq!(refused.headers["retry-after"], "5");
}
