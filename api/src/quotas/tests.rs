//! Limits through the router, and what the database makes of whatever changes the rows that count.

mod races;

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::Resource;
use super::store::{Drift, drift};
use crate::testing::TestCloud;

const QUOTAS: &str = "/v1/projects/demo/quotas";
const DEFAULTS: &str = "/v1/quota_defaults";
const INSTANCES: &str = "/v1/projects/demo/instances";

async fn patch(cloud: &TestCloud, path: &str, body: Value) -> crate::testing::Answer {
    cloud.call(Method::PATCH, path, Some(body)).await
}

async fn execute(cloud: &TestCloud, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.map(drop)
}

/// Limit, usage and source of one resource of the project `demo`.
async fn quota(cloud: &TestCloud, resource: &str) -> (i64, i64, String) {
    let quotas = cloud.get(QUOTAS).await.expect(200);
    let quota = quotas["items"].as_array().unwrap().iter().find(|quota| quota["resource"] == resource);
    let quota = quota.unwrap_or_else(|| panic!("no {resource} in {quotas}"));
    let number = |field: &str| quota[field].as_i64().unwrap();
    (number("limit"), number("used"), quota["source"].as_str().unwrap().to_owned())
}

fn instance(name: &str) -> Value {
    json!({"name": name, "image": "image", "instance_type": "tiny"})
}

/// Usage is the recount.
async fn assert_exact(cloud: &TestCloud) {
    let drifts = drift(&mut cloud.app.pool.acquire().await.unwrap()).await.unwrap();
    assert_eq!(drifts, []);
}

#[tokio::test]
async fn the_database_and_the_code_know_the_same_resources() {
    let cloud = TestCloud::start().await;
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT resource FROM quota_defaults").fetch_all(&cloud.app.pool).await.unwrap();
    assert_eq!(stored.len(), Resource::ALL.len());
    assert!(stored.iter().all(|resource| Resource::parse(resource).is_some()), "{stored:?}");
    for resource in Resource::ALL {
        assert_eq!(serde_json::to_value(resource).unwrap(), resource.as_str());
    }
}

#[tokio::test]
async fn defaults_hold_until_a_project_has_limits_of_its_own() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let own = |source: &str| source.to_owned();
    assert_eq!(quota(&cloud, "vcpus").await, (40, 0, own("default")));
    assert_eq!(quota(&cloud, "images").await, (50, 1, own("default")));

    patch(&cloud, DEFAULTS, json!({"vcpus": 30, "images": -1})).await.expect(200);
    let changed = patch(&cloud, QUOTAS, json!({"vcpus": 7, "memory_mib": -1})).await.expect(200);
    assert_eq!(changed["items"][1], json!({"resource": "vcpus", "limit": 7, "used": 0, "source": "project"}));
    assert_eq!(quota(&cloud, "vcpus").await, (7, 0, own("project")));
    assert_eq!(quota(&cloud, "memory_mib").await, (-1, 0, own("project")));
    assert_eq!(quota(&cloud, "images").await, (-1, 1, own("default")));

    patch(&cloud, QUOTAS, json!({"vcpus": null})).await.expect(200);
    assert_eq!(quota(&cloud, "vcpus").await, (30, 0, own("default")));
    // A new project has them, too.
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    let other = cloud.get("/v1/projects/other/quotas").await.expect(200);
    assert_eq!(other["items"].as_array().unwrap().len(), Resource::ALL.len());
    assert_eq!(other["items"][1]["limit"], 30);
}

#[tokio::test]
async fn wrong_limits_are_refused_at_the_field() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let cases = [
        (QUOTAS, json!({"cats": 1}), "/cats"),
        (QUOTAS, json!({"a/b": 1}), "/a~1b"),
        (QUOTAS, json!({"vcpus": -2}), "/vcpus"),
        (QUOTAS, json!({"vcpus": 1.5}), "/vcpus"),
        (QUOTAS, json!({"vcpus": "many"}), "/vcpus"),
        (QUOTAS, json!({"vcpus": 1_i64 << 53}), "/vcpus"),
        (DEFAULTS, json!({"vcpus": null}), "/vcpus"),
        (DEFAULTS, json!({"cats": 1}), "/cats"),
    ];
    for (path, body, pointer) in cases {
        let problem = patch(&cloud, path, body.clone()).await.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    assert_eq!(quota(&cloud, "vcpus").await.0, 40);
}

#[tokio::test]
async fn an_owner_reads_the_quotas_and_does_not_raise_them() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let bearer = cloud.user("olga", false).await;
    let attach = "INSERT INTO policy_attachments (id, policy_id, principal_id, project_id, created_at)
                  SELECT gen_random_uuid(), o.id, p.id, j.id, j.created_at
                  FROM policies o, principals p, projects j WHERE o.name = 'project-owner' AND p.name = 'olga'";
    execute(&cloud, attach).await.unwrap();
    let headers = [("authorization", bearer.as_str())];
    let call = async |method: Method, path: &str, body| cloud.call_with(method, path, &headers, body).await;
    call(Method::GET, QUOTAS, None).await.expect(200);
    let refused = call(Method::PATCH, QUOTAS, Some(json!({"vcpus": 99}))).await;
    refused.expect_problem(403, "forbidden");
    call(Method::GET, DEFAULTS, None).await.expect_problem(403, "forbidden");
    assert_eq!(quota(&cloud, "vcpus").await.0, 40);
    patch(&cloud, QUOTAS, json!({"vcpus": 99})).await.expect(200);
    let records = cloud.get("/v1/projects/demo/audit_records?limit=1").await.expect(200);
    let record =
        cloud.get(&format!("/v1/audit_records/{}", records["items"][0]["id"].as_str().unwrap())).await;
    let record = record.expect(200);
    let limit = |side: &str| record[side]["items"][1]["limit"].clone();
    assert_eq!(
        (record["action"].as_str(), limit("before"), limit("after")),
        (Some("quota:UpdateQuotas"), json!(40), json!(99))
    );
}

#[tokio::test]
async fn limits_have_versions_of_their_own() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for path in [QUOTAS, DEFAULTS] {
        let tag = cloud.get(path).await.headers["etag"].to_str().unwrap().to_owned();
        // Usage is no change of the limits.
        cloud.post(INSTANCES, instance(if path == QUOTAS { "a" } else { "b" })).await.expect(202);
        let change = async |limit: i64| {
            let body = json!({"vcpus": limit});
            cloud.call_with(Method::PATCH, path, &[("if-match", &tag)], Some(body)).await
        };
        let dry = format!("{path}?dry_run=true");
        patch(&cloud, &dry, json!({"vcpus": 1})).await.expect(200);
        change(11).await.expect(200);
        change(12).await.expect_problem(412, "precondition_failed");
        let quotas = cloud.get(path).await.expect(200);
        assert_eq!(quotas["items"][1]["limit"], 11, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_names_every_limit_that_is_in_the_way() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let big = json!({"name": "big", "vcpus": 4, "memory_mib": 2048, "root_disk_gib": 10});
    cloud.post("/v1/instance_types", big).await.expect(201);
    cloud.post(INSTANCES, instance("first")).await.expect(202);
    patch(&cloud, QUOTAS, json!({"vcpus": 4, "memory_mib": 2048, "disk_gib": 11})).await.expect(200);
    let second = json!({"name": "second", "image": "image", "instance_type": "big"});
    for query in ["", "?dry_run=true"] {
        let refused = cloud.post(&format!("{INSTANCES}{query}"), second.clone()).await;
        let problem = refused.expect_problem(409, "quota_exceeded");
        let expected = json!([
            {"resource": "memory_mib", "limit": 2048, "used": 256, "asked": 2048},
            {"resource": "vcpus", "limit": 4, "used": 1, "asked": 4},
        ]);
        assert_eq!(problem["quota"], expected, "{query}");
        assert_eq!(
            problem["detail"],
            "memory_mib: the limit is 2048, 256 are used, 2048 more were asked for; \
             vcpus: the limit is 4, 1 are used, 4 more were asked for; \
             ask an operator to raise the limit, or delete something"
        );
    }
    patch(&cloud, QUOTAS, json!({"images": 1})).await.expect(200);
    let image = cloud.post("/v1/projects/demo/images", json!({"name": "new", "format": "raw"})).await;
    let problem = image.expect_problem(409, "quota_exceeded");
    assert_eq!(problem["quota"], json!([{"resource": "images", "limit": 1, "used": 1, "asked": 1}]));
    patch(&cloud, QUOTAS, json!({"service_accounts": 1})).await.expect(200);
    let accounts = "/v1/projects/demo/service_accounts";
    cloud.post(accounts, json!({"name": "robot"})).await.expect(201);
    cloud.post(accounts, json!({"name": "other"})).await.expect_problem(409, "quota_exceeded");
    // Users are not in a project, and count nowhere.
    cloud.user("ursula", false).await;
    cloud.delete(&format!("{accounts}/robot")).await.expect(204);
    cloud.post(accounts, json!({"name": "other"})).await.expect(201);
    assert_exact(&cloud).await;
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_used() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(INSTANCES, instance("first")).await.expect(202);
    patch(&cloud, QUOTAS, json!({"disk_gib": -1})).await.expect(200);
    let plan = cloud.post(&format!("{INSTANCES}?dry_run=true"), instance("second")).await.expect(200);
    let expected = json!([
        {"resource": "instances", "limit": 20, "used": 1, "after": 2},
        {"resource": "vcpus", "limit": 40, "used": 1, "after": 2},
        {"resource": "memory_mib", "limit": 81920, "used": 256, "after": 512},
        {"resource": "disk_gib", "limit": -1, "used": 1, "after": 2},
        {"resource": "volumes", "limit": 100, "used": 1, "after": 2},
        {"resource": "ports", "limit": 100, "used": 1, "after": 2},
    ]);
    assert_eq!(plan["plan"]["quota"], expected);
    assert_eq!(quota(&cloud, "instances").await.1, 1);
}

#[tokio::test]
async fn a_lowered_limit_takes_nothing_away_and_lets_everything_go() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    for name in ["a", "b"] {
        cloud.post(INSTANCES, instance(name)).await.expect(202);
    }
    patch(&cloud, QUOTAS, json!({"instances": 0, "vcpus": 0, "images": 0})).await.expect(200);
    cloud.post(INSTANCES, instance("c")).await.expect_problem(409, "quota_exceeded");
    patch(&cloud, &format!("{INSTANCES}/a"), json!({"name": "renamed"})).await.expect(200);
    cloud.delete(&format!("{INSTANCES}/renamed")).await.expect(202);
    assert_eq!(quota(&cloud, "vcpus").await.1, 1);
    cloud.delete(&format!("{INSTANCES}/b")).await.expect(202);
    cloud.delete("/v1/projects/demo/images/image").await.expect(204);
    assert_eq!((quota(&cloud, "vcpus").await.1, quota(&cloud, "images").await.1), (0, 0));
    cloud.delete("/v1/projects/demo").await.expect(204);
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM project_quotas").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn whatever_statement_changes_a_row_is_charged() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    for name in ["a", "b"] {
        cloud.post(INSTANCES, instance(name)).await.expect(202);
    }
    patch(&cloud, QUOTAS, json!({"vcpus": 6})).await.expect(200);
    execute(&cloud, "UPDATE instances SET vcpus = 3").await.unwrap();
    assert_eq!(quota(&cloud, "vcpus").await.1, 6);
    let refused = execute(&cloud, "UPDATE instances SET vcpus = 4 WHERE name = 'a'").await.unwrap_err();
    let limits = super::exceeded_limits(&refused).expect("a refusal");
    assert_eq!((limits[0].used, limits[0].asked), (6, 1));

    // What grows is refused, what shrinks is not, also in the same statement and beyond the limit.
    patch(&cloud, QUOTAS, json!({"vcpus": 1, "memory_mib": 4096})).await.expect(200);
    execute(&cloud, "UPDATE instances SET vcpus = 2, memory_mib = 1024").await.unwrap();
    assert_eq!((quota(&cloud, "vcpus").await.1, quota(&cloud, "memory_mib").await.1), (4, 2048));
    // Changes that do not count cost nobody a lock.
    let mut other = cloud.app.begin().await.unwrap();
    sqlx::query("SELECT FROM project_quotas FOR UPDATE").execute(&mut *other).await.unwrap();
    execute(&cloud, "UPDATE instances SET observed_at = created_at, vcpus = vcpus").await.unwrap();
    other.rollback().await.unwrap();

    execute(&cloud, "WITH gone AS (DELETE FROM volumes RETURNING layer_id) DELETE FROM layers WHERE id IN (SELECT layer_id FROM gone)")
        .await
        .unwrap();
    assert_eq!((quota(&cloud, "volumes").await.1, quota(&cloud, "disk_gib").await.1), (0, 0));
    execute(&cloud, "UPDATE instances SET project_id = (SELECT id FROM projects WHERE name = 'other')")
        .await
        .unwrap();
    assert_eq!((quota(&cloud, "instances").await.1, quota(&cloud, "vcpus").await.1), (0, 0));
    assert_exact(&cloud).await;
    execute(&cloud, "SELECT release_ports(array_agg(id), '{}', now()) FROM instances; DELETE FROM instances")
        .await
        .unwrap();
    assert_exact(&cloud).await;
}

#[tokio::test]
async fn a_later_resource_counts_what_is_there_and_what_comes() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "other"})).await.expect(201);
    cloud.post(INSTANCES, instance("a")).await.expect(202);
    let later = "INSERT INTO quota_defaults (resource, limit_value) VALUES ('operations', 2);
                 CALL count_in_quota('operations', 'operations');
                 CALL count_in_quota('disk_gib', 'images', 'generation')";
    execute(&cloud, later).await.unwrap();
    let used = async |resource: &'static str| -> Vec<i64> {
        let sql = "SELECT used FROM project_quotas q JOIN projects p ON p.id = project_id
                   WHERE resource = $1 ORDER BY p.name";
        sqlx::query_scalar(sql).bind(resource).fetch_all(&cloud.app.pool).await.unwrap()
    };
    assert_eq!(used("operations").await, [1, 0]);
    // The instance's disk, and the generation of the image, which has its content.
    assert_eq!(used("disk_gib").await, [1 + 2, 0]);
    execute(&cloud, "UPDATE images SET generation = 5").await.unwrap();
    cloud.delete(&format!("{INSTANCES}/a")).await.expect(202);
    assert_eq!(used("disk_gib").await, [5, 0]);
    assert_eq!(used("operations").await, [2, 0]);
    assert_exact(&cloud).await;
}

#[tokio::test]
async fn tampering_is_found_by_counting_again() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post(INSTANCES, instance("a")).await.expect(202);
    assert_exact(&cloud).await;
    let project: Uuid =
        sqlx::query_scalar("SELECT id FROM projects").fetch_one(&cloud.app.pool).await.unwrap();
    execute(&cloud, "UPDATE project_quotas SET used = used + 2 WHERE resource = 'vcpus'").await.unwrap();
    execute(&cloud, "DELETE FROM project_quotas WHERE resource = 'images'").await.unwrap();
    let drifts = drift(&mut cloud.app.pool.acquire().await.unwrap()).await.unwrap();
    let wrong = |resource: &str, used, counted| Drift {
        project: project.into(),
        resource: resource.to_owned(),
        used,
        counted,
    };
    assert_eq!(drifts, [wrong("images", 0, 1), wrong("vcpus", 3, 1)]);
}
