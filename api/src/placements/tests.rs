//! Questions about placement, and what operators say of hosts and types.

mod guide;
mod hardware;

use axum::http::Method;
use serde_json::{Value, json};

use crate::instances::place_pending;
use crate::testing::TestCloud;

const INSTANCES: &str = "/v1/projects/demo/instances";
const PLAN: &str = "/v1/projects/demo/placements/plan";

fn instance(name: &str, instance_type: &str) -> Value {
    json!({"name": name, "image": "image", "instance_type": instance_type})
}

async fn of_type(cloud: &TestCloud, mut more: Value) {
    let mut body = json!({"vcpus": 1, "memory_mib": 256, "root_disk_gib": 1});
    body.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
    cloud.post("/v1/instance_types", body).await.expect(201);
}

async fn patch_host(cloud: &TestCloud, host: &str, body: Value) -> Value {
    cloud.call(Method::PATCH, &format!("/v1/hosts/{host}"), Some(body)).await.expect(200)
}

async fn summary(cloud: &TestCloud, name: &str) -> Value {
    place_pending(&cloud.app).await.unwrap();
    cloud.get(&format!("{INSTANCES}/{name}")).await.expect(200)["placement"]["summary"].clone()
}

#[tokio::test]
async fn hosts_are_kept_for_types_and_taken_out_for_maintenance() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _host = cloud.join_host("host-1").await;
    of_type(&cloud, json!({"name": "gpu", "host_labels": {"gpu": "a100"}, "tolerations": ["gpu"]})).await;
    let described = json!({"labels": {"gpu": "t4"}, "taints": ["gpu", "gpu"], "rack": "r1", "zone": "north"});
    let host = patch_host(&cloud, "host-1", described).await;
    assert_eq!(
        (&host["labels"], &host["taints"], &host["rack"], &host["zone"], &host["cordoned"]),
        (&json!({"gpu": "t4"}), &json!(["gpu"]), &json!("r1"), &json!("north"), &json!(false))
    );
    cloud.post(INSTANCES, instance("plain", "tiny")).await.expect(202);
    cloud.post(INSTANCES, instance("special", "gpu")).await.expect(202);
    let nothing_helps = "no change of it would help now, an operator can look into it";
    assert_eq!(
        summary(&cloud, "plain").await,
        format!("none of 1 hosts takes it: 1 kept for other types; {nothing_helps}")
    );
    assert_eq!(
        summary(&cloud, "special").await,
        format!("none of 1 hosts takes it: 1 not meant for its type; {nothing_helps}")
    );
    patch_host(&cloud, "host-1", json!({"labels": {"gpu": "a100"}, "cordoned": true})).await;
    assert_eq!(
        summary(&cloud, "special").await,
        format!("none of 1 hosts takes it: 1 cordoned; {nothing_helps}")
    );
    patch_host(&cloud, "host-1", json!({"cordoned": false})).await;
    assert_eq!(summary(&cloud, "special").await, Value::Null);
    assert_eq!(
        summary(&cloud, "plain").await,
        "none of 1 hosts takes it: 1 kept for other types; it would fit as type gpu"
    );
    patch_host(&cloud, "host-1", json!({"taints": []})).await;
    assert_eq!(summary(&cloud, "plain").await, Value::Null);
    for wrong in [json!({"taints": ["A b"]}), json!({"rack": "A b"}), json!({"labels": {"a b": ""}})] {
        let refused = cloud.call(Method::PATCH, "/v1/hosts/host-1", Some(wrong)).await;
        refused.expect_problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn whoever_cannot_wait_is_refused_or_placed_at_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    of_type(&cloud, json!({"name": "huge", "vcpus": 100})).await;
    let host = cloud.join_host("host-1").await;
    let mut body = instance("web", "huge");
    body["when_no_room"] = json!("fail");
    let refused = cloud.post(INSTANCES, body.clone()).await.expect_problem(409, "insufficient_capacity");
    let words =
        "none of 1 hosts takes it: 1 too few free vCPUs; it would fit with 84 vCPUs less, or as type tiny";
    assert_eq!((&refused["detail"], &refused["placement"]["summary"]), (&json!(words), &json!(words)));
    assert_eq!(refused["placement"]["rejections"], json!([{"reason": "vcpus", "hosts": 1}]));
    cloud.get(&format!("{INSTANCES}/web")).await.expect_problem(404, "not_found");
    assert_eq!(cloud.get("/v1/projects/demo/volumes").await.expect(200)["items"], json!([]));
    // The remedy fits when it is tried.
    body["instance_type"] = json!("tiny");
    let placed = cloud.post(INSTANCES, body).await.expect(202);
    assert_eq!(placed["state"], "provisioning");
    assert_eq!(host.desired(0).await["objects"][0]["id"], placed["id"]);
    let clone = json!({"name": "copy", "source": {"instance": "web"}, "when_no_room": "fail"});
    let refused = cloud.post(INSTANCES, clone).await.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["pointer"], "/when_no_room");
}

#[tokio::test]
async fn an_operation_that_waited_too_long_says_for_what() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let waiting = cloud.post(INSTANCES, instance("web", "tiny")).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    cloud.pass(3600);
    crate::operations::expire(&cloud.app).await.unwrap();
    cloud.sign_in_again().await;
    let operation = waiting["operation"]["id"].as_str().unwrap();
    let operation = cloud.get(&format!("/v1/projects/demo/operations/{operation}")).await.expect(200);
    assert_eq!(
        operation["error"],
        json!({"code": "deadline_exceeded", "detail": "it did not end in time: no host has joined this cloud yet; the \
               instance still waits for a host"})
    );
}

#[tokio::test]
async fn a_plan_is_for_all_or_for_none() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    let group = json!({"name": "web", "policy": "anti_affinity"});
    cloud.post("/v1/projects/demo/placement_groups", group).await.expect(201);
    let entry = |count: u32| {
        json!({"instance_type": "tiny", "image": "image", "count": count, "placement_group": "web",
            "further_disk_gib": 4})
    };
    let plan =
        cloud.post(PLAN, json!({"instances": [entry(2), {"instance_type": "tiny"}]})).await.expect(200);
    assert_eq!(plan["placeable"], true);
    let quota = plan["quota"].as_array().unwrap();
    let disk = quota.iter().find(|one| one["resource"] == "disk_gib").unwrap();
    assert_eq!((&disk["used"], &disk["after"]), (&json!(0), &json!(11)));
    let plan = cloud.post(PLAN, json!({"instances": [entry(2), entry(2)]})).await.expect(200);
    assert_eq!((&plan["placeable"], &plan["instances"][0]["placeable"]), (&json!(false), &json!(2)));
    assert_eq!(
        (&plan["instances"][1]["placeable"], &plan["instances"][1]["placement"]["summary"]),
        (
            &json!(0),
            &json!(
                "none of 2 hosts takes it: 2 in a host that group web has an instance in; it would fit without \
                 group web"
            )
        )
    );
    // Nothing was kept.
    assert_eq!(cloud.get(INSTANCES).await.expect(200)["items"], json!([]));
    for (wrong, pointer) in [
        (json!({"instances": []}), "/instances"),
        (json!({"instances": [entry(501)]}), "/instances"),
        (json!({"instances": [entry(0)]}), "/instances/0/count"),
        (json!({"instances": [entry(1), {"instance_type": "none"}]}), "/instances/1/instance_type"),
        (json!({"instances": [{"instance_type": "tiny", "image": "none"}]}), "/instances/0/image"),
        (
            json!({"instances": [{"instance_type": "tiny", "placement_group": "none"}]}),
            "/instances/0/placement_group",
        ),
    ] {
        let refused = cloud.post(PLAN, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
}

#[tokio::test]
async fn a_plan_says_what_quotas_refuse_and_names_no_group_to_those_who_may_not_know_it() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    let limit = json!({"instances": 2, "vcpus": 100});
    cloud.call(Method::PATCH, "/v1/projects/demo/quotas", Some(limit)).await.expect(200);
    let ask = |count: u32| json!({"instances": [{"instance_type": "tiny", "count": count}]});
    let plan = cloud.post(PLAN, ask(2)).await.expect(200);
    assert_eq!((&plan["possible"], &plan["quota_refusal"]), (&json!(true), &Value::Null));
    let plan = cloud.post(PLAN, ask(3)).await.expect(200);
    assert_eq!((&plan["placeable"], &plan["possible"]), (&json!(true), &json!(false)));
    let limits = json!([{"resource": "instances", "limit": 2, "used": 0, "asked": 3}]);
    assert_eq!(plan["quota_refusal"]["limits"], limits);
    assert!(plan["quota_refusal"]["detail"].as_str().unwrap().starts_with("instances: the limit is 2"));
    let volumes = plan["quota"].as_array().unwrap().iter().find(|one| one["resource"] == "volumes").unwrap();
    assert_eq!((&volumes["used"], &volumes["after"]), (&json!(0), &json!(3)));

    let group = json!({"name": "secret", "policy": "anti_affinity"});
    let id = cloud.post("/v1/projects/demo/placement_groups", group).await.expect(201)["id"].clone();
    let ada = cloud.user("ada", false).await;
    let document = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "compute:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "compute:GetPlacementGroup", "Resource": "*"}]});
    let policy = json!({"name": "plans", "document": document});
    cloud.post("/v1/projects/demo/policies", policy).await.expect(201);
    let attachment = json!({"policy": "plans", "user": "ada"});
    cloud.post("/v1/projects/demo/policy_attachments", attachment).await.expect(201);
    let apart = json!({"instances": [{"instance_type": "tiny", "count": 3, "placement_group": id}]});
    let post = Method::POST;
    let refused = cloud.call_with(post, PLAN, &[("authorization", &ada)], Some(apart.clone())).await;
    let refused = refused.expect_problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["pointer"], "/instances/0/placement_group");
    assert!(!refused.to_string().contains("secret"), "{refused}");
    let plan = cloud.post(PLAN, apart).await.expect(200);
    assert!(
        plan["instances"][0]["placement"]["summary"].as_str().unwrap().contains("group secret"),
        "{plan}"
    );
}

#[tokio::test]
async fn the_operator_sees_each_host_and_the_tenant_none() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    of_type(&cloud, json!({"name": "huge", "vcpus": 100, "memory_mib": 8000})).await;
    let _hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    patch_host(&cloud, "host-2", json!({"cordoned": true})).await;
    let waiting = cloud.post(INSTANCES, instance("web", "huge")).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let shown = cloud.get(&format!("{INSTANCES}/web")).await.expect(200);
    assert!(!shown.to_string().contains("host-"), "{shown}");
    let detail = format!("/v1/placements/{}", waiting["id"].as_str().unwrap());
    let seen = cloud.get(&detail).await.expect(200);
    assert_eq!(seen["placement"], shown["placement"]);
    assert_eq!((&seen["instance"]["name"], &seen["project"]["name"]), (&json!("web"), &json!("demo")));
    let hosts = seen["hosts"].as_array().unwrap();
    let of =
        |name: &str| hosts.iter().find(|host| host["host"]["name"] == name).unwrap()["rejections"].clone();
    let too_large = [
        json!({"reason": "vcpus", "detail": "asks for 100 vCPUs, 16 of 16 are free"}),
        json!({"reason": "memory", "detail": "asks for 8000 MiB of memory, 7680 of 7680 are free"}),
    ];
    assert_eq!(of("host-1"), json!(too_large));
    assert_eq!(
        of("host-2"),
        json!([{"reason": "cordoned", "detail": "it is cordoned"}, too_large[0], too_large[1]])
    );
    let running = cloud.post(INSTANCES, instance("small", "tiny")).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let placed = cloud.get(&format!("/v1/placements/{}", running["id"].as_str().unwrap())).await.expect(200);
    assert_eq!((&placed["host"]["name"], &placed["hosts"][0]["takes"]), (&json!("host-1"), &json!(true)));
    for path in ["/v1/placements/web", "/v1/placements/0199a000-0000-7000-8000-000000000000"] {
        cloud.get(path).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn capacity_says_what_fits_and_which_losses_are_survived() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let _hosts = [cloud.join_host("host-1").await, cloud.join_host("host-2").await];
    of_type(&cloud, json!({"name": "large", "vcpus": 9})).await;
    let capacity = async |of: &str| cloud.get(&format!("/v1/capacity?type={of}")).await.expect(200);
    assert_eq!(capacity("tiny").await["room"], 32);
    assert_eq!(capacity("large").await["room"], 2);
    for name in ["a", "b"] {
        cloud.post(INSTANCES, instance(name, "large")).await.expect(202);
    }
    place_pending(&cloud.app).await.unwrap();
    let now = capacity("tiny").await;
    assert_eq!(now["room"], 14);
    assert_eq!((&now["all"]["instances"], &now["all"]["failures"]), (&json!(2), &json!(0)));
    let critical = now["all"]["critical"].as_array().unwrap();
    assert_eq!(critical.len(), 2);
    assert_eq!((&critical[0]["host"]["name"], &critical[0]["instances"]), (&json!("host-1"), &json!(1)));
    assert_eq!(now["with_shared_disks"], json!({"instances": 0, "failures": 2, "critical": []}));
    cloud.get("/v1/capacity?type=none").await.expect_problem(400, "invalid_query");
    cloud.get("/v1/capacity").await.expect_problem(400, "invalid_query");
}
