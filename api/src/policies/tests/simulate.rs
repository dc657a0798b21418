//! Simulations and the two questions with gaps.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    allowing, attach, call_as, call_from, document, execute, instance, make_group, make_key,
    make_service_account, policy,
};
use crate::testing::TestCloud;

const DEMO: &str = "/v1/projects/demo";

/// A cloud with instances `web` and `db`, and a policy for `dev` that depends on much.
async fn furnished() -> (TestCloud, String) {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let dev = cloud.user("dev", false).await;
    let rules = document(json!([
        {"Sid": "Look", "Effect": "Allow", "Action": ["compute:Get*", "compute:List*"], "Resource": "*"},
        {"Sid": "Office", "Effect": "Allow", "Action": "compute:*", "Resource": "*",
         "Condition": {"IpAddress": {"cumulo:SourceIp": "203.0.113.0/24"}}},
        {"Sid": "KeepTheDatabase", "Effect": "Deny", "Action": "compute:DeleteInstance",
         "Resource": "crn:cumulo:compute:demo:instance/db"},
        {"Sid": "KeepLabelled", "Effect": "Deny", "Action": "compute:DeleteInstance", "Resource": "*",
         "Condition": {"StringEquals": {"cumulo:ResourceLabel/keep": "yes"}}}
    ]));
    policy(&cloud, DEMO, "developer", rules).await;
    attach(&cloud, DEMO, "developer", "user", "dev").await;
    for name in ["web", "db", "kept"] {
        let mut body = instance(name);
        if name == "kept" {
            body["labels"] = json!({"keep": "yes"});
        }
        cloud.post(&format!("{DEMO}/instances"), body).await.expect(202);
    }
    (cloud, dev)
}

async fn simulate(cloud: &TestCloud, path: &str, body: Value) -> Value {
    cloud.post(&format!("{path}/policies:simulate"), body).await.expect(200)["results"].clone()
}

/// The sids of the deciding statements.
fn sids(result: &Value) -> Vec<&str> {
    result["statements"].as_array().unwrap().iter().filter_map(|one| one["sid"].as_str()).collect()
}

#[tokio::test]
async fn a_simulation_says_what_then_happens() {
    let (cloud, dev) = furnished().await;
    let key = make_key(&cloud, &dev, "dev", None).await;
    let requests = [
        (Method::GET, "compute:GetInstance", "web"),
        (Method::POST, "compute:StopInstance", "web"),
        (Method::DELETE, "compute:DeleteInstance", "db"),
        (Method::DELETE, "compute:DeleteInstance", "kept"),
        (Method::DELETE, "compute:DeleteInstance", "web"),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (method, action, name) in requests {
        for address in ["203.0.113.9", "198.51.100.1"] {
            let body = json!({
                "user": "dev", "action": action, "resource": format!("instance/{name}"),
                "context": {"cumulo:SourceIp": address, "cumulo:CredentialType": "api_key"},
            });
            let result = simulate(&cloud, DEMO, body).await[0].clone();
            assert_eq!(
                (&result["resource_exists"], &result["missing_context_keys"]),
                (&json!(true), &json!([]))
            );
            let suffix = if method == Method::POST { "/stop" } else { "" };
            let path = format!("{DEMO}/instances/{name}{suffix}?dry_run=true");
            let path = if method == Method::GET { path.replace("?dry_run=true", "") } else { path };
            let body = (method == Method::POST).then(|| json!({}));
            for credential in [&dev, &key] {
                let real = call_from(&cloud, address, credential, method.clone(), &path, body.clone()).await;
                let allowed = result["decision"] == "allowed";
                assert_eq!(real.status.is_success(), allowed, "{action} {name} {address}: {result}");
                if real.status == 403 {
                    assert_eq!(real.json()["denial"]["statements"], result["statements"], "{action} {name}");
                }
            }
            seen.insert(result["decision"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen.len(), 3, "all decisions: {seen:?}");
}

#[tokio::test]
async fn what_is_stored_nowhere_is_tried_alone_or_on_top() {
    let (cloud, _) = furnished().await;
    let actions = json!(["compute:StopInstance", "image:ListImages"]);
    let alone = json!({"policies": [allowing("image:*")], "action": actions});
    let results = simulate(&cloud, DEMO, alone).await;
    assert_eq!(
        (&results[0]["decision"], &results[1]["decision"]),
        (&json!("implicit_deny"), &json!("allowed"))
    );
    assert_eq!(results[0]["resource"], "crn:cumulo:compute:demo:instance/*");
    assert_eq!(results[1]["statements"][0]["policy"], "/policies/0");
    assert_eq!(results[1]["statements"][0]["policy_id"], Value::Null);

    let deny = document(json!([{"Sid": "Freeze", "Effect": "Deny", "Action": "compute:StopInstance",
        "Resource": "*", "Condition": {"StringEquals": {"cumulo:ResourceLabel/tier": "front"}}}]));
    let mut body = json!({"user": "dev", "policies": [deny], "action": "compute:StopInstance",
        "resource": "crn:cumulo:compute:demo:instance/web", "context": {"cumulo:SourceIp": "203.0.113.1"}});
    let before = simulate(&cloud, DEMO, body.clone()).await;
    assert_eq!((&before[0]["decision"], sids(&before[0])), (&json!("allowed"), vec!["Office"]));
    assert_eq!(before[0]["statements"][0]["policy"], "developer");
    body["resource_labels"] = json!({"tier": "front"});
    let after = simulate(&cloud, DEMO, body).await;
    assert_eq!((&after[0]["decision"], sids(&after[0])), (&json!("explicit_deny"), vec!["Freeze"]));
    assert_eq!(after[0]["statements"][0]["policy"], "/policies/0");

    // The policy of a key only takes away.
    let key = |action: &str| json!({"user": "dev", "action": "compute:ListInstances", "api_key_policy": allowing(action)});
    let narrowed = simulate(&cloud, DEMO, key("image:*")).await;
    assert_eq!(narrowed[0]["decision"], "implicit_deny");
    assert_eq!(narrowed[0]["denied_by_api_key_policy"], true);
    let wide = simulate(&cloud, DEMO, key("*")).await;
    assert_eq!(wide[0]["decision"], "allowed");
    assert_eq!(wide[0]["statements"].as_array().unwrap().last().unwrap()["policy"], "/api_key_policy");
}

#[tokio::test]
async fn a_simulation_takes_the_usual_for_granted_and_says_what_it_misses() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    make_service_account(&cloud, "demo", "robot").await;
    let when = |operator: &str, key: &str, value: &str| {
        let condition = json!({operator: {key: value}});
        let statement = json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition});
        document(json!([statement]))
    };
    let ask = async |document: Value, more: Value| {
        let mut body =
            json!({"policies": [document], "action": "compute:CreateInstance", "resource": "instance/new"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let result = simulate(&cloud, DEMO, body).await[0].clone();
        (result["decision"] == "allowed", result["missing_context_keys"].clone())
    };
    let nothing = json!([]);
    let granted = |value: Value| (true, value);
    assert_eq!(
        ask(when("Bool", "cumulo:MultiFactorAuthPresent", "false"), json!({})).await,
        granted(nothing.clone())
    );
    assert_eq!(
        ask(when("IpAddress", "cumulo:SourceIp", "127.0.0.1"), json!({})).await,
        granted(nothing.clone())
    );
    let clock = when("DateLessThan", "cumulo:CurrentTime", "2026-06-01T12:00:01Z");
    assert_eq!(ask(clock, json!({})).await, granted(nothing.clone()));
    let robot = json!({"service_account": "robot"});
    assert_eq!(
        ask(when("StringEquals", "cumulo:CredentialType", "api_key"), robot.clone()).await,
        granted(nothing.clone())
    );
    assert_eq!(
        ask(when("StringEquals", "cumulo:PrincipalName", "demo/robot"), robot).await,
        granted(nothing.clone())
    );
    let admin = json!({"user": "admin", "context": {"cumulo:PrincipalName": "other"}});
    // The administrator may do it whatever the name; the document asks for it all the same.
    assert_eq!(ask(when("StringEquals", "cumulo:PrincipalName", "x"), admin).await, granted(nothing.clone()));

    let vcpus = || when("NumericLessThanEquals", "compute:Vcpus", "2");
    assert_eq!(ask(vcpus(), json!({})).await, (false, json!(["compute:Vcpus"])));
    assert_eq!(ask(vcpus(), json!({"context": {"compute:Vcpus": 2}})).await, (true, nothing.clone()));
    assert_eq!(ask(vcpus(), json!({"context": {"compute:vcpus": "3"}})).await, (false, nothing.clone()));
    assert_eq!(ask(vcpus(), json!({"context": {"compute:Vcpus": null}})).await, (false, nothing.clone()));
    // Labels of the request are counted as they come.
    let only = || when("ForAllValues:StringEquals", "cumulo:LabelKeys", "owner");
    assert!(ask(only(), json!({"context": {"cumulo:RequestLabel/owner": "x"}})).await.0);
    assert!(!ask(only(), json!({"context": {"cumulo:RequestLabel/colour": "x"}})).await.0);

    let wrong = [
        (json!({"action": "compute:GetInstance"}), ""),
        (json!({"user": "admin", "group": "x", "action": "compute:GetInstance"}), "/group"),
        (json!({"user": "nobody", "action": "compute:GetInstance"}), "/user"),
        (json!({"user": "admin", "action": "compute:FlyInstance"}), "/action"),
        (json!({"user": "admin", "action": ["compute:GetInstance", "x"]}), "/action/1"),
        (json!({"user": "admin", "action": []}), "/action"),
        (json!({"user": "admin", "action": 7}), "/action"),
        (json!({"user": "admin", "action": "host:ListHosts"}), "/action"),
        (json!({"user": "admin", "action": "compute:GetInstance", "resource": "web"}), "/resource"),
        (json!({"user": "admin", "action": "compute:GetInstance", "resource": "image/web"}), "/resource"),
        (json!({"user": "admin", "action": "compute:GetInstance", "resource": "instance/a\0b"}), "/resource"),
        (
            json!({"user": "admin", "action": "compute:GetInstance",
            "resource": "crn:cumulo:compute:other:instance/web"}),
            "/resource",
        ),
        (
            json!({"user": "admin", "action": "compute:GetInstance", "context": {"cumulo:Moon": 1}}),
            "/context/cumulo:Moon",
        ),
        (
            json!({"user": "admin", "action": "compute:GetInstance", "context": {"cumulo:SourceIp": "here"}}),
            "/context/cumulo:SourceIp",
        ),
        (
            json!({"user": "admin", "action": "compute:GetInstance", "context": {"cumulo:ResourceLabel/a": ["b", "c"]}}),
            "/context/cumulo:ResourceLabel~1a",
        ),
        (
            json!({"user": "admin", "action": "compute:GetInstance", "resource_labels": {"": ""}}),
            "/resource_labels",
        ),
        (
            json!({"policies": [allowing("image:*"), allowing("nothing:*")], "action": "compute:GetInstance"}),
            "/policies/1/Statement/0/Action",
        ),
        (
            json!({"user": "admin", "action": "compute:GetInstance", "api_key_policy": {}}),
            "/api_key_policy/Version",
        ),
    ];
    for (body, pointer) in wrong {
        let answer = cloud.post(&format!("{DEMO}/policies:simulate"), body.clone()).await;
        let problem = answer.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
}

#[tokio::test]
async fn a_project_answers_for_itself_and_the_cloud_for_all() {
    let (cloud, dev) = furnished().await;
    let ask = |resource: &str| json!({"user": "dev", "action": "compute:GetInstance", "resource": resource});
    let full = "crn:cumulo:compute:demo:instance/web";
    let in_cloud = simulate(&cloud, "/v1", ask(full)).await;
    assert_eq!((&in_cloud[0]["decision"], &in_cloud[0]["resource"]), (&json!("allowed"), &json!(full)));
    assert_eq!(in_cloud, simulate(&cloud, DEMO, ask("instance/web")).await);
    for wrong in
        ["instance/web", "crn:cumulo:compute::instance/web", "crn:cumulo:compute:nowhere:instance/web"]
    {
        let answer = cloud.post("/v1/policies:simulate", ask(wrong)).await;
        answer.expect_problem(422, "validation_failed");
    }
    let hosts =
        json!({"user": "admin", "action": ["host:ListHosts", "project:CreateProject", "iam:ListPolicies"]});
    let results = simulate(&cloud, "/v1", hosts).await;
    assert!(results.as_array().unwrap().iter().all(|one| one["decision"] == "allowed"), "{results}");
    // Who may not simulate learns nothing; who may, only of their project.
    let body = Some(ask("instance/web"));
    let path = format!("{DEMO}/policies:simulate");
    call_as(&cloud, &dev, Method::POST, &path, body.clone()).await.expect_problem(403, "forbidden");
    attach(&cloud, DEMO, "auditor", "user", "dev").await;
    call_as(&cloud, &dev, Method::POST, &path, body.clone()).await.expect(200);
    call_as(&cloud, &dev, Method::POST, "/v1/policies:simulate", body).await.expect_problem(403, "forbidden");
}

/// The row of an action in an answer to "what can they do".
fn capability<'a>(answer: &'a Value, action: &str) -> &'a Value {
    answer["items"].as_array().unwrap().iter().find(|one| one["action"] == action).unwrap()
}

#[tokio::test]
async fn what_somebody_can_do() {
    let (cloud, _) = furnished().await;
    let can = cloud.get(&format!("{DEMO}/policies:what_can?user=dev")).await.expect(200);
    let of = |action: &str| {
        let row = capability(&can, action);
        (row["prospect"].as_str().unwrap().to_owned(), sids(row).join(" "))
    };
    assert_eq!(of("compute:GetInstance"), ("allowed".into(), "Look".into()));
    assert_eq!(of("compute:StopInstance"), ("depends".into(), "Office".into()));
    assert_eq!(
        of("compute:DeleteInstance"),
        ("depends".into(), "KeepTheDatabase KeepLabelled Office".into())
    );
    assert_eq!(of("image:ListImages"), ("denied".into(), String::new()));
    assert_eq!(capability(&can, "compute:GetInstance")["statements"][0]["policy"], "developer");
    assert_eq!(capability(&can, "project:GetProject")["resource"], "crn:cumulo:project:demo:project/demo");
    let known: Vec<_> = crate::auth::actions::ALL.iter().filter(|action| action.in_project).collect();
    assert_eq!(can["items"].as_array().unwrap().len(), known.len());

    let in_cloud = cloud.get("/v1/policies:what_can?user=dev").await.expect(200);
    assert_eq!(capability(&in_cloud, "host:ListHosts")["prospect"], "denied");
    assert_eq!(capability(&in_cloud, "iam:ChangeUserPassword")["prospect"], "depends", "one's own alone");
    assert_eq!(in_cloud["disabled"], false);
    execute(&cloud, "UPDATE principals SET disabled_at = now() WHERE name = 'dev'").await;
    assert_eq!(cloud.get("/v1/policies:what_can?user=dev").await.expect(200)["disabled"], true);

    // A group that nobody is in can be asked about, too.
    make_group(&cloud, "readers", &[]).await;
    attach(&cloud, DEMO, "read-only", "group", "readers").await;
    let can = cloud.get(&format!("{DEMO}/policies:what_can?group=readers")).await.expect(200);
    assert_eq!(capability(&can, "image:ListImages")["prospect"], "allowed");
    assert_eq!(capability(&can, "compute:DeleteInstance")["prospect"], "denied");
    for wrong in [
        "",
        "?user=nobody",
        "?user=dev&group=readers",
        "?service_account=dev",
        "?user=no%00body",
        "?surprise=1",
    ] {
        let answer = cloud.get(&format!("{DEMO}/policies:what_can{wrong}")).await;
        answer.expect_problem(400, "invalid_query");
    }
}

/// Name and prospect of each who can do it.
async fn who_can(cloud: &TestCloud, query: &str) -> Vec<(String, String)> {
    let found = cloud.get(query).await.expect(200);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |one: &Value| (text(&one["subject"]["name"]), text(&one["prospect"]));
    found["items"].as_array().unwrap().iter().map(row).collect()
}

#[tokio::test]
async fn who_can_do_something() {
    let (cloud, _) = furnished().await;
    for name in ["ann", "eve", "zoe"] {
        cloud.user(name, false).await;
    }
    make_service_account(&cloud, "demo", "robot").await;
    make_group(&cloud, "owners", &["ann"]).await;
    attach(&cloud, DEMO, "project-owner", "group", "owners").await;
    attach(&cloud, "/v1", "project-owner", "user", "eve").await;
    attach(&cloud, DEMO, "power-user", "service_account", "robot").await;
    attach(&cloud, "/v1", "require-second-factor", "user", "eve").await;
    execute(&cloud, "UPDATE principals SET disabled_at = now() WHERE name = 'zoe'").await;
    attach(&cloud, DEMO, "administrator", "user", "zoe").await;
    let ask = |resource: &str| format!("{DEMO}/policies:who_can?action=compute:DeleteInstance{resource}");
    let pair = |name: &str, prospect: &str| (name.to_owned(), prospect.to_owned());
    let others = [pair("ann", "allowed"), pair("eve", "depends"), pair("robot", "allowed")];
    let with = |dev: Option<&str>| {
        let first = [Some(pair("admin", "allowed")), dev.map(|prospect| pair("dev", prospect))];
        first.into_iter().flatten().chain(others.clone()).collect::<Vec<_>>()
    };
    // The database is kept from the developer in any case; so is what has the label.
    assert_eq!(who_can(&cloud, &ask("&resource=instance/db")).await, with(None));
    assert_eq!(who_can(&cloud, &ask("&resource=instance/kept")).await, with(None));
    assert_eq!(who_can(&cloud, &ask("&resource=instance/web")).await, with(Some("depends")));
    assert_eq!(who_can(&cloud, &ask("")).await, with(Some("depends")));
    let in_cloud = ask("&resource=crn:cumulo:compute:demo:instance/db").replace(DEMO, "/v1");
    assert_eq!(who_can(&cloud, &in_cloud).await, with(None));
    // For certain: programs show no second factor, and are not asked for one.
    execute(&cloud, "UPDATE sessions SET second_factor_at = created_at").await;
    let body = json!({"policy": "require-second-factor", "everyone": true});
    cloud.post("/v1/policy_attachments", body).await.expect(201);
    let now = who_can(&cloud, &ask("&resource=instance/db")).await;
    assert_eq!(
        now,
        [("admin", "depends"), ("ann", "depends"), ("eve", "depends"), ("robot", "allowed")]
            .map(|(a, b)| pair(a, b))
    );

    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{}&limit=1{cursor}", ask("&resource=instance/db"));
        let page = cloud.get(&path).await.expect(200);
        all.extend(page["items"].as_array().unwrap().iter().map(|one| one["subject"]["name"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all, ["admin", "ann", "eve", "robot"]);
    for wrong in [
        "",
        "?action=compute:FlyInstance",
        "?action=host:ListHosts",
        "?action=compute:GetInstance&resource=x",
    ] {
        cloud.get(&format!("{DEMO}/policies:who_can{wrong}")).await.expect_problem(400, "invalid_query");
    }
}
