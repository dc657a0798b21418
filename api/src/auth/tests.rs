//! Signing in, and every way of pretending to have done so.

mod browser;
mod passwords;
mod races;
mod recovery;
mod restricted;
mod secrets;

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud, request};

async fn with_token(cloud: &TestCloud, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    cloud.send(request(Method::GET, "/v1/projects", &[("authorization", &bearer)], String::new())).await
}

async fn post(cloud: &TestCloud, path: &str, body: Value) -> Answer {
    cloud.send(request(Method::POST, path, &[], body.to_string())).await
}

#[tokio::test]
async fn wrong_credentials_all_look_the_same() {
    let cloud = TestCloud::start().await;
    let long = "x".repeat(100_000);
    for (username, password) in
        [("admin", "wrong"), ("nobody", "wrong"), ("ad\0min", "x"), ("admin", long.as_str()), ("", "")]
    {
        let answer =
            post(&cloud, "/v1/auth/login", json!({"username": username, "password": password})).await;
        let problem = answer.expect_problem(401, "invalid_credentials");
        assert_eq!(problem.get("detail"), None, "{username:?}");
    }
    post(&cloud, "/v1/auth/login", cloud.credentials().clone()).await.expect(200);
}

#[tokio::test]
async fn passwords_are_stored_as_argon2id() {
    let cloud = TestCloud::start().await;
    let hash: String = sqlx::query_scalar("SELECT password_hash FROM user_passwords")
        .fetch_one(&cloud.app.pool)
        .await
        .unwrap();
    assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
    assert!(!hash.contains(cloud.credentials()["password"].as_str().unwrap()));
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let cloud = TestCloud::start().await;
    let genuine = cloud.token().await;
    with_token(&cloud, &genuine).await.expect(200);
    let mut parts = genuine.split('.');
    let (header, payload, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let decode =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims = decode(payload);
    claims["exp"] = json!(4_000_000_000_i64);
    let kid = decode(header)["kid"].as_str().unwrap().to_owned();
    let signed = |algorithm: Algorithm, kid: &str, key: &EncodingKey| {
        let mut header = Header::new(algorithm);
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, &claims, key).unwrap()
    };
    let public: Vec<u8> =
        sqlx::query_scalar("SELECT public_key FROM signing_keys").fetch_one(&cloud.app.pool).await.unwrap();
    let stranger = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let stranger = EncodingKey::from_ed_der(&stranger.serialize_der());
    let forged = [
        ("tampered payload", format!("{header}.{}.{signature}", encode(&claims))),
        ("no algorithm", format!("{}.{}.", encode(&json!({"alg": "none", "kid": kid})), encode(&claims))),
        ("public key as secret", signed(Algorithm::HS256, &kid, &EncodingKey::from_secret(&public))),
        ("another key under our id", signed(Algorithm::EdDSA, &kid, &stranger)),
        ("unknown key", signed(Algorithm::EdDSA, "unknown", &stranger)),
        ("no signature", format!("{header}.{payload}.")),
        ("garbage", "garbage".to_owned()),
    ];
    for (name, token) in forged {
        let problem = with_token(&cloud, &token).await.expect_problem(401, "invalid_token");
        assert!(problem["errors"].is_null(), "{name}");
    }
    let none = cloud.send(request(Method::GET, "/v1/projects", &[], String::new())).await;
    none.expect_problem(401, "unauthenticated");
    assert_eq!(none.headers["www-authenticate"], "Bearer");
    let basic = [("authorization", "Basic YTpi")];
    let basic = cloud.send(request(Method::GET, "/v1/projects", &basic, String::new())).await;
    basic.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn access_ends_after_fifteen_minutes_and_with_the_session() {
    let cloud = TestCloud::start().await;
    let signed_in = post(&cloud, "/v1/auth/login", cloud.credentials().clone()).await.expect(200);
    assert_eq!(signed_in["expires_in"], 900);
    let token = signed_in["access_token"].as_str().unwrap();
    cloud.pass(899);
    with_token(&cloud, token).await.expect(200);
    cloud.pass(1);
    with_token(&cloud, token).await.expect_problem(401, "expired_token");

    let again = post(&cloud, "/v1/auth/login", cloud.credentials().clone()).await.expect(200);
    let token = again["access_token"].as_str().unwrap();
    with_token(&cloud, token).await.expect(200);
    let out = json!({"refresh_token": again["refresh_token"]});
    post(&cloud, "/v1/auth/logout", out).await.expect(204);
    with_token(&cloud, token).await.expect_problem(401, "invalid_token");
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_session() {
    let cloud = TestCloud::start().await;
    let first = post(&cloud, "/v1/auth/login", cloud.credentials().clone()).await.expect(200);
    let body = json!({"refresh_token": first["refresh_token"]});
    let second = post(&cloud, "/v1/auth/refresh", body.clone()).await.expect(200);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    with_token(&cloud, second["access_token"].as_str().unwrap()).await.expect(200);

    post(&cloud, "/v1/auth/refresh", body).await.expect_problem(401, "invalid_token");
    // Of the thief and the owner, both are out.
    with_token(&cloud, second["access_token"].as_str().unwrap()).await.expect_problem(401, "invalid_token");
    let body = json!({"refresh_token": second["refresh_token"]});
    post(&cloud, "/v1/auth/refresh", body).await.expect_problem(401, "invalid_token");
    let unknown = json!({"refresh_token": "cumulo_refresh_unknown\0"});
    post(&cloud, "/v1/auth/refresh", unknown).await.expect_problem(401, "invalid_token");
}

#[tokio::test]
async fn refreshes_are_not_in_the_audit_log() {
    let cloud = TestCloud::start().await;
    let records = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM audit_records").fetch_one(&cloud.app.pool).await.unwrap()
    };
    let mut tokens = post(&cloud, "/v1/auth/login", cloud.credentials().clone()).await.expect(200);
    let before = records().await;
    for _ in 0..3 {
        let body = json!({"refresh_token": tokens["refresh_token"]});
        tokens = post(&cloud, "/v1/auth/refresh", body).await.expect(200);
    }
    assert_eq!(records().await, before);
}

#[tokio::test]
async fn a_stranger_sees_nothing_and_cannot_tell_it_from_nothing_being_there() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let bearer = cloud.user("stranger", false).await;
    let ask = async |method: &Method, path: &str, body: &str| {
        let mut answer =
            cloud.send(request(method.clone(), path, &[("authorization", &bearer)], body.to_owned())).await;
        let mut body = answer.json();
        body["request_id"] = Value::Null;
        answer.body.clear();
        (answer.status, body)
    };
    let mut tried = 0;
    for (path, item) in crate::http::openapi_document().paths.paths {
        for (method, operation) in [
            (Method::GET, item.get),
            (Method::POST, item.post),
            (Method::PUT, item.put),
            (Method::PATCH, item.patch),
            (Method::DELETE, item.delete),
        ] {
            let Some(operation) = operation else { continue };
            if operation
                .security
                .as_ref()
                .is_some_and(|security| security.iter().all(|one| *one == Default::default()))
            {
                continue;
            }
            tried += 1;
            let nobody = cloud.send(request(method.clone(), &path, &[], String::new())).await;
            nobody.expect_problem(401, "unauthenticated");
            let body = body_of(&operation);
            if EVERYBODYS.contains(&operation.operation_id.as_deref().unwrap()) {
                continue;
            }
            let named = |project: &str| {
                path.replace("{project}", project)
                    .replace("{image}", "image")
                    .replace("{instance_type}", "tiny")
            };
            let (status, answer) = ask(&method, &named("demo"), body).await;
            // Everybody sees instance types, so everybody may know why they cannot delete one. A right about all hosts is
            // asked for before an instance is looked for.
            let is_of_all = path.contains("{instance_type}") || path.starts_with("/v1/placements/");
            if path.contains('{') && !is_of_all {
                assert_eq!(status, 404, "{method} {path}: {answer}");
                let random = ask(&method, &named("0190a0a0-0000-7000-8000-000000000000"), body).await;
                assert_eq!((status, answer), random, "{method} {path}");
            } else {
                assert_eq!((status.as_u16(), &answer["code"]), (403, &json!("forbidden")), "{method} {path}");
            }
        }
    }
    assert!(tried >= 25, "only {tried} operations were tried");
    let unchanged: i64 =
        sqlx::query_scalar("SELECT count(*) FROM projects").fetch_one(&cloud.app.pool).await.unwrap();
    assert_eq!(unchanged, 1);
}

/// What the policy `everyone` allows.
const EVERYBODYS: &[&str] = &[
    "get_me",
    "list_projects",
    "list_instance_types",
    "get_instance_type",
    "list_cloud_policies",
    "list_pools",
    "get_pool",
];

/// A body that is fine, since bodies are read before rights are asked.
fn body_of(operation: &utoipa::openapi::path::Operation) -> &'static str {
    let name = operation.operation_id.as_deref().unwrap();
    match name {
        _ if operation.request_body.is_none() => "",
        "create_project"
        | "create_key_pair"
        | "update_key_pair"
        | "update_project"
        | "update_image"
        | "update_instance"
        | "create_user"
        | "update_user"
        | "create_group"
        | "update_group"
        | "create_service_account"
        | "update_service_account"
        | "create_network"
        | "update_network"
        | "update_subnet"
        | "update_port"
        | "create_security_group"
        | "update_security_group"
        | "create_router"
        | "update_router"
        | "create_floating_ip"
        | "update_floating_ip"
        | "update_placement_group"
        | "update_address_pool" => r#"{"name":"new"}"#,
        "create_placement_group" => r#"{"name":"new","policy":"anti_affinity"}"#,
        "update_placement_settings" => r#"{"strategy":"pack"}"#,
        "plan_placements" => r#"{"instances":[{"instance_type":"tiny"}]}"#,
        "create_subnet" => r#"{"name":"new","network":"default","cidr":"10.1.0.0/24"}"#,
        "create_port" => r#"{"name":"new","network":"default"}"#,
        "attach_port" => r#"{"network":"default"}"#,
        "detach_port" => r#"{"port":"default"}"#,
        "import_image" => r#"{"url":"https://example.com/image.qcow2"}"#,
        "create_image_upload" => r#"{"size_bytes":1}"#,
        "create_pool" => r#"{"name":"new"}"#,
        "update_pool" => r#"{"description":"new"}"#,
        "update_host" => r#"{"disk_overcommit":1.5}"#,
        "declare_host_dead" => r#"{"no_guest_runs":true}"#,
        "create_volume" => r#"{"name":"new","size_gib":1}"#,
        "update_volume" => r#"{"name":"new"}"#,
        "create_snapshot" => r#"{"name":"new","volume":"data"}"#,
        "update_snapshot" | "update_snapshot_schedule" => r#"{"name":"new"}"#,
        "create_snapshot_schedule" => r#"{"name":"new","volume":"data","every_hours":1,"keep":1}"#,
        "restore_snapshot" => "{}",
        "create_console" => r#"{"kind":"vnc"}"#,
        "attach_volume" | "detach_volume" | "force_detach_volume" => r#"{"volume":"data"}"#,
        "create_address_pool" => r#"{"name":"new","cidr":"203.0.113.0/24"}"#,
        "add_security_group_rule" => r#"{"direction":"ingress","remote_cidr":"0.0.0.0/0"}"#,
        "replace_security_group_rules" => r#"{"rules":[]}"#,
        "add_router_interface" | "remove_router_interface" => r#"{"subnet":"default"}"#,
        "associate_floating_ip" => r#"{"port":"default"}"#,
        "change_user_password" => r#"{"current_password":"correct horse","new_password":"battery staple"}"#,
        "confirm_user_totp" | "remove_user_totp" | "renew_user_recovery_codes" => r#"{"code":"123456"}"#,
        "create_api_key" | "create_user_api_key" => "{}",
        "create_image" => r#"{"name":"new","format":"raw"}"#,
        "create_instance" => r#"{"name":"new","image":"image","instance_type":"tiny"}"#,
        "create_instance_type" => r#"{"name":"new","vcpus":1,"memory_mib":64,"root_disk_gib":1}"#,
        "update_quotas" | "update_quota_defaults" => r#"{"vcpus":1}"#,
        "create_policy" | "create_cloud_policy" => {
            r#"{"name":"new","document":{"Version":"2012-10-17",
                "Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}}"#
        }
        "update_policy" | "update_cloud_policy" => r#"{"description":"new"}"#,
        "attach_policy" | "attach_cloud_policy" => r#"{"policy":"administrator","user":"stranger"}"#,
        "simulate_policies" | "simulate_cloud_policies" => {
            r#"{"user":"admin","action":"compute:ListInstances"}"#
        }
        "upload_image"
        | "deprecate_image"
        | "append_to_image_upload"
        | "finish_image_upload"
        | "create_host_join_token"
        | "readmit_host"
        | "drain_host"
        | "stop_instance"
        | "migrate_instance"
        | "move_instance"
        | "rebuild_instance"
        | "revert_resize"
        | "unrescue_instance"
        | "reboot_instance" => "{}",
        "act_on_instances" => r#"{"action":"stop","label_selector":"tier=web"}"#,
        "resize_instance" => r#"{"instance_type":"tiny"}"#,
        "rescue_instance" => r#"{"image":"image"}"#,
        _ => panic!("say which body {name} takes"),
    }
}
