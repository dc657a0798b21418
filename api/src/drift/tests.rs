//! What hosts say differs, well and badly, with hosts that the test plays.

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::instances::place_pending;
use crate::testing::{Answer, TestCloud, TestHost};
use crate::verify;

async fn tell(host: &TestHost<'_>, differences: Value) -> Answer {
    let total = differences.as_array().map_or(0, Vec::len);
    let body = json!({"epoch": host.epoch, "total": total, "differences": differences});
    host.call(Method::POST, "/agent/v1/drift", Some(body)).await
}

fn of(code: &str, kind: &str, id: &Value, detail: &str) -> Value {
    json!({"code": code, "about": {"kind": kind, "id": id}, "detail": detail})
}

fn of_host(code: &str, detail: &str) -> Value {
    json!({"code": code, "about": {"kind": "host"}, "detail": detail})
}

async fn list(cloud: &TestCloud, query: &str) -> Vec<Value> {
    let page = cloud.get(&format!("/v1/drift{query}")).await.expect(200);
    page["items"].as_array().unwrap().clone()
}

async fn details(cloud: &TestCloud) -> Vec<String> {
    let all = list(cloud, "").await;
    let mut details: Vec<_> = all.iter().map(|one| one["detail"].as_str().unwrap().to_owned()).collect();
    details.sort();
    details
}

async fn findings(cloud: &TestCloud) -> Vec<(String, String)> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let drift = report.findings.into_iter().filter(|one| {
        one.code.contains("drift") || one.code.contains("two_hosts") || one.code.starts_with("operation")
    });
    drift.map(|one| (one.code, one.detail)).collect()
}

/// It is heard of now.
async fn beat(cloud: &TestCloud, host: &TestHost<'_>) {
    host.beat(json!([])).await.expect(200);
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
}

/// A cloud with an instance on its host.
async fn furnished(cloud: &TestCloud) -> (TestHost<'_>, Value) {
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny"});
    let made = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    (host, made["id"].clone())
}

#[tokio::test]
async fn a_difference_says_what_it_is_about_since_when_and_who_mends_it() {
    let cloud = TestCloud::start().await;
    let (host, web) = furnished(&cloud).await;
    let before = cloud.get("/v1/hosts/host-1").await.expect(200);
    assert_eq!(
        (&before["drift"], &before["drift_looked_at"]),
        (&Value::Null, &Value::Null),
        "nobody has looked"
    );

    let gone =
        of("instance_file_missing", "instance", &web, "stop and start it: it runs, but its seed is gone");
    let answer =
        tell(&host, json!([gone, of_host("foreign_file", "remove instances/x from the pool")])).await;
    assert_eq!(answer.expect(200), json!({"look_seconds": 60}));
    let all = list(&cloud, "").await;
    assert_eq!(all.len(), 2);
    let one = all.iter().find(|one| one["code"] == "instance_file_missing").unwrap();
    assert_eq!(one["host"], json!({"id": host.id.to_string(), "name": "host-1"}));
    assert_eq!((&one["about"]["kind"], &one["about"]["id"]), (&json!("instance"), &web));
    assert_eq!((&one["about"]["name"], &one["about"]["project"]["name"]), (&json!("web"), &json!("demo")));
    assert_eq!(one["detail"], "stop and start it: it runs, but its seed is gone");
    assert!(one["repair"].as_str().unwrap().starts_with("an operator has to: "), "{one}");
    assert_eq!(one["since"], one["last_seen_at"]);
    let other = all.iter().find(|one| one["code"] == "foreign_file").unwrap();
    assert_eq!(other["about"], json!({"kind": "host", "id": host.id.to_string(), "name": "host-1"}));
    let seen = cloud.get("/v1/hosts/host-1").await.expect(200);
    assert_eq!((&seen["drift"], &seen["drift_looked_at"]), (&json!(2), &one["since"]));

    for (query, found) in [
        ("?host=host-1", 2),
        ("?code=foreign_file", 1),
        ("?code=unknown_guest", 0),
        ("?kind=instance", 1),
        ("?kind=port", 0),
        ("?kind=host&code=foreign_file&host=host-1", 1),
    ] {
        assert_eq!(list(&cloud, query).await.len(), found, "{query}");
    }
    assert_eq!(list(&cloud, &format!("?host={}", host.id)).await.len(), 2);
    let refused = cloud.get("/v1/drift?host=nosuch").await.expect_problem(404, "not_found");
    assert_eq!(refused["detail"], "host: there is no such host");
    for wrong in ["?code=nonsense", "?kind=nonsense", "?limit=0", "?host=%00", "?colour=red"] {
        cloud.get(&format!("/v1/drift{wrong}")).await.expect_problem(400, "invalid_query");
    }
    let first = cloud.get("/v1/drift?limit=1").await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = cloud.get(&format!("/v1/drift?limit=1&cursor={cursor}")).await.expect(200);
    assert_ne!(first["items"][0]["id"], second["items"][0]["id"]);
    assert_eq!(second.get("next_cursor"), None);
}

#[tokio::test]
async fn a_report_takes_the_place_of_the_one_before_and_what_stays_keeps_its_age() {
    let cloud = TestCloud::start().await;
    let host = cloud.join_host("host-1").await;
    let [a, b, c] = ["a", "b", "c"].map(|detail| of_host("packet_rules_differ", detail));
    tell(&host, json!([a, b])).await.expect(200);
    let ages = async || {
        let mut rows = list(&cloud, "").await;
        rows.sort_by_key(|row| row["detail"].to_string());
        rows.iter().map(|row| (row["id"].clone(), row["since"].clone())).collect::<Vec<_>>()
    };
    let before = ages().await;
    // The size and time of what is written tell whether anything is.
    let written = async || {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        sqlx::query_scalar::<_, String>(
            "SELECT string_agg(xmin::text, ',' ORDER BY id) FROM (
                 SELECT host_id AS id, xmin FROM host_looks UNION ALL SELECT id, xmin FROM drift) rows",
        )
        .fetch_one(&mut *conn)
        .await
        .unwrap()
    };
    let first = written().await;
    cloud.pass(60);
    tell(&host, json!([b, a])).await.expect(200);
    assert_eq!(written().await, first, "nothing has changed, and something was written");
    cloud.pass(60);
    tell(&host, json!([c, a])).await.expect(200);
    let after = ages().await;
    assert_eq!(details(&cloud).await, ["a", "c"]);
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1].1, before[0].1);
    assert_eq!(cloud.get("/v1/hosts/host-1").await.expect(200)["drift"], 2);

    // The time of a look that finds the same is written now and then.
    let looked = async || cloud.get("/v1/hosts/host-1").await.expect(200)["drift_looked_at"].clone();
    let at = looked().await;
    cloud.pass(299);
    tell(&host, json!([c, a])).await.expect(200);
    assert_eq!(looked().await, at);
    cloud.pass(1);
    tell(&host, json!([c, a])).await.expect(200);
    assert_ne!(looked().await, at);
    assert_eq!(ages().await, after);
    tell(&host, json!([])).await.expect(200);
    assert_eq!(details(&cloud).await, Vec::<String>::new());
    assert_eq!(cloud.get("/v1/hosts/host-1").await.expect(200)["drift"], 0);

    // Two at once, and the end of the host.
    let (one, other) = tokio::join!(tell(&host, json!([a, b])), tell(&host, json!([a, b])));
    drop((one.expect(200), other.expect(200)));
    assert_eq!(details(&cloud).await, ["a", "b"]);
    cloud.call(Method::POST, "/v1/hosts/host-1/drain", Some(json!({}))).await;
    cloud.pass(600);
    cloud.sign_in_again().await;
    cloud.delete("/v1/hosts/host-1").await.expect(204);
    assert_eq!(details(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_host_may_say_is_bounded_clean_and_about_what_it_has() {
    let cloud = TestCloud::start().await;
    let (host, web) = furnished(&cloud).await;
    let other = cloud.join_host("host-2").await;
    let nowhere = json!(Uuid::from_u128(7));
    let ports = cloud.get("/v1/projects/demo/ports").await.expect(200);
    let port = ports["items"][0]["id"].clone();

    // Of another host's instances and ports it has nothing to say, unless they have left something here.
    let said = json!([
        of("instance_differs", "instance", &web, "mine?"),
        of("instance_differs", "instance", &nowhere, "nobody's"),
        of("network_device_differs", "port", &port, "my card?"),
        of("unknown_files", "instance", &web, "left"),
        of("unknown_files", "instance", &nowhere, "unknown"),
        of("invented_by_me", "instance", &web, "of a later release"),
        of_host("foreign_file", "\u{0}\n\u{7f}"),
    ]);
    tell(&other, said).await.expect(200);
    assert_eq!(details(&cloud).await, ["left", "unknown"]);
    let named = list(&cloud, "").await;
    let name = |detail: &str| &named.iter().find(|one| one["detail"] == detail).unwrap()["about"]["name"];
    assert_eq!((name("left"), name("unknown")), (&json!("web"), &Value::Null));
    assert_eq!(cloud.get("/v1/hosts/host-2").await.expect(200)["drift"], 7, "what is left out is counted");
    let mine = json!([
        of("instance_differs", "instance", &web, "mine"),
        of("network_device_differs", "port", &port, "my card")
    ]);
    tell(&host, mine).await.expect(200);
    assert_eq!(list(&cloud, "?host=host-1").await.len(), 2);
    tell(&other, json!([])).await.expect(200);

    let long = format!("a\u{0}\n\u{1b}[31m{}", "ä".repeat(5000));
    tell(&host, json!([of_host("foreign_file", &long)])).await.expect(200);
    let stored = details(&cloud).await;
    assert!(stored[0].starts_with("a[31mä") && stored[0].chars().count() == 500, "{stored:?}");

    let before = details(&cloud).await;
    let many: Vec<_> = (0..201).map(|number| of_host("foreign_file", &number.to_string())).collect();
    let refused = tell(&host, json!(many)).await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["pointer"], "/differences");
    for wrong in [
        json!([of("foreign_file", "planet", &web, "x")]),
        json!([of("foreign_file", "instance", &json!("' OR 1=1"), "x")]),
        json!([{"code": "foreign_file", "about": {"kind": "host"}, "detail": "x", "repair": "pay me"}]),
        json!([{"code": "foreign_file", "about": {"kind": "host"}}]),
        json!({}),
    ] {
        let refused = tell(&host, wrong.clone()).await;
        assert!(refused.status.is_client_error(), "{wrong}: {}", refused.status);
    }
    let stale = json!({"epoch": host.epoch - 1, "total": 0, "differences": []});
    host.call(Method::POST, "/agent/v1/drift", Some(stale)).await.expect_problem(409, "stale_epoch");
    let nobody = json!({"epoch": 1, "total": 0, "differences": []});
    cloud
        .agent_call(None, Method::POST, "/agent/v1/drift", Some(nobody))
        .await
        .expect_problem(401, "unauthenticated");
    assert_eq!(details(&cloud).await, before);

    // As much as it may.
    let most: Vec<_> = (0..200).map(|number| of_host("foreign_file", &number.to_string())).collect();
    let body = json!({"epoch": host.epoch, "total": u32::MAX, "differences": most});
    host.call(Method::POST, "/agent/v1/drift", Some(body)).await.expect(200);
    assert_eq!(list(&cloud, "?limit=500").await.len(), 200);
    assert_eq!(cloud.get("/v1/hosts/host-1").await.expect(200)["drift"], i32::MAX);
}

#[tokio::test]
async fn only_operators_see_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let member = cloud.user("member", false).await;
    let headers = [("authorization", member.as_str())];
    cloud.call_with(Method::GET, "/v1/drift", &headers, None).await.expect_problem(403, "forbidden");
    let headers = [("authorization", "Bearer nonsense")];
    cloud.call_with(Method::GET, "/v1/drift", &headers, None).await.expect_problem(401, "invalid_token");
}

#[tokio::test]
async fn verify_names_what_nobody_mends_and_hosts_that_do_not_look() {
    let cloud = TestCloud::start().await;
    let (host, web) = furnished(&cloud).await;
    let old = cloud.join_host("host-2").await;
    let (first, second) =
        (of_host("foreign_file", "remove instances/x"), of_host("pool_unusable", "make it usable"));
    tell(&host, json!([first])).await.expect(200);
    cloud.pass(1);
    tell(&host, json!([second, first])).await.expect(200);
    beat(&cloud, &host).await;
    assert_eq!(findings(&cloud).await, []);
    // Nothing was heard for an hour: how should it have looked?
    cloud.pass(3601);
    beat(&cloud, &host).await;
    let unknown = async || findings(&cloud).await.into_iter().any(|(code, _)| code == "host_drift_unknown");
    assert!(!unknown().await);
    for _ in 0..60 {
        cloud.pass(15);
        beat(&cloud, &host).await;
    }
    assert!(!unknown().await);
    cloud.pass(1);
    beat(&cloud, &host).await;
    beat(&cloud, &old).await;
    // Of the operations of the instance nothing is asked here, and an agent that never looked is one of an earlier release.
    let drift = async || {
        let all = findings(&cloud).await;
        all.into_iter().filter(|(code, _)| !code.starts_with("operation")).collect::<Vec<_>>()
    };
    let found = drift().await;
    assert_eq!(
        found.iter().map(|one| one.0.as_str()).collect::<Vec<_>>(),
        ["host_drift", "host_drift_unknown"]
    );
    assert!(
        found[0].1.contains("in 2 things") && found[0].1.contains("foreign_file: remove instances/x"),
        "{found:?}"
    );
    assert!(
        found[1].1.contains("host-1 is heard of, and its agent has not looked for 75 minutes"),
        "{found:?}"
    );
    tell(&host, json!([second])).await.expect(200);
    let found = drift().await;
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("in 1 things") && found[0].1.contains("pool_unusable"), "{found:?}");
    tell(&host, json!([])).await.expect(200);
    assert_eq!(drift().await, []);

    // A guest that runs on two hosts is said at once.
    tell(&old, json!([of("unknown_domain", "instance", &web, "decide about its domain")])).await.expect(200);
    assert_eq!(drift().await, []);
    tell(&old, json!([of("unknown_guest", "instance", &web, "decide about its domain")])).await.expect(200);
    let found = drift().await;
    assert_eq!(found[0].0, "instance_on_two_hosts");
    assert!(found[0].1.contains("runs on host-2") && found[0].1.contains("is on host-1"), "{found:?}");
}

#[tokio::test]
async fn verify_names_operations_that_do_not_end() {
    let cloud = TestCloud::start().await;
    let (host, _) = furnished(&cloud).await;
    let codes = async || findings(&cloud).await.into_iter().map(|(code, _)| code).collect::<Vec<_>>();
    beat(&cloud, &host).await;
    assert_eq!(codes().await, Vec::<String>::new());
    cloud.pass(11 * 60);
    assert_eq!(codes().await, Vec::<String>::new(), "its host is silent, and that is another matter");
    beat(&cloud, &host).await;
    let found = findings(&cloud).await;
    assert_eq!(found[0].0, "operation_stalled");
    assert!(found[0].1.contains("create_instance of web has made no step for 11 minutes"), "{found:?}");
    cloud.pass(10 * 60);
    assert_eq!(codes().await, ["operation_overdue"]);
    crate::operations::expire(&cloud.app).await.unwrap();
    assert_eq!(codes().await, Vec::<String>::new());
}

#[tokio::test]
async fn verify_names_leases_that_nobody_holds() {
    let cloud = TestCloud::start().await;
    let (host, _) = furnished(&cloud).await;
    cloud.post("/v1/pools", json!({"name": "fast"})).await.expect(201);
    let codes = async || {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        let report = verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
        let codes = report.findings.into_iter().map(|one| one.code);
        codes.filter(|code| code.contains("lease")).collect::<Vec<_>>()
    };
    let seen = async |unchanged: u32, id: Uuid| {
        let leases = json!([{"pool": "fast", "host": id, "counter": 1, "unchanged_seconds": unchanged}]);
        let ready = json!({"state": "ready", "identity": Uuid::from_u128(1), "total_bytes": 1_i64 << 40,
            "free_bytes": 1_i64 << 39});
        let pools = json!([{"name": "fast", "state": ready}]);
        host.beat_with(json!({"seen_leases": leases, "shared_pools": pools})).await.expect(200);
        cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    };
    seen(1, host.id.as_uuid()).await;
    assert_eq!(codes().await, Vec::<String>::new());
    seen(600, Uuid::from_u128(9)).await;
    assert_eq!(codes().await, Vec::<String>::new(), "what is left of a host that was removed is no lease");
    seen(1, Uuid::from_u128(9)).await;
    assert_eq!(codes().await, ["pool_lease_of_stranger"]);
    seen(1, host.id.as_uuid()).await;

    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let lease = "UPDATE instances SET stop_at = $1, lease_due_at = $1, lease_principal_id = $2";
    let due = cloud.app.clock.now() + time::Duration::minutes(5);
    sqlx::query(lease).bind(due).bind(Uuid::from_u128(5)).execute(&mut *conn).await.unwrap();
    assert_eq!(codes().await, ["lease_held_by_nobody"]);
    cloud.pass(66 * 60);
    assert_eq!(codes().await, ["lease_held_by_nobody", "lease_lingers"]);
}
