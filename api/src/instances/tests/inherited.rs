//! Policies on sizes, where the size is that of the snapshot or the instance that another one is made from.

use axum::http::Method;
use serde_json::{Value, json};

use super::INSTANCES;
use crate::testing::{Answer, TestCloud};

const SOURCES: [&str; 2] = ["snapshot", "source"];

/// A cloud with the instance `web` of the type `big`, and its snapshot `snap`.
async fn with_web() -> TestCloud {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let big = json!({"name": "big", "vcpus": 2, "memory_mib": 512, "root_disk_gib": 3});
    cloud.post("/v1/instance_types", big).await.expect(201);
    let web = json!({"name": "web", "image": "image", "instance_type": "big", "networks": []});
    cloud.post(INSTANCES, web).await.expect(202);
    let snap = json!({"name": "snap", "instance": "web"});
    cloud.post("/v1/projects/demo/snapshots", snap).await.expect(201);
    let disk = json!({"name": "disk", "image": "image", "size_gib": 3});
    cloud.post("/v1/projects/demo/volumes", disk).await.expect(201);
    cloud
}

/// Somebody with these statements in project `demo`.
async fn somebody(cloud: &TestCloud, name: &str, statements: Value) -> String {
    let bearer = cloud.user(name, false).await;
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    let rules = format!("rules-of-{name}");
    cloud.post("/v1/projects/demo/policies", json!({"name": rules, "document": document})).await.expect(201);
    let attachment = json!({"policy": rules, "user": name});
    cloud.post("/v1/projects/demo/policy_attachments", attachment).await.expect(201);
    bearer
}

fn made_from(source: &str, name: &str) -> Value {
    match source {
        "snapshot" => json!({"name": "new", "networks": [], "snapshot": name}),
        _ => json!({"name": "new", "networks": [], "source": {"instance": name}}),
    }
}

async fn try_out(cloud: &TestCloud, bearer: &str, body: Value) -> Answer {
    let path = format!("{INSTANCES}?dry_run=true");
    cloud.call_with(Method::POST, &path, &[("authorization", bearer)], Some(body)).await
}

#[tokio::test]
async fn what_is_inherited_is_denied_like_what_is_asked_for() {
    let cloud = with_web().await;
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    for (number, (condition, of_type)) in [
        (json!({"StringEquals": {"compute:InstanceType": "big"}}), true),
        (json!({"NumericGreaterThan": {"compute:Vcpus": 1}}), true),
        (json!({"NumericGreaterThan": {"compute:MemoryMib": 256}}), true),
        (json!({"NumericGreaterThan": {"compute:RootDiskGib": 2}}), false),
        (json!({"StringEquals": {"compute:Image": "image"}}), false),
        (json!({"StringEquals": {"compute:ImageProject": "demo"}}), false),
    ]
    .into_iter()
    .enumerate()
    {
        let deny = json!({"Sid": "TooMuch", "Effect": "Deny", "Action": "compute:CreateInstance",
            "Resource": "*", "Condition": condition});
        let dev = somebody(&cloud, &format!("dev-{number}"), json!([all, deny])).await;
        for source in SOURCES {
            let body = made_from(source, if source == "snapshot" { "snap" } else { "web" });
            let problem = try_out(&cloud, &dev, body.clone()).await.expect_problem(403, "forbidden");
            assert_eq!(problem["denial"]["statements"][0]["sid"], "TooMuch", "{condition} {source}");
            let mut small = body;
            small["instance_type"] = json!("tiny");
            let answer = try_out(&cloud, &dev, small).await;
            let status = if of_type { 200 } else { 403 };
            assert_eq!(answer.status.as_u16(), status, "{condition} {source}: {:?}", answer.json());
        }
    }
}

#[tokio::test]
async fn what_is_inherited_gives_rights_and_tells_nothing() {
    let cloud = with_web().await;
    let sizes = json!({"compute:Vcpus": 2, "compute:MemoryMib": 512, "compute:RootDiskGib": 3});
    let create = json!({"Effect": "Allow", "Action": "compute:CreateInstance", "Resource": "*",
        "Condition": {"NumericLessThanEquals": sizes, "StringEquals": {"compute:InstanceType": "big"}}});
    let sources = json!({"Effect": "Allow", "Action": ["compute:CloneInstance", "volume:RestoreSnapshot"],
        "Resource": "*"});
    let dev = somebody(&cloud, "dev", json!([create, sources])).await;
    try_out(&cloud, &dev, made_from("snapshot", "snap")).await.expect(200);
    try_out(&cloud, &dev, made_from("source", "web")).await.expect(200);

    // Whoever may not use a source does not hear from the decision whether there is one.
    let create = json!({"Effect": "Allow", "Action": "compute:CreateInstance", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": {"NumericGreaterThan": {"compute:Vcpus": 1}}});
    let blind = somebody(&cloud, "blind", json!([create, deny])).await;
    for source in SOURCES {
        let errors = async |name: &str| {
            let answer = try_out(&cloud, &blind, made_from(source, name)).await;
            answer.expect_problem(422, "validation_failed")["errors"].clone()
        };
        let there = errors(if source == "snapshot" { "snap" } else { "web" }).await;
        assert_eq!(there, errors("none").await);
    }
}

#[tokio::test]
async fn a_volume_to_boot_from_is_judged_like_a_disk_that_is_made() {
    let cloud = with_web().await;
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let boot =
        json!({"name": "new", "networks": [], "instance_type": "tiny", "root_volume": {"volume": "disk"}});
    for (number, condition) in [
        json!({"NumericGreaterThan": {"compute:RootDiskGib": 2}}),
        json!({"StringEquals": {"compute:Image": "image"}}),
        json!({"StringEquals": {"compute:ImageProject": "demo"}}),
    ]
    .into_iter()
    .enumerate()
    {
        let deny = json!({"Sid": "TooMuch", "Effect": "Deny", "Action": "compute:CreateInstance",
            "Resource": "*", "Condition": condition});
        let dev = somebody(&cloud, &format!("boot-{number}"), json!([all, deny])).await;
        let problem = try_out(&cloud, &dev, boot.clone()).await.expect_problem(403, "forbidden");
        assert_eq!(problem["denial"]["statements"][0]["sid"], "TooMuch", "{condition}");
        // Nor does it become one: what it is judged by is what a new one would be judged by.
        for (verb, body) in [
            ("resize", json!({"instance_type": "tiny"})),
            ("rebuild", json!({})),
            ("rescue", json!({"image": "image"})),
        ] {
            let path = format!("{INSTANCES}/web/{verb}?dry_run=true");
            let answer = cloud.call_with(Method::POST, &path, &[("authorization", &dev)], Some(body)).await;
            answer.expect_problem(403, "forbidden");
        }
    }
    let free = somebody(&cloud, "free", json!([all])).await;
    try_out(&cloud, &free, boot).await.expect(200);
}

#[tokio::test]
async fn what_goes_with_an_instance_is_the_callers_to_delete() {
    let cloud = with_web().await;
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Action": "volume:DeleteVolume", "Resource": "*"});
    let dev = somebody(&cloud, "dev", json!([all, deny])).await;
    let dev = [("authorization", dev.as_str())];
    let attach = format!("{INSTANCES}/web/attach_volume");
    let goes = json!({"volume": "disk", "delete_with_instance": true});
    cloud.call_with(Method::POST, &attach, &dev, Some(goes.clone())).await.expect_problem(403, "forbidden");
    let mut boot = json!({"name": "new", "networks": [], "instance_type": "tiny", "root_volume": goes});
    cloud.call_with(Method::POST, INSTANCES, &dev, Some(boot.clone())).await.expect_problem(403, "forbidden");
    boot["root_volume"]["delete_with_instance"] = json!(false);
    cloud.call_with(Method::POST, INSTANCES, &dev, Some(boot)).await.expect(202);
    let disk = "/v1/projects/demo/volumes/disk";
    let goes = json!({"delete_with_instance": true});
    cloud.call_with(Method::PATCH, disk, &dev, Some(goes.clone())).await.expect_problem(403, "forbidden");
    cloud.call(Method::PATCH, disk, Some(goes.clone())).await.expect(200);
    // It does already.
    cloud.call_with(Method::PATCH, disk, &dev, Some(goes)).await.expect(200);
}
