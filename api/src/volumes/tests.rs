//! Volumes through the router, with a host that the test plays.

mod attachments;
mod ending;
mod migration;
mod moving;
mod placement;
mod races;
mod running;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};
use crate::verify;

const VOLUMES: &str = "/v1/projects/demo/volumes";
const DATA: &str = "/v1/projects/demo/volumes/data";
const INSTANCES: &str = "/v1/projects/demo/instances";
const WEB: &str = "/v1/projects/demo/instances/web";

fn running() -> Value {
    json!({"state": "running"})
}

fn instance(name: &str) -> Value {
    json!({"name": name, "image": "image", "instance_type": "tiny", "networks": []})
}

/// An instance of this name that runs on the host.
async fn run(cloud: &TestCloud, host: &TestHost<'_>, name: &str) -> Value {
    let made = cloud.post(INSTANCES, instance(name)).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&made["id"], 1, 1, running()).await;
    made
}

/// An empty volume `data` of 2 GiB.
async fn data(cloud: &TestCloud) -> Value {
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 2})).await.expect(201)
}

async fn state(cloud: &TestCloud, path: &str) -> String {
    cloud.get(path).await.expect(200)["state"].as_str().unwrap().to_owned()
}

async fn attach(cloud: &TestCloud, instance: &str, volume: &str) -> crate::testing::Answer {
    cloud.post(&format!("{INSTANCES}/{instance}/attach_volume"), json!({"volume": volume})).await
}

async fn detach(cloud: &TestCloud, instance: &str, volume: &str) -> crate::testing::Answer {
    cloud.post(&format!("{INSTANCES}/{instance}/detach_volume"), json!({"volume": volume})).await
}

async fn execute(cloud: &TestCloud, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.unwrap();
}

async fn count(cloud: &TestCloud, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&cloud.app.pool).await.unwrap()
}

/// The status of the operation that an instance or a volume names.
async fn operation(cloud: &TestCloud, of: &Value) -> String {
    let id = of["operation"]["id"].as_str().unwrap();
    let operation = cloud.get(&format!("/v1/projects/demo/operations/{id}")).await.expect(200);
    operation["status"].as_str().unwrap().to_owned()
}

async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let codes = report.findings.into_iter().map(|finding| finding.code);
    // Nobody tells the hosts of these tests of their networks.
    let of_networks = |code: &String| code.starts_with("network_") || code.starts_with("host_network_");
    codes.filter(|code| !of_networks(code)).collect()
}

#[tokio::test]
async fn from_creation_to_deletion_without_a_host() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let body = json!({"name": "data", "size_gib": 2, "labels": {"tier": "db"}, "iops_limit": 500});
    let dry = cloud.post(&format!("{VOLUMES}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!((&dry["state"], &dry["size_gib"]), (&json!("available"), &json!(2)));
    cloud.get(DATA).await.expect_problem(404, "not_found");
    let key = [("idempotency-key", "one")];
    let made = cloud.call_with(Method::POST, VOLUMES, &key, Some(body.clone())).await.expect(201);
    let again = cloud.call_with(Method::POST, VOLUMES, &key, Some(body.clone())).await.expect(201);
    assert_eq!(made["id"], again["id"]);
    assert_eq!(made["serial"].as_str().unwrap().len(), 20);
    cloud.post(VOLUMES, body).await.expect_problem(409, "name_taken");
    let listed = cloud.get(&format!("{VOLUMES}?label_selector=tier=db")).await.expect(200);
    assert_eq!(listed["items"][0]["id"], made["id"]);

    let stale = json!({"size_gib": 3});
    let stale = cloud.call_with(Method::PATCH, DATA, &[("if-match", "\"7.0\"")], Some(stale)).await;
    stale.expect_problem(412, "precondition_failed");
    let patch = json!({"name": "store", "size_gib": 3, "iops_limit": null, "delete_protection": true,
        "bytes_per_second_limit": 1_000_000, "labels": {"tier": null}});
    let patched = cloud.call(Method::PATCH, DATA, Some(patch)).await.expect(200);
    assert_eq!((&patched["size_gib"], &patched["labels"]), (&json!(3), &json!({})));
    assert_eq!((patched.get("iops_limit"), &patched["bytes_per_second_limit"]), (None, &json!(1_000_000)));
    let store = format!("{VOLUMES}/store");
    for (body, code) in [
        (json!({"size_gib": 2}), "too_small"),
        (json!({"size_gib": 20_000}), "out_of_range"),
        (json!({"iops_limit": 1}), "out_of_range"),
        (json!({"surprise": 1}), "invalid"),
    ] {
        let refused = cloud.call(Method::PATCH, &store, Some(body)).await;
        assert_eq!(refused.expect_problem(422, "validation_failed")["errors"][0]["code"], code);
    }
    let loose = cloud.call(Method::PATCH, &store, Some(json!({"delete_with_instance": true}))).await;
    loose.expect_problem(409, "wrong_state");
    cloud.delete(&store).await.expect_problem(409, "wrong_state");
    cloud.call(Method::PATCH, &store, Some(json!({"delete_protection": false}))).await.expect(200);
    cloud.delete("/v1/projects/demo").await.expect_problem(409, "in_use");
    cloud.delete(&store).await.expect(204);
    assert_eq!(count(&cloud, "SELECT count(*) FROM layers").await, 0);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_from_an_image_has_room_for_it_and_boots() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    execute(&cloud, "UPDATE blobs SET virtual_size_bytes = 3::bigint << 30").await;
    let from = |size: Value| {
        let mut body = json!({"name": "system", "source": {"image": "image"}});
        if !size.is_null() {
            body["size_gib"] = size;
        }
        body
    };
    let small = cloud.post(VOLUMES, from(json!(2))).await;
    assert_eq!(small.expect_problem(422, "validation_failed")["errors"][0]["code"], "too_small");
    let unsized_one = cloud.post(VOLUMES, json!({"name": "data"})).await;
    assert_eq!(unsized_one.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/size_gib");
    let made = cloud.post(VOLUMES, from(Value::Null)).await.expect(201);
    assert_eq!((&made["size_gib"], &made["image"]["name"]), (&json!(3), &json!("image")));
    // The volume needs no more of it than its bytes.
    cloud.delete("/v1/projects/demo/images/image").await.expect(204);
    crate::images::sweep(&cloud.app).await.unwrap();

    let host = cloud.join_host("host-1").await;
    let boot =
        |volume: &str| json!({"name": "web", "instance_type": "tiny", "root_volume": {"volume": volume}});
    data(&cloud).await;
    let empty = cloud.post(INSTANCES, boot("data")).await;
    assert_eq!(empty.expect_problem(422, "validation_failed")["errors"][0]["code"], "not_bootable");
    let web = cloud.post(INSTANCES, boot("system")).await.expect(202);
    assert_eq!((&web["root_disk_gib"], &web["image"]["name"]), (&json!(3), &json!("image")));
    assert_eq!(web["volumes"][0]["delete_with_instance"], false);
    place_pending(&cloud.app).await.unwrap();
    let (_, disks) = host.disks(&web["id"]).await.unwrap();
    assert_eq!((&disks[0]["volume"]["id"], &disks[0]["volume"]["size_gib"]), (&made["id"], &json!(3)));
    assert_eq!(disks[0]["volume"]["image"]["virtual_size_bytes"], 3_i64 << 30);
    assert_eq!(disks[0]["volume"]["layers"].as_array().unwrap().len(), 1);
    let digest = disks[0]["volume"]["image"]["sha256"].as_str().unwrap();
    host.call(Method::GET, &format!("/agent/v1/blobs/{digest}"), None).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_new_instance_gets_the_disks_that_it_asks_for() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    data(&cloud).await;
    for (field, value, pointer) in [
        ("root_disk_gib", json!(0), "/root_disk_gib"),
        ("root_volume", json!({"volume": "data"}), "/root_volume/volume"),
        ("volumes", json!([{}]), "/volumes/0"),
        ("volumes", json!([{"volume": "data", "size_gib": 1}]), "/volumes/0"),
        ("volumes", json!([{"volume": "data", "name": "x"}]), "/volumes/0/name"),
        ("volumes", json!([{"size_gib": 1}, {"volume": "none"}]), "/volumes/1/volume"),
        ("volumes", json!([{"volume": "data"}, {"volume": "data"}]), "/volumes/1/volume"),
        ("volumes", json!(vec![json!({"size_gib": 1}); 16]), "/volumes"),
        ("image", Value::Null, "/image"),
    ] {
        let mut wrong = instance("web");
        wrong[field] = value;
        let problem = cloud.post(INSTANCES, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let mut body = instance("web");
    body["root_disk_gib"] = json!(5);
    body["volumes"] =
        json!([{"volume": "data"}, {"size_gib": 3, "name": "scratch", "delete_with_instance": true}]);
    let plan = cloud.post(&format!("{INSTANCES}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(
        plan["plan"]["quota"][3],
        json!({"resource": "disk_gib", "limit": 1000, "used": 2, "after": 10})
    );
    assert_eq!(plan["plan"]["quota"][4], json!({"resource": "volumes", "limit": 100, "used": 1, "after": 3}));
    assert_eq!(state(&cloud, DATA).await, "available");
    let web = cloud.post(INSTANCES, body).await.expect(202);
    assert_eq!(web["root_disk_gib"], 5);
    let sizes: Vec<_> =
        web["volumes"].as_array().unwrap().iter().map(|one| one["size_gib"].clone()).collect();
    assert_eq!(sizes, [5, 2, 3]);
    assert_eq!(state(&cloud, DATA).await, "attaching");

    let host = cloud.join_host("host-1").await;
    place_pending(&cloud.app).await.unwrap();
    let hosts = cloud.get("/v1/hosts").await.expect(200);
    assert_eq!(hosts["items"][0]["disk_gib"]["reserved"], 10);
    host.report(&web["id"], 1, 1, running()).await;
    assert_eq!(state(&cloud, DATA).await, "attached");
    assert_eq!(operation(&cloud, &web).await, "succeeded");
    let of_web = cloud.get(&format!("{VOLUMES}?instance=web")).await.expect(200);
    assert_eq!(of_web["items"].as_array().unwrap().len(), 3);

    // Those that go with it go, the others stay with their data.
    let deleting = cloud.delete(WEB).await.expect(202);
    assert_eq!(state(&cloud, DATA).await, "detaching");
    assert_eq!(state(&cloud, &format!("{VOLUMES}/scratch")).await, "deleting");
    let page = host.desired(0).await;
    assert_eq!(page["objects"][0]["layers"].as_array().unwrap().len(), 2, "{page}");
    host.report(&web["id"], 2, 1, json!({"state": "absent"})).await;
    assert_eq!(operation(&cloud, &deleting).await, "succeeded");
    let left = cloud.get(VOLUMES).await.expect(200);
    assert_eq!(
        (left["items"].as_array().unwrap().len(), &left["items"][0]["state"]),
        (1, &json!("available"))
    );
    let hosts = cloud.get("/v1/hosts").await.expect(200);
    assert_eq!(hosts["items"][0]["disk_gib"]["reserved"], 2);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_project_has_only_so_many_volumes_and_only_its_own() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let made = data(&cloud).await;
    let quotas = "/v1/projects/demo/quotas";
    cloud.call(Method::PATCH, quotas, Some(json!({"volumes": 1, "disk_gib": 4}))).await.expect(200);
    let more = cloud.post(VOLUMES, json!({"name": "more", "size_gib": 3})).await;
    let resources = |problem: Value| -> Vec<Value> {
        problem["quota"].as_array().unwrap().iter().map(|one| one["resource"].clone()).collect()
    };
    assert_eq!(resources(more.expect_problem(409, "quota_exceeded")), ["disk_gib", "volumes"]);
    let grown = cloud.call(Method::PATCH, DATA, Some(json!({"size_gib": 5}))).await;
    assert_eq!(resources(grown.expect_problem(409, "quota_exceeded")), ["disk_gib"]);
    cloud.post(INSTANCES, instance("web")).await.expect_problem(409, "quota_exceeded");

    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let id = made["id"].as_str().unwrap();
    for name in [id, "data"] {
        let path = format!("/v1/projects/other/volumes/{name}");
        cloud.get(&path).await.expect_problem(404, "not_found");
        cloud.delete(&path).await.expect_problem(404, "not_found");
        cloud.call(Method::PATCH, &path, Some(json!({"size_gib": 3}))).await.expect_problem(404, "not_found");
    }
    cloud.call(Method::PATCH, quotas, Some(json!({"volumes": null, "disk_gib": null}))).await.expect(200);
    let image = json!({"name": "image", "format": "raw"});
    cloud.post("/v1/projects/other/images", image).await.expect(201);
    cloud.put_bytes("/v1/projects/other/images/image/content", vec![0; 4096]).await.expect(200);
    cloud.post("/v1/projects/other/instances", instance("web")).await.expect(202);
    let foreign = cloud.post("/v1/projects/other/instances/web/attach_volume", json!({"volume": id})).await;
    assert_eq!(foreign.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/volume");
    let outsider = cloud.user("outsider", false).await;
    let headers = [("authorization", outsider.as_str())];
    cloud.call_with(Method::GET, DATA, &headers, None).await.expect_problem(404, "not_found");
    cloud.send(crate::testing::request(Method::GET, DATA, &[], String::new())).await.expect(401);
}
