//! What is written down, who reads it, and that no touch of it goes unnoticed.

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{ExpectedHead, Report, attest, verify};
use crate::testing::{TestCloud, request};

async fn records(cloud: &TestCloud, query: &str) -> Vec<Value> {
    let page = cloud.get(&format!("/v1/audit_records?limit=500{query}")).await.expect(200);
    page["items"].as_array().unwrap().clone()
}

async fn check(cloud: &TestCloud, expected: Option<&ExpectedHead>) -> Report {
    verify(&mut cloud.app.pool.acquire().await.unwrap(), expected).await.unwrap()
}

#[tokio::test]
async fn every_change_is_written_down_once_with_before_and_after() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let created = cloud.get("/v1/projects/demo").await.expect(200);
    let id = "0190a0a0-0000-7000-8000-0000000000aa";
    let patch = json!({"description": "new"});
    let headers = [("x-request-id", id), ("x-forwarded-for", "203.0.113.9")];
    cloud.call_with(Method::PATCH, "/v1/projects/demo", &headers, Some(patch)).await.expect(200);
    let written = records(&cloud, &format!("&request_id={id}")).await;
    let [record] = written.as_slice() else { panic!("{written:?}") };
    assert_eq!(record["action"], "project:UpdateProject");
    assert_eq!(record["resource"], "crn:cumulo:project:demo:project/demo");
    assert_eq!(record["resource_id"], created["id"]);
    assert_eq!(record["principal_name"], "admin");
    assert_eq!((&record["credential_kind"], &record["outcome"]), (&json!("session"), &json!("allowed")));
    // A header that no trusted proxy wrote says nothing.
    assert_eq!(record["source_address"], "127.0.0.1");
    assert_eq!(
        (&record["before"]["description"], &record["after"]["description"]),
        (&json!(""), &json!("new"))
    );

    // Dry runs, reads, refusals of the state and repetitions change nothing, so nothing is written.
    let before = records(&cloud, "").await.len();
    cloud.post("/v1/projects?dry_run=true", json!({"name": "other"})).await.expect(200);
    cloud.get("/v1/projects/demo").await.expect(200);
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect_problem(409, "name_taken");
    let once = async || {
        let headers = [("idempotency-key", "k")];
        cloud.call_with(Method::POST, "/v1/projects", &headers, Some(json!({"name": "once"}))).await
    };
    once().await.expect(201);
    once().await.expect(201);
    assert_eq!(records(&cloud, "").await.len(), before + 1);
}

#[tokio::test]
async fn sign_ins_are_written_down_and_secrets_are_not() {
    let cloud = TestCloud::start().await;
    let wrong = json!({"username": "admin", "password": "hunter2-hunter2"}).to_string();
    cloud.send(request(Method::POST, "/v1/auth/login", &[], wrong)).await.expect(401);
    cloud.pass(1);
    let nobody = json!({"username": "nobody", "password": "hunter2-hunter2"}).to_string();
    cloud.send(request(Method::POST, "/v1/auth/login", &[], nobody)).await.expect(401);
    let failed = records(&cloud, "&action=iam:SignIn&outcome=failed").await;
    let names: Vec<_> = failed.iter().map(|record| record["principal_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["nobody", "admin"]);
    assert!(failed[0].get("principal_id").is_none() && failed[1].get("principal_id").is_some());
    assert_eq!(records(&cloud, "&action=iam:SignIn&outcome=allowed").await.len(), 1);

    let headers = [("idempotency-key", "token")];
    let token =
        cloud.call_with(Method::POST, "/v1/host_join_tokens", &headers, Some(json!({}))).await.expect(201);
    let secret = token["token"].as_str().unwrap();
    let again =
        cloud.call_with(Method::POST, "/v1/host_join_tokens", &headers, Some(json!({}))).await.expect(201);
    assert!(again.get("token").is_none(), "a repetition must not show the secret again");
    let everything = json!(records(&cloud, "").await).to_string();
    let password = cloud.credentials()["password"].as_str().unwrap();
    for secret in [secret, password, "hunter2", &cloud.token().await] {
        assert!(!everything.contains(secret));
    }
}

#[tokio::test]
async fn lists_filter_page_and_export() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.pass(60);
    for number in 0..5 {
        let project = json!({"name": format!("p{number}")});
        cloud.post("/v1/projects", project).await.expect(201);
        cloud.pass(60);
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/audit_records?action=project:CreateProject&limit=2{cursor}");
        let page = cloud.get(&path).await.expect(200);
        let names = page["items"].as_array().unwrap().iter();
        seen.extend(names.map(|item| item["after"]["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["p4", "p3", "p2", "p1", "p0", "demo"]);
    let since = records(&cloud, "&action=project:CreateProject&since=2026-06-01T12:04:00Z").await;
    assert_eq!(since.len(), 2);

    // A project's records are those in it, and nothing else.
    let of_demo = cloud.get("/v1/projects/demo/audit_records").await.expect(200);
    let actions: Vec<_> =
        of_demo["items"].as_array().unwrap().iter().map(|item| item["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["image:UploadImage", "image:CreateImage"]);
    let id = of_demo["items"][0]["id"].as_str().unwrap();
    cloud.get(&format!("/v1/projects/demo/audit_records/{id}")).await.expect(200);
    cloud.get(&format!("/v1/projects/p0/audit_records/{id}")).await.expect_problem(404, "not_found");
    cloud.get(&format!("/v1/audit_records/{id}")).await.expect(200);

    let export = cloud.get("/v1/audit_records/export?action=project:CreateProject").await;
    assert_eq!(export.headers["content-type"], "application/x-ndjson");
    let text = String::from_utf8(export.body).unwrap();
    let names: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["after"]["name"].clone())
        .collect();
    assert_eq!(json!(names), json!(["demo", "p0", "p1", "p2", "p3", "p4"]));
    cloud.get("/v1/audit_records?outcome=perhaps").await.expect_problem(400, "invalid_query");
}

/// A log of some length, every record linked.
async fn linked_log() -> TestCloud {
    let cloud = TestCloud::start().await;
    for number in 0..6 {
        cloud.post("/v1/projects", json!({"name": format!("p{number}")})).await.expect(201);
        if number == 3 {
            attest(&cloud.app).await.unwrap();
        }
    }
    attest(&cloud.app).await.unwrap();
    let report = check(&cloud, None).await;
    assert_eq!((report.findings.len(), report.links, report.pending), (0, 7, 0), "{report:?}");
    cloud
}

/// What somebody with the database in their hands might do.
async fn tamper(cloud: &TestCloud, sql: &str) {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let conn: &mut PgConnection = &mut conn;
    for table in ["audit_records", "audit_chain", "audit_heads"] {
        let disable = format!("ALTER TABLE {table} DISABLE TRIGGER USER");
        sqlx::query(AssertSqlSafe(disable)).execute(&mut *conn).await.unwrap();
    }
    for statement in sql.split(';') {
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut *conn).await.unwrap();
    }
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_what_is_written() {
    let cloud = linked_log().await;
    for sql in [
        "UPDATE audit_records SET action = 'x'",
        "DELETE FROM audit_records",
        "TRUNCATE audit_records",
        "UPDATE audit_chain SET position = position + 1",
        "DELETE FROM audit_heads",
    ] {
        let refused = sqlx::query(sql).execute(&cloud.app.pool).await.unwrap_err();
        assert!(refused.to_string().contains("written once"), "{sql}: {refused}");
    }
}

#[tokio::test]
async fn every_kind_of_tampering_is_named() {
    let record_of = "(SELECT record_id FROM audit_chain WHERE position = 4)";
    let insert = "INSERT INTO audit_records SELECT gen_random_uuid(), at, project_id, request_id, principal_id, \
                  principal_name, credential_kind, credential_id, source_address, action, resource, resource_id, \
                  outcome, deciding, before, after FROM audit_records WHERE id = ";
    let cases = [
        (
            format!("UPDATE audit_records SET source_address = '10.0.0.1' WHERE id = {record_of}"),
            "audit_record_changed",
            4,
        ),
        (
            format!("UPDATE audit_records SET after = after || '{{\"name\": \"x\"}}' WHERE id = {record_of}"),
            "audit_record_changed",
            4,
        ),
        (format!("DELETE FROM audit_records WHERE id = {record_of}"), "audit_record_missing", 4),
        (format!("{insert} {record_of}"), "audit_record_inserted", 0),
        ("DELETE FROM audit_chain WHERE position = 4".to_owned(), "audit_link_missing", 4),
        ("DELETE FROM audit_chain WHERE position = 7".to_owned(), "audit_chain_truncated", 7),
        (
            "UPDATE audit_chain SET position = 100 WHERE position = 3; \
             UPDATE audit_chain SET position = 3 WHERE position = 4; \
             UPDATE audit_chain SET position = 4 WHERE position = 100"
                .to_owned(),
            "audit_record_changed",
            3,
        ),
        ("UPDATE audit_chain SET hash = sha256('x') WHERE position = 7".to_owned(), "audit_head_wrong", 7),
        (
            "UPDATE audit_heads SET signature = sha256('x') || sha256('y')".to_owned(),
            "audit_signature_wrong",
            5,
        ),
        ("DELETE FROM audit_heads WHERE position = 7".to_owned(), "audit_link_unsigned", 6),
    ];
    for (sql, code, position) in cases {
        let cloud = linked_log().await;
        tamper(&cloud, &sql).await;
        let report = check(&cloud, None).await;
        let first = report.findings.iter().find(|finding| finding.code == code);
        assert_eq!(first.map(|finding| finding.position), Some(position), "{sql}: {report:?}");
    }
}

#[tokio::test]
async fn a_head_that_was_kept_elsewhere_shows_a_log_that_was_rewritten_whole() {
    let cloud = linked_log().await;
    let head: ExpectedHead = check(&cloud, None).await.head.unwrap().parse().unwrap();
    assert!(check(&cloud, Some(&head)).await.findings.is_empty());
    // Everything from record 4 on is forgotten, and the notary signs the rest anew.
    tamper(
        &cloud,
        "DELETE FROM audit_records WHERE id IN (SELECT record_id FROM audit_chain WHERE position = 4); \
         DELETE FROM audit_chain; DELETE FROM audit_heads; \
         INSERT INTO audit_pending SELECT id FROM audit_records",
    )
    .await;
    attest(&cloud.app).await.unwrap();
    assert!(check(&cloud, None).await.findings.is_empty());
    let report = check(&cloud, Some(&head)).await;
    assert_eq!(report.findings[0].code, "audit_chain_truncated");
}

#[tokio::test]
async fn two_notaries_make_one_chain() {
    let cloud = TestCloud::start().await;
    let other = cloud.replica().await;
    cloud.token().await;
    let writes = (0..20).map(|number| cloud.post("/v1/projects", json!({"name": format!("p{number}")})));
    let notarise = async |cloud: &TestCloud| {
        for _ in 0..40 {
            attest(&cloud.app).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (answers, (), ()) =
        tokio::join!(futures_util::future::join_all(writes), notarise(&cloud), notarise(&other));
    answers.iter().for_each(|answer| drop(answer.expect(201)));
    attest(&cloud.app).await.unwrap();
    let report = check(&cloud, None).await;
    assert_eq!((report.findings.len(), report.links, report.pending), (0, 21, 0), "{report:?}");
}
