//! Volumes that end: their rows live until their host has said that the files are gone.

use axum::http::Method;
use serde_json::json;

use super::{DATA, VOLUMES, WEB, attach, count, data, detach, findings, operation, run, running, state};
use crate::testing::{TestCloud, TestHost};

/// `data`, with files on the host and attached to nothing.
async fn used(cloud: &TestCloud, host: &TestHost<'_>) {
    let web = run(cloud, host, "web").await;
    data(cloud).await;
    attach(cloud, "web", "data").await.expect(202);
    host.report(&web["id"], 2, 1, running()).await;
    detach(cloud, "web", "data").await.expect(202);
    host.report(&web["id"], 3, 1, running()).await;
}

#[tokio::test]
async fn a_host_removes_what_it_is_told_and_then_the_row_goes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let stranger = cloud.join_host("host-2").await;
    let mut both = [host, stranger];
    let web = cloud.post(super::INSTANCES, super::instance("web")).await.expect(202);
    crate::instances::place_pending(&cloud.app).await.unwrap();
    if both[0].disks(&web["id"]).await.is_none() {
        both.swap(0, 1);
    }
    let [host, stranger] = both;
    host.report(&web["id"], 1, 1, running()).await;
    let volume = data(&cloud).await;
    attach(&cloud, "web", "data").await.expect(202);
    host.report(&web["id"], 2, 1, running()).await;
    // Attached: nobody asked for its end.
    host.report_removed(json!([volume["id"]])).await;
    detach(&cloud, "web", "data").await.expect(202);
    host.report(&web["id"], 3, 1, running()).await;
    host.report_removed(json!([volume["id"]])).await;
    assert_eq!(state(&cloud, DATA).await, "available");

    let seen = host.desired(0).await["revision"].as_i64().unwrap();
    let deleting = cloud.delete(DATA).await.expect(202);
    assert_eq!(
        (&deleting["state"], &deleting["operation"]["kind"]),
        (&json!("deleting"), &json!("delete_volume"))
    );
    assert_eq!(cloud.delete(DATA).await.expect(202)["operation"]["id"], deleting["operation"]["id"]);
    attach(&cloud, "web", "data").await.expect_problem(409, "wrong_state");
    cloud.call(Method::PATCH, DATA, Some(json!({"name": "x"}))).await.expect_problem(409, "wrong_state");
    let orders = host.removals().await;
    assert_eq!((orders.len(), orders[0]["layers"].as_array().unwrap().len()), (1, 1));
    assert_eq!(host.desired(seen).await["objects"], json!(orders));
    let order = &orders[0]["removal_id"];
    stranger.report_removed(json!([order])).await;
    host.report_removed(json!([volume["id"]])).await;
    assert_eq!(operation(&cloud, &deleting).await, "running");
    host.report_removed(json!([order, order])).await;
    cloud.get(DATA).await.expect_problem(404, "not_found");
    assert_eq!(operation(&cloud, &deleting).await, "succeeded");
    assert_eq!(host.desired(0).await["objects"].as_array().unwrap().len(), 1);
    assert_eq!(count(&cloud, "SELECT count(*) FROM layers").await, 1);
    let reserved = "SELECT sum(disk_gib_reserved) FROM hosts";
    assert_eq!(count(&cloud, reserved).await, 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_instance_does_not_take_along_what_is_protected() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = run(&cloud, &host, "web").await;
    let root = format!("{VOLUMES}/{}", web["volumes"][0]["volume"]["id"].as_str().unwrap());
    cloud.call(Method::PATCH, &root, Some(json!({"delete_protection": true}))).await.expect(200);
    let refused = cloud.delete(WEB).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("delete_with_instance"), "{refused}");
    cloud.call(Method::PATCH, &root, Some(json!({"delete_with_instance": false}))).await.expect(200);
    cloud.delete(WEB).await.expect(202);
    cloud.call(Method::PATCH, &root, Some(json!({"size_gib": 2}))).await.expect_problem(409, "wrong_state");
    host.report(&web["id"], 2, 1, json!({"state": "absent"})).await;
    assert_eq!(state(&cloud, &root).await, "available");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn data_of_an_instance_that_was_never_placed_is_removed_where_it_is() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    used(&cloud, &host).await;
    let mut body = super::instance("next");
    body["volumes"] = json!([{"volume": "data", "delete_with_instance": true}]);
    cloud.post(super::INSTANCES, body).await.expect(202);
    cloud.delete(&format!("{}/next", super::INSTANCES)).await.expect(202);
    assert_eq!(state(&cloud, DATA).await, "deleting");
    cloud.delete(DATA).await.expect(202);
    host.report_removed(json!([host.removals().await[0]["removal_id"]])).await;
    cloud.get(DATA).await.expect_problem(404, "not_found");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

/// Chains as snapshots and clones will make them: `a` and `b` stand on one layer, which nobody writes to.
const SHARED: &str = "
    INSERT INTO layers (id, sealed, project_id, held_gib, created_at)
    SELECT '00000000-0000-7000-8000-00000000000c', true, id, 1, '2026-01-01Z' FROM projects;
    INSERT INTO layers (id, parent_id, created_at)
    SELECT id, '00000000-0000-7000-8000-00000000000c', '2026-01-01Z'
    FROM unnest('{00000000-0000-7000-8000-00000000000a,00000000-0000-7000-8000-00000000000b}'::uuid[]) id;
    INSERT INTO volumes (id, project_id, name, labels, size_gib, layer_id, created_at, updated_at)
    SELECT l.id, p.id, 'v' || right(l.id::text, 1), '{}', 1, l.id, l.created_at, l.created_at
    FROM layers l, projects p WHERE l.parent_id IS NOT NULL";

#[tokio::test]
async fn a_layer_goes_with_the_last_volume_that_stands_on_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    super::execute(&cloud, SHARED).await;
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    let web = run(&cloud, &host, "web").await;
    attach(&cloud, "web", "va").await.expect(202);
    // What shares a layer goes to the host together.
    assert_eq!(count(&cloud, "SELECT sum(disk_gib_reserved) FROM hosts").await, 3);
    let (_, disks) = host.disks(&web["id"]).await.unwrap();
    let (a, b, c) = (
        "00000000-0000-7000-8000-00000000000a",
        "00000000-0000-7000-8000-00000000000b",
        "00000000-0000-7000-8000-00000000000c",
    );
    assert_eq!(disks[1]["volume"]["layers"], json!([c, a]));
    host.report(&web["id"], 2, 1, running()).await;
    detach(&cloud, "web", "va").await.expect(202);
    host.report(&web["id"], 3, 1, running()).await;
    cloud.delete(&format!("{VOLUMES}/va")).await.expect(202);
    cloud.delete(&format!("{VOLUMES}/vb")).await.expect(202);
    let orders = host.removals().await;
    assert_eq!((&orders[0]["layers"], &orders[1]["layers"]), (&json!([a]), &json!([b, c])));
    host.report_removed(json!([orders[1]["removal_id"]])).await;
    host.report_removed(json!([orders[0]["removal_id"]])).await;
    assert_eq!(count(&cloud, "SELECT count(*) FROM layers").await, 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_constraints_refuse_verify_finds_without_them() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    super::execute(&cloud, SHARED).await;
    for broken in [
        // Written below another one; on another host; and two writers of one file.
        "UPDATE layers SET sealed = false WHERE sealed",
        "UPDATE volumes SET layer_id = '00000000-0000-7000-8000-00000000000c' WHERE name = 'va'",
        "UPDATE volumes SET layer_id = '00000000-0000-7000-8000-00000000000a'",
        "UPDATE volumes SET position = 1 WHERE name = 'va'",
        "UPDATE volumes SET deletion_requested_at = created_at WHERE name = 'va'",
    ] {
        assert!(sqlx::raw_sql(broken).execute(&cloud.app.pool).await.is_err(), "{broken}");
    }
    super::execute(&cloud, "ALTER TABLE volumes DROP CONSTRAINT volumes_one_writer").await;
    super::execute(&cloud, "UPDATE volumes SET layer_id = '00000000-0000-7000-8000-00000000000a'").await;
    assert_eq!(findings(&cloud).await, ["layer_shared", "layer_unowned"]);
}
