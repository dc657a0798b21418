//! Ways around the policies: giving oneself what one may give, with a key without the bounds of the first.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allowing, attach, call_as, document, instance, make_key, make_service_account, policy, refused};
use crate::testing::{Answer, TestCloud};

const DEMO: &str = "/v1/projects/demo";

#[tokio::test]
async fn who_owns_a_project_does_not_raise_its_quotas() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let ann = cloud.user("ann", false).await;
    attach(&cloud, DEMO, "project-owner", "user", "ann").await;
    let body = json!({"name": "more", "document": allowing("quota:*")});
    call_as(&cloud, &ann, Method::POST, &format!("{DEMO}/policies"), Some(body)).await.expect(201);
    for name in ["more", "administrator"] {
        let body = json!({"policy": name, "user": "ann"});
        call_as(&cloud, &ann, Method::POST, &format!("{DEMO}/policy_attachments"), Some(body))
            .await
            .expect(201);
    }
    let raise = async || {
        let body = Some(json!({"vcpus": 1000}));
        call_as(&cloud, &ann, Method::PATCH, &format!("{DEMO}/quotas"), body).await
    };
    let simulated = async |path: &str, body: Value| {
        let mut body = body;
        body["action"] = json!("quota:UpdateQuotas");
        body["resource"] = json!("crn:cumulo:quota:demo:quota/*");
        let result = cloud.post(&format!("{path}/policies:simulate"), body).await.expect(200);
        result["results"][0]["decision"].clone()
    };
    let can = async || {
        let found = cloud.get(&format!("{DEMO}/policies:what_can?user=ann")).await.expect(200);
        let all = found["items"].as_array().unwrap().clone();
        let prospect =
            all.iter().find(|one| one["action"] == "quota:UpdateQuotas").unwrap()["prospect"].clone();
        let who = cloud.get(&format!("{DEMO}/policies:who_can?action=quota:UpdateQuotas")).await.expect(200);
        let listed = who["items"].as_array().unwrap().iter().any(|one| one["subject"]["name"] == "ann");
        (prospect, listed)
    };
    refused(&raise().await, "what is attached in the project does not count");
    assert_eq!(simulated(DEMO, json!({"user": "ann"})).await, "implicit_deny");
    assert_eq!(simulated(DEMO, json!({"policies": [allowing("*")]})).await, "implicit_deny");
    assert_eq!(simulated("/v1", json!({"policies": [allowing("*")]})).await, "allowed");
    assert_eq!(can().await, (json!("denied"), false));

    policy(&cloud, "/v1", "budget", allowing("quota:UpdateQuotas")).await;
    attach(&cloud, "/v1", "budget", "user", "ann").await;
    raise().await.expect(200);
    assert_eq!(simulated(DEMO, json!({"user": "ann"})).await, "allowed");
    assert_eq!(can().await, (json!("allowed"), true));
}

#[tokio::test]
async fn a_list_names_no_project_that_the_caller_may_not_get() {
    let cloud = TestCloud::start().await;
    for name in ["alpha", "secret", "labelled", "inner", "beta"] {
        let labels = if name == "labelled" { json!({"hidden": "yes"}) } else { json!({}) };
        cloud.post("/v1/projects", json!({"name": name, "labels": labels})).await.expect(201);
    }
    let bob = cloud.user("bob", false).await;
    attach(&cloud, "/v1", "read-only", "user", "bob").await;
    let deny = |resource: &str, condition: Value| {
        let (effect, action) = ("Deny", "project:GetProject");
        document(json!([{"Effect": effect, "Action": action, "Resource": resource, "Condition": condition}]))
    };
    let always = || json!({"Bool": {"cumulo:SecureTransport": [true, false]}});
    let hidden = json!({"StringEquals": {"cumulo:ResourceLabel/hidden": "yes"}});
    policy(&cloud, "/v1", "by-name", deny("crn:cumulo:project:secret:project/*", always())).await;
    policy(&cloud, "/v1", "by-label", deny("*", hidden)).await;
    policy(&cloud, "/v1/projects/inner", "in-project", deny("*", always())).await;
    attach(&cloud, "/v1", "by-name", "user", "bob").await;
    attach(&cloud, "/v1", "by-label", "user", "bob").await;
    attach(&cloud, "/v1/projects/inner", "in-project", "user", "bob").await;
    let list = async |query: &str| {
        call_as(&cloud, &bob, Method::GET, &format!("/v1/projects{query}"), None).await.expect(200)
    };
    let all = list("").await;
    assert_eq!(super::names(&all), ["alpha", "beta"]);
    let first = list("?limit=1").await;
    assert_eq!(super::names(&first), ["alpha"]);
    let second = list(&format!("?limit=1&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!((super::names(&second), &second["next_cursor"]), (vec!["beta"], &Value::Null));
    assert_eq!(list("?name=secret").await["items"], json!([]));
    call_as(&cloud, &bob, Method::GET, "/v1/projects/secret", None).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_key_that_is_bound_makes_none_that_is_not() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let ann = cloud.user("ann", false).await;
    attach(&cloud, DEMO, "project-owner", "user", "ann").await;
    make_service_account(&cloud, "demo", "robot").await;
    let (bound, free) =
        (make_key(&cloud, &ann, "ann", Some(allowing("*"))).await, make_key(&cloud, &ann, "ann", None).await);
    let calls = [
        ("service_accounts", json!({"name": "new"})),
        ("service_accounts/robot/api_keys", json!({})),
        ("policy_attachments", json!({"policy": "power-user", "service_account": "robot"})),
        ("policies", json!({"name": "new", "document": allowing("*")})),
    ];
    for (path, body) in calls {
        let path = format!("{DEMO}/{path}");
        let answer = call_as(&cloud, &bound, Method::POST, &path, Some(body.clone())).await;
        let problem = refused(&answer, "bound by a policy of its own");
        assert_eq!(problem["denial"]["denied_by_api_key_policy"], true, "{path}");
        call_as(&cloud, &free, Method::POST, &path, Some(body)).await.expect(201);
    }
    let own = call_as(&cloud, &bound, Method::POST, "/v1/users/ann/api_keys", Some(json!({}))).await;
    refused(&own, "sign in, or use a key without a policy");
    call_as(&cloud, &bound, Method::GET, &format!("{DEMO}/service_accounts"), None).await.expect(200);
    let asked = json!({"user": "ann", "action": "iam:AttachPolicy", "api_key_policy": allowing("*")});
    let simulated = cloud.post(&format!("{DEMO}/policies:simulate"), asked).await.expect(200);
    assert_eq!(
        (&simulated["results"][0]["decision"], &simulated["results"][0]["denied_by_api_key_policy"]),
        (&json!("implicit_deny"), &json!(true))
    );
}

#[tokio::test]
async fn the_audit_log_names_the_policies_and_tells_when_it_was_the_key_s_own() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let ann = cloud.user("ann", false).await;
    attach(&cloud, DEMO, "power-user", "user", "ann").await;
    let narrow = document(json!([
        {"Sid": "Look", "Effect": "Allow", "Action": ["compute:Get*", "compute:Create*"], "Resource": "*"},
        {"Sid": "Never", "Effect": "Deny", "Action": "compute:StopInstance", "Resource": "*"}]));
    let key = make_key(&cloud, &ann, "ann", Some(narrow)).await;
    let web = format!("{DEMO}/instances/web");
    let made = call_as(&cloud, &key, Method::POST, &format!("{DEMO}/instances"), Some(instance("web"))).await;
    made.expect(202);
    let answer = call_as(&cloud, &key, Method::DELETE, &web, None).await;
    refused(&answer, "the policy of this API key does not allow compute:DeleteInstance");
    let stop = call_as(&cloud, &key, Method::POST, &format!("{web}/stop"), Some(json!({}))).await;
    refused(&stop, "the policy of this API key, statement Never, denies");
    let deciding = async |action: &str| {
        let found =
            cloud.get(&format!("{DEMO}/audit_records?principal=ann&action={action}")).await.expect(200);
        found["items"][0]["deciding"].clone()
    };
    let marker = json!({"denied_by_api_key_policy": true});
    assert_eq!(deciding("compute:DeleteInstance").await, json!([marker]));
    let stopping = deciding("compute:StopInstance").await;
    assert_eq!((&stopping[0]["sid"], &stopping[1]), (&json!("Never"), &marker));
    let making = deciding("compute:CreateInstance").await;
    assert_eq!((&making[0]["policy"], &making[1]["sid"]), (&json!("power-user"), &json!("Look")));
    assert_eq!(making.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_address_or_a_card_needs_the_right_on_what_it_is_for() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/address_pools", json!({"name": "public", "cidr": "203.0.113.0/24"})).await.expect(201);
    let mut ports = Vec::new();
    for name in ["web", "db"] {
        let body = json!({"name": name, "image": "image", "instance_type": "tiny"});
        let made = cloud.post(&format!("{DEMO}/instances"), body).await.expect(202);
        ports.push(made["nics"][0]["port"]["name"].clone());
    }
    cloud.post(&format!("{DEMO}/ports"), json!({"name": "loose", "network": "default"})).await.expect(201);
    cloud.post(&format!("{DEMO}/floating_ips"), json!({"name": "www"})).await.expect(201);
    let rights = document(json!([
        {"Effect": "Allow", "Action": ["network:AssociateFloatingIp", "compute:CreateInstance"], "Resource": "*"},
        {"Effect": "Allow", "Action": "compute:AttachPort", "Resource": "crn:cumulo:compute:demo:instance/web"},
    ]));
    policy(&cloud, DEMO, "addresses", rights).await;
    let ann = cloud.user("ann", false).await;
    attach(&cloud, DEMO, "addresses", "user", "ann").await;
    let post = async |path: &str, body: Value| {
        call_as(&cloud, &ann, Method::POST, &format!("{DEMO}{path}"), Some(body)).await
    };
    let associate = async |body: Value| post("/floating_ips/www/associate", body).await;
    let vm = |port: &str| json!({"name": "vm", "image": "image", "instance_type": "tiny", "networks": [{"port": port}]});

    // What she may not see is as if it were not there.
    for (seen, unseen) in [
        (associate(json!({"port": ports[1]})).await, associate(json!({"port": "none"})).await),
        (associate(json!({"port": "loose"})).await, associate(json!({"port": "none"})).await),
        (associate(json!({"instance": "db"})).await, associate(json!({"instance": "none"})).await),
        (post("/instances", vm("loose")).await, post("/instances", vm("none")).await),
        (
            post("/instances/web/attach_port", json!({"port": "loose"})).await,
            post("/instances/web/attach_port", json!({"port": "none"})).await,
        ),
    ] {
        let errors = |answer: &Answer| answer.expect_problem(422, "validation_failed")["errors"].clone();
        assert_eq!(errors(&seen), errors(&unseen));
    }

    let sight = json!([{"Effect": "Allow", "Action": ["network:Get*", "compute:Get*"], "Resource": "*"}]);
    policy(&cloud, DEMO, "sight", document(sight)).await;
    attach(&cloud, DEMO, "sight", "user", "ann").await;
    refused(&associate(json!({"instance": "db"})).await, "compute:AttachPort");
    refused(&associate(json!({"port": ports[1]})).await, "compute:AttachPort");
    for answer in [
        associate(json!({"instance": "web"})).await,
        associate(json!({"port": "loose"})).await,
        post("/instances/web/attach_port", json!({"port": "loose"})).await,
        post("/instances", vm("loose")).await,
    ] {
        refused(&answer, "network:UpdatePort");
    }

    policy(&cloud, DEMO, "ports", allowing("network:UpdatePort")).await;
    attach(&cloud, DEMO, "ports", "user", "ann").await;
    refused(&associate(json!({"port": ports[1]})).await, "compute:AttachPort");
    associate(json!({"instance": "web"})).await.expect(200);
    associate(json!({"port": ports[0]})).await.expect(200);
    post("/instances/web/attach_port", json!({"port": "loose"})).await.expect(202);
}
