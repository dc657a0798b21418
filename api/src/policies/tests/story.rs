//! A small company and its shop: from the first invitation to the first refusal.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allowing, attach, call_as, call_from, document, instance};
use crate::testing::{Answer, TestCloud};

const OFFICE: &str = "203.0.113.20";
const HOME: &str = "198.51.100.7";

/// What the developer may do: everything with machines and images, but only from the office, and without
/// deleting the database.
fn developer() -> Value {
    document(json!([
        {
            "Sid": "WorkFromTheOffice",
            "Effect": "Allow",
            "Action": ["compute:*", "image:*", "operation:*", "project:GetProject"],
            "Resource": "*",
            "Condition": {"IpAddress": {"cumulo:SourceIp": "203.0.113.0/24"}}
        },
        {
            "Sid": "KeepTheDatabase",
            "Effect": "Deny",
            "Action": "compute:DeleteInstance",
            "Resource": "crn:cumulo:compute:demo:instance/db"
        }
    ]))
}

fn denial(answer: &Answer) -> (String, Value) {
    let problem = answer.expect_problem(403, "forbidden");
    (problem["detail"].as_str().unwrap().to_owned(), problem["denial"].clone())
}

#[tokio::test]
async fn the_developer_may_do_everything_but_delete_the_database_and_only_from_the_office() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let ann = cloud.user("ann", false).await;
    let dev = cloud.user("dev", false).await;
    let shop = "/v1/projects/demo";
    attach(&cloud, shop, "project-owner", "user", "ann").await;

    // The owner writes the policy and gives it to the developer, without any help of an administrator.
    let body = json!({"name": "developer", "document": developer()});
    let made = call_as(&cloud, &ann, Method::POST, &format!("{shop}/policies"), Some(body)).await.expect(201);
    let body = json!({"policy": "developer", "user": "dev"});
    let attached = call_as(&cloud, &ann, Method::POST, &format!("{shop}/policy_attachments"), Some(body))
        .await
        .expect(201);

    let from = async |address: &str, method: Method, path: &str, body: Option<Value>| {
        call_from(&cloud, address, &dev, method, &format!("{shop}{path}"), body).await
    };
    for name in ["web", "db"] {
        from(OFFICE, Method::POST, "/instances", Some(instance(name))).await.expect(202);
    }
    let db = from(OFFICE, Method::GET, "/instances/db", None).await.expect(200);

    // By name as by id, and with the reason: who may see the database may know why it stays.
    for path in ["/instances/db".to_owned(), format!("/instances/{}", db["id"].as_str().unwrap())] {
        let (detail, denial) = denial(&from(OFFICE, Method::DELETE, &path, None).await);
        assert_eq!(
            detail,
            "policy developer, statement KeepTheDatabase, denies compute:DeleteInstance on \
             crn:cumulo:compute:demo:instance/db; ask whoever may change that"
        );
        assert_eq!(denial["statements"][0]["policy_id"], made["id"]);
        assert_eq!(denial["statements"][0]["sid"], "KeepTheDatabase");
        assert_eq!(
            (&denial["statements"][0]["version"], &denial["statements"][0]["statement"]),
            (&json!(1), &json!(1))
        );
    }
    // Nor under another name.
    let rename = Some(json!({"name": "junk"}));
    let (detail, denied) = denial(&from(OFFICE, Method::PATCH, "/instances/db", rename).await);
    assert!(
        detail.contains("could do what you may not do now") && detail.contains("KeepTheDatabase"),
        "{detail}"
    );
    assert_eq!(denied["action"], "compute:DeleteInstance");
    from(OFFICE, Method::DELETE, "/instances/web", None).await.expect(202);

    // From home nothing is there, and the project says why, since the developer is a member.
    from(HOME, Method::GET, "/instances/db", None).await.expect_problem(404, "not_found");
    let (detail, denied) = denial(&from(HOME, Method::GET, "/instances", None).await);
    assert!(detail.starts_with("no policy that is attached to you allows compute:ListInstances"), "{detail}");
    assert_eq!(denied["statements"], json!([]));
    // Identity is the owner's business.
    denial(
        &from(
            OFFICE,
            Method::POST,
            "/policy_attachments",
            Some(json!({"policy": "administrator", "user": "dev"})),
        )
        .await,
    );

    let listed = async |address: &str| {
        call_from(&cloud, address, &dev, Method::GET, "/v1/projects", None).await.expect(200)["items"].clone()
    };
    assert_eq!((&listed(OFFICE).await[0]["name"], listed(HOME).await), (&json!("demo"), json!([])));
    let path = format!("{shop}/policy_attachments/{}", attached["id"].as_str().unwrap());
    call_as(&cloud, &ann, Method::DELETE, &path, None).await.expect(204);
    from(OFFICE, Method::GET, "/instances/db", None).await.expect_problem(404, "not_found");
    assert_eq!(listed(OFFICE).await, json!([]));
}

#[tokio::test]
async fn every_change_is_in_force_on_the_next_request_of_every_replica() {
    let cloud = TestCloud::start().await;
    let replica = cloud.replica().await;
    cloud.furnish().await;
    let dev = cloud.user("dev", false).await;
    let (list, project) = ("/v1/projects/demo/instances", "/v1/projects/demo");
    super::policy(&cloud, project, "work", allowing("compute:*")).await;
    let statuses = async || {
        let mut all = Vec::new();
        for replica in [&cloud, &replica] {
            all.push(call_as(replica, &dev, Method::GET, list, None).await.status.as_u16());
        }
        all
    };
    let patch = async |at: &TestCloud, body: Value| {
        at.call(Method::PATCH, &format!("{project}/policies/work"), Some(body)).await.expect(200);
    };
    for round in 0..3 {
        // Whoever was last to know has it compiled already.
        assert_eq!(statuses().await, [404, 404], "{round}: nothing is attached");
        let attachment = attach(&cloud, project, "work", "user", "dev").await;
        assert_eq!(statuses().await, [200, 200], "{round}: attached");
        patch(&replica, json!({"document": allowing("image:*")})).await;
        assert_eq!(statuses().await, [403, 403], "{round}: a version without this right");
        patch(&cloud, json!({"default_version": 1})).await;
        assert_eq!(statuses().await, [200, 200], "{round}: rolled back");
        replica.delete(&format!("{project}/policy_attachments/{attachment}")).await.expect(204);
    }
    // A refusal in a transaction of its own sees no older state either.
    attach(&replica, project, "work", "user", "dev").await;
    call_as(&cloud, &dev, Method::POST, list, Some(instance("web"))).await.expect(202);
    patch(&cloud, json!({"document": allowing("compute:ListInstances")})).await;
    let refused = call_as(&replica, &dev, Method::POST, list, Some(instance("two"))).await;
    refused.expect_problem(403, "forbidden");
}
