//! Groups through the router, and rules that hold whoever places.

use axum::http::Method;
use serde_json::{Value, json};

use crate::instances::place_pending;
use crate::testing::{TestCloud, during};

const GROUPS: &str = "/v1/projects/demo/placement_groups";
const WEB: &str = "/v1/projects/demo/placement_groups/web";
const INSTANCES: &str = "/v1/projects/demo/instances";

fn instance(name: &str) -> Value {
    json!({"name": name, "image": "image", "instance_type": "tiny", "placement_group": "web"})
}

async fn grouped(cloud: &TestCloud, policy: &str, scope: &str) {
    cloud.furnish().await;
    cloud.post(GROUPS, json!({"name": "web", "policy": policy, "scope": scope})).await.expect(201);
}

async fn shown(cloud: &TestCloud, name: &str) -> Value {
    place_pending(&cloud.app).await.unwrap();
    cloud.get(&format!("{INSTANCES}/{name}")).await.expect(200)
}

async fn stand(cloud: &TestCloud, host: &str, rack: &str) {
    let body = json!({"rack": rack, "zone": "north"});
    cloud.call(Method::PATCH, &format!("/v1/hosts/{host}"), Some(body)).await.expect(200);
}

#[tokio::test]
async fn a_group_is_made_read_changed_and_deleted() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let body = json!({"name": "web", "policy": "anti_affinity", "labels": {"tier": "web"}});
    cloud.post(&format!("{GROUPS}?dry_run=true"), body.clone()).await.expect(200);
    cloud.get(WEB).await.expect_problem(404, "not_found");
    let made = cloud.post(GROUPS, body.clone()).await.expect(201);
    assert_eq!(
        (&made["strength"], &made["scope"], &made["instances"]),
        (&json!("hard"), &json!("host"), &json!([]))
    );
    cloud.post(GROUPS, body).await.expect_problem(409, "name_taken");
    let wrong = json!({"name": "new", "policy": "anti_affinity", "host": "host-1"});
    cloud.post(GROUPS, wrong).await.expect_problem(422, "validation_failed");
    let wrong = json!({"name": "new", "policy": "apart"});
    cloud.post(GROUPS, wrong).await.expect_problem(422, "validation_failed");
    let listed = cloud.get(&format!("{GROUPS}?label_selector=tier%3Dweb")).await.expect(200);
    assert_eq!(listed["items"][0]["name"], "web");
    let stale = [("if-match", "\"9.0\"")];
    let rename = json!({"name": "shop", "description": "Front ends"});
    cloud
        .call_with(Method::PATCH, WEB, &stale, Some(rename.clone()))
        .await
        .expect_problem(412, "precondition_failed");
    // The rule is for ever.
    let rule = json!({"policy": "affinity"});
    cloud.call(Method::PATCH, WEB, Some(rule)).await.expect_problem(422, "validation_failed");
    let changed = cloud.call(Method::PATCH, WEB, Some(rename)).await.expect(200);
    assert_eq!((&changed["name"], &changed["description"]), (&json!("shop"), &json!("Front ends")));
    cloud.delete(&format!("{GROUPS}/shop")).await.expect(204);
    assert_eq!(cloud.get(GROUPS).await.expect(200)["items"], json!([]));
    let missing = cloud.post(INSTANCES, instance("a")).await.expect_problem(422, "validation_failed");
    assert_eq!(missing["errors"][0]["pointer"], "/placement_group");
}

#[tokio::test]
async fn instances_that_stay_apart_wait_for_a_host_and_say_why() {
    let cloud = TestCloud::start().await;
    grouped(&cloud, "anti_affinity", "host").await;
    let first = cloud.join_host("host-1").await;
    let _second = cloud.join_host("host-2").await;
    for name in ["a", "b", "c"] {
        cloud.post(INSTANCES, instance(name)).await.expect(202);
    }
    assert_eq!(shown(&cloud, "a").await["placement_group"]["name"], "web");
    let waiting = shown(&cloud, "c").await;
    assert_eq!(
        (&waiting["state"], &waiting["state_reason"], &waiting["placement"]["summary"]),
        (
            &json!("pending"),
            &json!("no_host_fits"),
            &json!(
                "none of 2 hosts takes it: 2 in a host that group web has an instance in; it would fit without \
                 group web"
            )
        )
    );
    cloud.delete(WEB).await.expect_problem(409, "in_use");
    assert_eq!(cloud.get(WEB).await.expect(200)["instances"].as_array().unwrap().len(), 3);
    // Room appears with the end of one of them.
    let on_first = first.desired(0).await["objects"][0]["id"].clone();
    cloud.delete(&format!("{INSTANCES}/{}", on_first.as_str().unwrap())).await.expect(202);
    first.report(&on_first, 2, 1, json!({"state": "absent"})).await;
    assert_eq!(shown(&cloud, "c").await["state"], "provisioning");
}

#[tokio::test]
async fn instances_that_go_together_wait_for_their_host() {
    let cloud = TestCloud::start().await;
    grouped(&cloud, "affinity", "host").await;
    cloud.lift_quotas().await;
    let _hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    for number in 0..17 {
        cloud.post(INSTANCES, instance(&format!("i-{number}"))).await.expect(202);
    }
    // 16 vCPUs are on offer of each host.
    place_pending(&cloud.app).await.unwrap();
    let hosts = cloud.get("/v1/hosts").await.expect(200);
    let reserved = |host: usize| hosts["items"][host]["vcpus"]["reserved"].as_i64().unwrap();
    assert_eq!((reserved(0).max(reserved(1)), reserved(0).min(reserved(1))), (16, 0));
    assert_eq!(
        shown(&cloud, "i-16").await["placement"]["summary"],
        "none of 2 hosts takes it: 1 not the host that group web is in, 1 too few free vCPUs; it would fit without \
         group web"
    );
}

#[tokio::test]
async fn two_schedulers_at_once_do_not_break_a_rule() {
    let cloud = TestCloud::start().await;
    grouped(&cloud, "anti_affinity", "rack").await;
    let _hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    stand(&cloud, "host-1", "r1").await;
    stand(&cloud, "host-2", "r1").await;
    cloud.post(INSTANCES, instance("a")).await.expect(202);
    // Another one has given `a` to host-1, and has not committed yet.
    let other = "SELECT place_volumes(i.id, h.id) FROM instances i, hosts h WHERE i.name = 'a' AND h.name = 'host-1';
                 UPDATE instances SET host_id = (SELECT id FROM hosts WHERE name = 'host-1'), desired_revision = 1
                 WHERE name = 'a'";
    let mut at_once = instance("b");
    at_once["when_no_room"] = json!("fail");
    let refused = during(&cloud, other, INSTANCES, at_once).await;
    let refused = refused.expect_problem(409, "insufficient_capacity");
    assert_eq!(
        refused["detail"],
        "none of 2 hosts takes it: 2 in a rack that group web has an instance in; it would fit without group web"
    );
    // The database itself refuses it, whoever asks.
    cloud.post(INSTANCES, instance("b")).await.expect(202);
    let forced = sqlx::query(
        "UPDATE instances SET host_id = (SELECT id FROM hosts WHERE name = 'host-2'), desired_revision = 1
         WHERE name = 'b'",
    );
    let error = forced.execute(&cloud.app.pool).await.unwrap_err();
    assert_eq!(crate::http::violated_constraint(&error), Some("hosts_placement_group"));
}

#[tokio::test]
async fn a_host_is_not_said_to_stand_where_a_rule_would_break() {
    let cloud = TestCloud::start().await;
    grouped(&cloud, "anti_affinity", "rack").await;
    let _hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    cloud.post(INSTANCES, instance("a")).await.expect(202);
    assert_eq!(
        shown(&cloud, "a").await["placement"]["summary"],
        "none of 2 hosts takes it: 2 whose rack is not known; it would fit without group web"
    );
    stand(&cloud, "host-1", "r1").await;
    stand(&cloud, "host-2", "r2").await;
    cloud.post(INSTANCES, instance("b")).await.expect(202);
    assert_eq!(shown(&cloud, "a").await["state"], "provisioning");
    assert_eq!(shown(&cloud, "b").await["state"], "provisioning");
    for rack in [json!("r1"), Value::Null] {
        let refused = cloud.call(Method::PATCH, "/v1/hosts/host-2", Some(json!({"rack": rack}))).await;
        let refused = refused.expect_problem(409, "wrong_state");
        assert_eq!(
            refused["detail"],
            "instances there are in placement groups whose hard rule would be broken; move or delete them first"
        );
    }
    stand(&cloud, "host-2", "r3").await;
}
