//! Who may use sizes that are not those of a type.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allowing, attach, call_as, document, policy};
use crate::testing::TestCloud;

const PROJECT: &str = "/v1/projects/demo";

#[tokio::test]
async fn a_size_of_ones_own_needs_a_right_that_the_cloud_gives() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let small = json!({"name": "small", "vcpus": 2, "memory_mib": 512, "root_disk_gib": 1});
    cloud.post("/v1/instance_types", small).await.expect(201);
    let dev = cloud.user("dev", false).await;
    // Neither what projects have by default nor what they say themselves.
    attach(&cloud, PROJECT, "project-owner", "user", "dev").await;
    policy(&cloud, PROJECT, "own-rules", allowing("compute:*")).await;
    attach(&cloud, PROJECT, "own-rules", "user", "dev").await;
    let instances = format!("{PROJECT}/instances");
    let create = async |body: Value| call_as(&cloud, &dev, Method::POST, &instances, Some(body)).await;
    let resize = async |name: &str, body: Value| {
        call_as(&cloud, &dev, Method::POST, &format!("{instances}/{name}/resize"), Some(body)).await
    };
    let sized = |name: &str, vcpus: u32| json!({"name": name, "image": "image", "instance_type": "small", "vcpus": vcpus, "networks": []});
    let problem = create(sized("web", 3)).await.expect_problem(403, "forbidden");
    assert!(problem["detail"].as_str().unwrap().contains("compute:UseCustomSize"), "{problem}");
    // What the type has anyway is no other size.
    create(sized("web", 2)).await.expect(202);
    resize("web", json!({"vcpus": 3})).await.expect_problem(403, "forbidden");

    let some = document(json!([{
        "Effect": "Allow", "Action": "compute:UseCustomSize", "Resource": "crn:cumulo:compute:demo:instance/*",
        "Condition": {
            "NumericLessThanEquals": {"compute:Vcpus": 4},
            "StringEquals": {"compute:InstanceType": "small"}
        }
    }]));
    policy(&cloud, "/v1", "own-sizes", some).await;
    attach(&cloud, "/v1", "own-sizes", "user", "dev").await;
    create(sized("four", 4)).await.expect(202);
    create(sized("five", 5)).await.expect_problem(403, "forbidden");
    resize("web", json!({"vcpus": 3})).await.expect(202);
    resize("web", json!({"vcpus": 5})).await.expect_problem(403, "forbidden");
    resize("web", json!({"instance_type": "tiny", "vcpus": 3})).await.expect_problem(403, "forbidden");
    // Back to the type's own size, whoever gave it the other one.
    resize("web", json!({"instance_type": "small"})).await.expect(202);
    // A clone of what one may not make is not made, either.
    cloud.post(&instances, sized("large", 6)).await.expect(202);
    create(json!({"name": "twin", "source": {"instance": "large"}})).await.expect_problem(403, "forbidden");
    create(json!({"name": "twin", "source": {"instance": "large"}, "vcpus": 4})).await.expect(202);
}
