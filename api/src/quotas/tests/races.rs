//! Many at once: the limit is exact, usage is exact, and nobody is locked out.

use futures_util::future::{join, join_all, try_join_all};
use serde_json::json;

use super::{INSTANCES, QUOTAS, assert_exact, execute, instance, patch, quota};
use crate::instances::place_pending;
use crate::testing::TestCloud;

#[tokio::test]
async fn of_a_hundred_creations_at_once_ten_succeed_when_ten_fit() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    patch(&cloud, QUOTAS, json!({"instances": 10})).await.expect(200);
    let create = async |number: usize| cloud.post(INSTANCES, instance(&format!("web-{number}"))).await;
    let answers = join_all((0..100).map(create)).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    for answer in &refused {
        let problem = answer.expect_problem(409, "quota_exceeded");
        assert_eq!(problem["quota"][0]["used"], 10);
    }
    assert_eq!((made.len(), refused.len()), (10, 90));
    assert_eq!(quota(&cloud, "instances").await.1, 10);
    assert_exact(&cloud).await;
}

#[tokio::test]
async fn creations_and_deletions_at_once_leave_exact_usage() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    patch(&cloud, QUOTAS, json!({"instances": 6, "vcpus": 5})).await.expect(200);
    let (mut made, mut refused) = (0, 0);
    for round in 0..6 {
        let calls = (0..24).map(|number| {
            let (cloud, name) = (&cloud, format!("web-{}", (number + round) % 8));
            async move {
                if number % 3 == 0 {
                    cloud.delete(&format!("{INSTANCES}/{name}")).await
                } else {
                    cloud.post(INSTANCES, instance(&name)).await
                }
            }
        });
        // Counting goes on meanwhile, and is never wrong.
        let counting = async {
            for _ in 0..10 {
                assert_exact(&cloud).await;
            }
        };
        for answer in join(join_all(calls), counting).await.0 {
            match answer.status.as_u16() {
                202 => made += 1,
                404 => {}
                409 => refused += usize::from(answer.json()["code"] == "quota_exceeded"),
                _ => panic!("{answer:?}"),
            }
        }
        assert!(quota(&cloud, "vcpus").await.1 <= 5);
        assert_exact(&cloud).await;
    }
    assert!(made > 10 && refused > 10, "{made} made, {refused} refused");
}

#[tokio::test]
async fn no_order_of_projects_and_tables_locks_anybody_out() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for name in ["a", "b"] {
        cloud.post(INSTANCES, instance(name)).await.expect(202);
    }
    for number in 0..6 {
        cloud.post("/v1/projects", json!({"name": format!("p{number}")})).await.expect(201);
    }
    // Statements over all projects, in both orders; and transactions over two tables of one project, in both
    // orders.
    let images = |order: &str, name: &str| {
        format!(
            "INSERT INTO images (id, project_id, name, description, labels, architecture, format, generation,
                                 created_at, updated_at)
             SELECT gen_random_uuid(), p.id, '{name}' || gen_random_uuid(), '', '{{}}', 'x86_64', 'raw', 1,
                    p.created_at, p.created_at FROM projects p {order}"
        )
    };
    let image = images("WHERE name = 'demo'", "one");
    let writers = [
        images("ORDER BY p.id ASC", "up"),
        images("ORDER BY p.id DESC", "down"),
        "DELETE FROM images WHERE name LIKE 'up%' OR name LIKE 'down%'".to_owned(),
        format!("BEGIN; UPDATE instances SET vcpus = 3 - vcpus WHERE name = 'a'; {image}; COMMIT"),
        format!("BEGIN; {image}; UPDATE instances SET vcpus = 3 - vcpus WHERE name = 'b'; COMMIT"),
    ];
    patch(&cloud, "/v1/quota_defaults", json!({"images": -1})).await.expect(200);
    try_join_all(writers.iter().map(|sql| {
        let cloud = &cloud;
        async move {
            for _ in 0..20 {
                execute(cloud, sql).await?;
            }
            Ok::<_, sqlx::Error>(())
        }
    }))
    .await
    .unwrap();
    assert_exact(&cloud).await;
}

/// Does something while another transaction has charged and then reserves, as growing a volume does: it has to wait for
/// that before it locks a host.
async fn while_somebody_grows<T>(cloud: &TestCloud, deed: impl Future<Output = T>) -> T {
    let mut growing = cloud.app.begin().await.unwrap();
    let charge = "SELECT FROM project_quotas ORDER BY project_id, resource FOR NO KEY UPDATE";
    sqlx::query(charge).execute(&mut *growing).await.unwrap();
    let reserve = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..1000 {
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&cloud.app.pool).await.unwrap();
            if waiting > 0 {
                let reserved = sqlx::query("SELECT FROM hosts FOR NO KEY UPDATE NOWAIT");
                reserved.execute(&mut *growing).await.expect("who waits for a charge holds a host");
                return growing.commit().await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("nothing was charged");
    };
    join(deed, reserve).await.0
}

#[tokio::test]
async fn nobody_holds_a_host_and_waits_for_a_quota() {
    const VOLUMES: &str = "/v1/projects/demo/volumes";
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let mut body = instance("web");
    body["volumes"] = json!([{"size_gib": 1, "name": "data"}]);
    let web = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;

    let clone = json!({"name": "twin", "source": {"instance": "web"}});
    while_somebody_grows(&cloud, cloud.post(INSTANCES, clone)).await.expect(202);
    cloud.delete(&format!("{INSTANCES}/twin")).await.expect(202);
    cloud.post(&format!("{INSTANCES}/web/stop"), json!({})).await.expect(202);
    let (generation, _) = host.disks(&web["id"]).await.unwrap();
    host.report(&web["id"], generation, 1, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.post("/v1/projects/demo/snapshots", json!({"name": "snap", "volume": "data"})).await.expect(201);
    for (name, of) in [
        ("copy", json!({"volume": "data"})),
        ("copy-2", json!({"volume": "copy"})),
        ("copy-3", json!({"snapshot": "snap"})),
    ] {
        let (generation, _) = host.disks(&web["id"]).await.unwrap();
        host.report(&web["id"], generation, 1, json!({"state": "stopped", "reason": "requested"})).await;
        let clone = json!({"name": name, "source": of});
        while_somebody_grows(&cloud, cloud.post(VOLUMES, clone)).await.expect(201);
    }

    cloud.delete(&format!("{VOLUMES}/copy-2")).await.expect(202);
    let page = host.desired(0).await;
    let orders = page["objects"].as_array().unwrap().iter().filter(|one| one["kind"] == "remove_layers");
    let orders: Vec<_> = orders.map(|one| one["removal_id"].clone()).collect();
    assert!(!orders.is_empty());
    while_somebody_grows(&cloud, host.report_removed(json!(orders))).await;
    let deleting = cloud.delete(&format!("{INSTANCES}/web")).await.expect(202);
    assert_eq!(deleting["state"], "deleting");
    let (page, web) = (host.desired(0).await, &web["id"]);
    let generation =
        page["objects"].as_array().unwrap().iter().find(|one| one["id"] == *web).unwrap()["generation"]
            .clone();
    let absent = host.report(web, generation.as_i64().unwrap(), 1, json!({"state": "absent"}));
    while_somebody_grows(&cloud, absent).await;
    cloud.get(&format!("{INSTANCES}/web")).await.expect_problem(404, "not_found");
    assert_exact(&cloud).await;
}
