//! Calls that need the same things at the same time lock them in one order.

use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{PORTS, findings, port};
use crate::testing::{Answer, TestCloud, until_waiting};

/// Makes both calls, the second when the first waits for a lock that `sql` holds until then.
async fn queued(
    cloud: &TestCloud,
    sql: &'static str,
    first: impl Future<Output = Answer>,
    second: impl Future<Output = Answer>,
) -> [Answer; 2] {
    let mut holder = cloud.app.pool.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *holder).await.unwrap();
    let second = async {
        until_waiting(&cloud.app.pool, 1).await;
        second.await
    };
    let release = async {
        until_waiting(&cloud.app.pool, 2).await;
        holder.commit().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(first, second, release);
    [first, second]
}

const QUOTAS: &str = "SELECT FROM project_quotas FOR UPDATE";

#[tokio::test]
async fn a_subnet_and_a_network_are_deleted_while_ports_are_made() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for what in ["subnets", "networks"] {
        let name = format!("of-{what}");
        let body = json!({"name": name});
        cloud.post("/v1/projects/demo/networks", body).await.expect(201);
        let body = json!({"name": name, "network": name, "cidr": "10.1.0.0/24"});
        cloud.post("/v1/projects/demo/subnets", body).await.expect(201);
        let path = format!("/v1/projects/demo/{what}/{name}");
        let body = json!({"name": name, "network": name});
        let [made, deleted] =
            queued(&cloud, QUOTAS, cloud.post(PORTS, body.clone()), cloud.delete(&path)).await;
        made.expect(201);
        deleted.expect_problem(409, "in_use");
        cloud.delete(&format!("{PORTS}/{name}")).await.expect(204);
        let [deleted, made] = queued(&cloud, QUOTAS, cloud.delete(&path), cloud.post(PORTS, body)).await;
        deleted.expect(204);
        assert_eq!(made.status, if what == "subnets" { 201 } else { 422 }, "{made:?}");
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn two_instances_want_the_same_ports_in_another_order() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for name in ["a", "b"] {
        cloud.post(PORTS, port(name)).await.expect(201);
    }
    let create = async |name: &str, ports: [&str; 2]| {
        let networks = ports.map(|port| json!({"port": port}));
        let body = json!({"name": name, "image": "image", "instance_type": "tiny", "networks": networks});
        cloud.post("/v1/projects/demo/instances", body).await
    };
    let held = "SELECT FROM ports WHERE name = 'a' FOR UPDATE";
    let [first, second] = queued(&cloud, held, create("one", ["a", "b"]), create("two", ["b", "a"])).await;
    first.expect(202);
    second.expect_problem(409, "in_use");
}
