//! Refusals are written for people.

use axum::http::Method;
use serde_json::json;

use crate::testing::{TestCloud, request};

/// How parsers talk.
const OF_PARSERS: [&str; 16] = [
    " at line ",
    "invalid type",
    "invalid value",
    "invalid digit",
    "Failed to deserialize",
    "could not be parsed",
    "UUID parsing",
    "target type",
    "provided string",
    "unknown field",
    "missing field",
    "EOF",
    "expected struct",
    "expected u",
    "InvalidToken",
    "base64",
];

#[tokio::test]
async fn no_parser_speaks_to_users() {
    let cloud = TestCloud::start().await;
    let bearer = format!("Bearer {}", cloud.token().await);
    let bodies = [
        ("/v1/projects", "{"),
        ("/v1/projects", "{} {}"),
        ("/v1/projects", "{'name': 1}"),
        ("/v1/projects", "7"),
        ("/v1/projects", "{}"),
        ("/v1/projects", r#"{"name":7}"#),
        ("/v1/projects", r#"{"name":"x","labels":{"a":1}}"#),
        ("/v1/projects", r#"{"name":"x","surprise":1}"#),
        ("/v1/instance_types", r#"{"name":"x","vcpus":"2","memory_mib":64,"root_disk_gib":1}"#),
        ("/v1/instance_types", r#"{"name":"x","vcpus":-1,"memory_mib":64,"root_disk_gib":1}"#),
        ("/v1/policies", r#"{"name":"x","document":"everything"}"#),
        ("/v1/policies", r#"{"name":"x","document":{"Version":1,"Version":2}}"#),
        ("/v1/policies", r#"{"name":"x","document":{"Version":1,"Statement":[{"Effect":7}]}}"#),
        ("/v1/policy_attachments", r#"{"policy":["x"]}"#),
        ("/v1/users/admin/api_keys", r#"{"expires_at":"tomorrow"}"#),
        ("/v1/auth/login", r#"{"username":"admin"}"#),
        ("/v1/auth/refresh", "null"),
    ];
    let bodies = bodies.map(|(path, body)| (Method::POST, path, bearer.clone(), body));
    let queries = [
        "/v1/projects?limit=many",
        "/v1/projects?limit=70000",
        "/v1/projects?cursor=moon",
        "/v1/projects?cursor=MOONMOONMOONMOONMOONMM",
        "/v1/projects?label_selector=a+b",
        "/v1/projects?surprise=1",
        "/v1/audit_records?since=yesterday",
        "/v1/audit_records?since=2026-13-01T00:00:00Z",
        "/v1/audit_records?resource_id=x",
        "/v1/audit_records?outcome=perhaps",
        "/v1/events?after=x",
    ];
    let queries = queries.map(|path| (Method::GET, path, bearer.clone(), ""));
    let tokens = ["Bearer x", "Bearer a.b.c", "Bearer cumulo_key_%", "x"];
    let tokens = tokens.map(|token| (Method::GET, "/v1/projects", token.to_owned(), ""));
    for (method, path, bearer, body) in bodies.into_iter().chain(queries).chain(tokens) {
        let sent = request(method, path, &[("authorization", &bearer)], body.to_owned());
        let mut problem = cloud.send(sent).await.json();
        assert!((400..500).contains(&problem["status"].as_u64().unwrap()), "{path} {body}: {problem}");
        // Codes are for programs.
        problem["code"].take();
        for field in problem["errors"].as_array_mut().into_iter().flatten() {
            field["code"].take();
        }
        let text = problem.to_string();
        let found = OF_PARSERS.iter().find(|words| text.contains(**words));
        assert_eq!(found, None, "{path} {body}: {text}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_field_or_the_parameter() {
    let cloud = TestCloud::start().await;
    let missing = cloud.post("/v1/projects", json!({})).await.expect_problem(422, "validation_failed");
    assert_eq!(missing["errors"][0]["pointer"], "/name");
    assert_eq!(missing["errors"][0]["message"], "`name` is missing");
    for (query, detail) in [
        ("limit=many", "limit: a whole number is expected"),
        ("cursor=moon", "cursor: give the `next_cursor` of the page before, or none for the first page"),
    ] {
        let problem = cloud.get(&format!("/v1/projects?{query}")).await.expect_problem(400, "invalid_query");
        assert_eq!(problem["detail"], detail);
    }
    let problem = cloud.get("/v1/projects?label_selector=a,b+c").await.expect_problem(400, "invalid_query");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("label_selector: `b c` is not one of"), "{detail}");
}
