//! Policies through the router, decided by the real evaluator.

mod attachments;
mod conditions;
mod documents;
mod guides;
mod limits;
mod matrix;
mod renaming;
mod simulate;
mod sizes;
mod story;
mod ways_around;

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud, request};

/// A document with these statements.
#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn document(statements: Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// One that allows this everywhere.
fn allowing(action: &str) -> Value {
    document(json!([{"Sid": "Allowing", "Effect": "Allow", "Action": action, "Resource": "*"}]))
}

/// Makes a policy below this path and gives its id.
async fn policy(cloud: &TestCloud, path: &str, name: &str, document: Value) -> String {
    let body = json!({"name": name, "document": document});
    let made = cloud.post(&format!("{path}/policies"), body).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

/// Attaches a policy below this path and gives the attachment's id.
async fn attach(cloud: &TestCloud, path: &str, policy: &str, kind: &str, subject: &str) -> String {
    let body = json!({"policy": policy, kind: subject});
    let made = cloud.post(&format!("{path}/policy_attachments"), body).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

/// Calls as somebody else.
async fn call_as(cloud: &TestCloud, bearer: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    cloud.call_with(method, path, &[("authorization", bearer)], body).await
}

/// Calls as somebody else, from this address.
async fn call_from(
    cloud: &TestCloud,
    address: &str,
    bearer: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    cloud.send_from(address, request(method, path, &[("authorization", bearer)], body)).await
}

/// A group with these users.
async fn make_group(cloud: &TestCloud, name: &str, members: &[&str]) {
    cloud.post("/v1/groups", json!({"name": name})).await.expect(201);
    for member in members {
        cloud.call(Method::PUT, &format!("/v1/groups/{name}/members/{member}"), None).await.expect(200);
    }
}

/// A service account of this project; gives its id and `Bearer …` of a key.
async fn make_service_account(cloud: &TestCloud, project: &str, name: &str) -> (String, String) {
    let accounts = format!("/v1/projects/{project}/service_accounts");
    let made = cloud.post(&accounts, json!({"name": name})).await.expect(201);
    let key = cloud.post(&format!("{accounts}/{name}/api_keys"), json!({})).await.expect(201);
    (made["id"].as_str().unwrap().to_owned(), format!("Bearer {}", key["key"].as_str().unwrap()))
}

/// `Bearer …` of a key that a user makes, with this policy.
async fn make_key(cloud: &TestCloud, bearer: &str, user: &str, policy: Option<Value>) -> String {
    let body = policy.map_or(json!({}), |policy| json!({"policy": policy}));
    let path = format!("/v1/users/{user}/api_keys");
    let made = call_as(cloud, bearer, Method::POST, &path, Some(body)).await.expect(201);
    format!("Bearer {}", made["key"].as_str().unwrap())
}

/// The refusal, which says this.
fn refused(answer: &Answer, words: &str) -> Value {
    let problem = answer.expect_problem(403, "forbidden");
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    problem
}

async fn execute(cloud: &TestCloud, sql: &'static str) {
    sqlx::query(sql).execute(&cloud.app.pool).await.unwrap();
}

/// The `name`s of a list.
fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// An instance of project `demo`, with the image and the type that every test has.
fn instance(name: &str) -> Value {
    json!({"name": name, "image": "image", "instance_type": "tiny"})
}
