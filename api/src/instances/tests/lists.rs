//! Lists: of one project and of all, by state, and what they tell to whom.

use axum::http::Method;
use protocol::agent::{EndReason, ObservedState, PauseReason, Power};
use serde_json::{Value, json};

use super::{INSTANCES, WEB, running};
use crate::instances::model::{Intent, Observed, shown, stored};
use crate::instances::place_pending;
use crate::testing::TestCloud;

const CLOUD: &str = "/v1/instances";

/// Follows the cursor from page to page.
async fn names(cloud: &TestCloud, path: &str) -> Vec<String> {
    let join = if path.contains('?') { '&' } else { '?' };
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = cloud.get(&format!("{path}{join}limit=1{cursor}")).await.expect(200);
        names.extend(page["items"].as_array().unwrap().iter().map(|one| {
            let name = one.get("name").or(one.get("kind")).unwrap();
            name.as_str().unwrap().to_owned()
        }));
        let Some(next) = page["next_cursor"].as_str() else { return names };
        cursor = format!("&cursor={next}");
    }
}

async fn give(cloud: &TestCloud, path: &str, name: &str, actions: Value) {
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
    let document = json!({"Version": "2012-10-17", "Statement": [statement]});
    cloud.post(&format!("{path}/policies"), json!({"name": name, "document": document})).await.expect(201);
    let attachment = json!({"policy": name, "user": name});
    cloud.post(&format!("{path}/policy_attachments"), attachment).await.expect(201);
}

#[tokio::test]
async fn hosts_are_named_to_those_alone_who_may_list_them() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("rack-7").await;
    running(&cloud, &host).await;
    let operator = cloud.get(WEB).await.expect(200);
    assert_eq!(operator["host"]["name"], "rack-7");
    assert_eq!(cloud.get(INSTANCES).await.expect(200)["items"][0]["host"], operator["host"]);
    let everywhere = cloud.get(CLOUD).await.expect(200);
    assert_eq!(
        (&everywhere["items"][0]["project"]["name"], &everywhere["items"][0]["host"]),
        (&json!("demo"), &operator["host"])
    );

    // Who may do everything in the project learns of no host, nor does its audit log.
    let (tenant, lister) = (cloud.user("tenant", false).await, cloud.user("lister", false).await);
    give(&cloud, "/v1/projects/demo", "tenant", json!("*")).await;
    give(&cloud, "/v1", "lister", json!("compute:ListInstances")).await;
    let patch = json!({"description": "seen"});
    cloud.call(Method::PATCH, WEB, Some(patch)).await.expect(200);
    let ask = async |who: &str, path: &str| {
        cloud.call_with(Method::GET, path, &[("authorization", who)], None).await
    };
    for path in [WEB, INSTANCES, "/v1/projects/demo/audit_records", "/v1/projects/demo/ports"] {
        let seen = ask(&tenant, path).await.expect(200);
        assert!(seen.to_string().contains("web"), "{seen}");
        assert!(!seen.to_string().contains("rack-7"), "{seen}");
        assert!(!seen.to_string().contains(operator["host"]["id"].as_str().unwrap()), "{seen}");
    }
    ask(&tenant, CLOUD).await.expect_problem(403, "forbidden");
    let seen = ask(&lister, CLOUD).await.expect(200);
    assert_eq!((&seen["items"][0]["name"], &seen["items"][0]["host"]), (&json!("web"), &Value::Null));
    let refused = ask(&lister, &format!("{CLOUD}?host=rack-7")).await;
    assert!(refused.expect_problem(403, "forbidden")["detail"].as_str().unwrap().contains("leave it out"));
}

#[tokio::test]
async fn lists_are_asked_for_a_state_page_by_page() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    for name in ["a", "b"] {
        let body = json!({"name": name, "image": "image", "instance_type": "tiny"});
        cloud.post(INSTANCES, body).await.expect(202);
    }
    let project = "/v1/projects/demo";
    cloud.post(&format!("{project}/images"), json!({"name": "empty", "format": "raw"})).await.expect(201);
    cloud.post(&format!("{project}/volumes"), json!({"name": "free", "size_gib": 1})).await.expect(201);
    let taken = json!({"name": "then", "volume": "free"});
    cloud.post(&format!("{project}/snapshots"), taken).await.expect(201);
    let _silent = cloud.join_host("host-2").await;
    cloud.pass(30);
    host.report(&cloud.get(WEB).await.expect(200)["id"], 1, 1, json!({"state": "running"})).await;

    for (path, states) in [
        (INSTANCES, vec![("running", vec!["web"]), ("pending", vec!["a", "b"]), ("error", vec![])]),
        (CLOUD, vec![("running", vec!["web"]), ("pending", vec!["a", "b"]), ("deleting", vec![])]),
        ("/v1/projects/demo/volumes", vec![("available", vec!["free"]), ("deleting", vec![])]),
        ("/v1/projects/demo/images", vec![("available", vec!["image"]), ("awaiting_upload", vec!["empty"])]),
        ("/v1/projects/demo/snapshots", vec![("available", vec!["then"]), ("creating", vec![])]),
    ] {
        for (state, expected) in states {
            assert_eq!(names(&cloud, &format!("{path}?state={state}")).await, expected, "{path} {state}");
        }
        let refused = cloud.get(&format!("{path}?state=odd")).await.expect_problem(400, "invalid_query");
        assert!(refused["detail"].as_str().unwrap().contains("possible are"), "{refused}");
    }
    let volumes = "/v1/projects/demo/volumes";
    let all = cloud.get(volumes).await.expect(200)["items"].as_array().unwrap().clone();
    for state in ["available", "attaching", "attached", "updating", "detaching", "deleting"] {
        let expected: Vec<_> =
            all.iter().filter(|one| one["state"] == state).map(|one| one["name"].clone()).collect();
        assert_eq!(names(&cloud, &format!("{volumes}?state={state}")).await, expected, "{state}");
    }
    assert!(all.iter().any(|one| one["state"] == "attaching"), "{all:?}");
    assert_eq!(names(&cloud, "/v1/hosts?state=unreachable").await.len(), 2);
    assert_eq!(names(&cloud, "/v1/hosts?state=ready").await.len(), 0);
    cloud.get("/v1/hosts?state=odd").await.expect_problem(400, "invalid_query");

    assert_eq!(names(&cloud, CLOUD).await, ["web", "a", "b"]);
    for (filter, expected) in [
        ("host=host-1", vec!["web"]),
        ("host=host-2", vec![]),
        ("project=demo&name=a", vec!["a"]),
        ("project=other", vec![]),
        ("project=demo&state=pending", vec!["a", "b"]),
    ] {
        assert_eq!(names(&cloud, &format!("{CLOUD}?{filter}")).await, expected, "{filter}");
    }
    for nowhere in ["nosuch", "A%20b", "00000000-0000-0000-0000-000000000000"] {
        let refused = cloud.get(&format!("{CLOUD}?host={nowhere}")).await.expect_problem(404, "not_found");
        assert_eq!(refused["detail"], "host: there is no such host");
    }
}

#[tokio::test]
async fn operations_are_listed_newest_first() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    cloud.delete(WEB).await.expect(202);
    let operations = "/v1/projects/demo/operations";
    let all = ["delete_instance", "stop_instance", "create_instance"];
    assert_eq!(names(&cloud, operations).await, all);
    let of_web = format!("{operations}?resource_id={}", web["id"].as_str().unwrap());
    assert_eq!(names(&cloud, &of_web).await, all);
    for (status, kind) in [("running", all[0]), ("cancelled", all[1]), ("succeeded", all[2])] {
        assert_eq!(names(&cloud, &format!("{operations}?status={status}")).await, [kind]);
    }
    assert!(names(&cloud, &format!("{operations}?status=failed")).await.is_empty());
    let refused = cloud.get(&format!("{operations}?status=done")).await.expect_problem(400, "invalid_query");
    assert!(refused["detail"].as_str().unwrap().contains("succeeded"), "{refused}");
}

/// Every state that a host can report.
fn observations() -> Vec<ObservedState> {
    let ends = [
        EndReason::Requested,
        EndReason::GuestShutdown,
        EndReason::Crashed,
        EndReason::Unobserved,
        EndReason::NeverStarted,
        EndReason::Fenced,
    ];
    let stopped = ends.map(|reason| ObservedState::Stopped { reason });
    let mut all = vec![
        ObservedState::Preparing,
        ObservedState::Running,
        ObservedState::Stopping,
        ObservedState::Failed,
        ObservedState::Absent,
    ];
    all.extend(stopped);
    all
}

#[tokio::test]
async fn the_database_computes_the_state_that_is_shown() {
    let cloud = TestCloud::start().await;
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let paused = [
        None,
        Some(PauseReason::PoolFull),
        Some(PauseReason::IoError),
        Some(PauseReason::Suspended),
        Some(PauseReason::Requested),
    ];
    let seen = observations().into_iter().flat_map(|state| paused.map(|paused| (state, paused)));
    let seen: Vec<_> = std::iter::once(None).chain(seen.map(Some)).collect();
    let powers = [Power::Running, Power::Stopped, Power::Paused];
    let intents = powers.into_iter().flat_map(|power| {
        [(false, true, 1_i64), (false, true, 2), (false, false, 1), (true, true, 1)]
            .map(move |rest| (power, rest))
    });
    for (power, (deletion_requested, placed, boot)) in intents {
        let intent = Intent { generation: 1, power, boot, deletion_requested, placed };
        for seen in &seen {
            let observed = seen.map(|(state, paused)| Observed { generation: 1, boot: 1, state, paused });
            let state: String = sqlx::query_scalar("SELECT instance_state($1, $2, $3, $4, $5, $6, $7, $8)")
                .bind(deletion_requested)
                .bind(placed)
                .bind(stored::power(power))
                .bind(boot)
                .bind(observed.map(|_| 1_i64))
                .bind(seen.map(|(state, _)| state.as_str()))
                .bind(seen.and_then(|(state, _)| stored::end_reason(state)))
                .bind(seen.and_then(|(_, paused)| paused).map(PauseReason::as_str))
                .fetch_one(&mut *conn)
                .await
                .unwrap();
            let expected = shown(&intent, observed.as_ref(), true, false).0;
            assert_eq!(state, expected.as_str(), "{intent:?} {observed:?}");
        }
    }
}

#[tokio::test]
async fn many_on_several_hosts_are_acted_on_at_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    let hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    let mut on = Vec::new();
    for number in 0..5 {
        let body = json!({"name": format!("web-{number}"), "image": "image", "instance_type": "tiny"});
        let made = cloud.post(INSTANCES, body).await.expect(202);
        place_pending(&cloud.app).await.unwrap();
        let placed = cloud.get(&format!("{INSTANCES}/web-{number}")).await.expect(200);
        on.push(placed["host"]["name"].as_str().unwrap().to_owned());
        for host in &hosts {
            host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
        }
    }
    // The one comes to the first host first, and the other to the second.
    assert!(on[0] == on[4] && on[1] == on[3] && on[0] != on[1], "{on:?}");
    let actions = "/v1/projects/demo/instance_actions";
    for round in 0..10 {
        let action = ["stop", "start"][round % 2];
        let act = |names: [&str; 2]| cloud.post(actions, json!({"action": action, "instances": names}));
        let (one, other) = tokio::join!(act(["web-0", "web-1"]), act(["web-3", "web-4"]));
        one.expect(202);
        other.expect(202);
    }
}
