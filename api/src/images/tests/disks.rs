//! Images that are made of disks, sent by hosts that do as they are told, and by others.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use protocol::image::Format;
use protocol::image::corpus::honest;
use serde_json::{Value, json};
use sha2::Digest;
use sqlx::AssertSqlSafe;

use super::server::{MAX_BYTES, image, options, resolver};
use super::{IMAGES, swept};
use crate::images::Importer;
use crate::instances::place_pending;
use crate::testing::{Answer, TestCloud, TestHost};

pub(super) const WEB: &str = "/v1/projects/demo/instances/web";
pub(super) const VOLUMES: &str = "/v1/projects/demo/volumes";
pub(super) const SNAPSHOTS: &str = "/v1/projects/demo/snapshots";

/// A cloud with an image, which a disk may be made from.
pub(super) async fn furnished() -> TestCloud {
    let cloud = TestCloud::start_importing(Importer::for_tests(options(), resolver(), MAX_BYTES)).await;
    cloud.furnish().await;
    cloud
}

/// A small qcow2 file whose disk has 10 MiB.
pub(super) fn file() -> Vec<u8> {
    honest().into_iter().find(|(_, format, _)| *format == Format::Qcow2).unwrap().2
}

/// A qcow2 file whose disk has so many GiB: of clusters of 16 KiB, so that its L1 table has room.
fn large_file(gib: u64) -> Vec<u8> {
    let has_large_clusters = |bytes: &[u8]| bytes[20..24] == 14_u32.to_be_bytes();
    let files = honest().into_iter().filter(|(_, format, _)| *format == Format::Qcow2);
    let mut file = files.map(|(_, _, bytes)| bytes).find(|bytes| has_large_clusters(bytes)).unwrap();
    file[24..32].copy_from_slice(&(gib << 30).to_be_bytes());
    file[36..40].copy_from_slice(&2000_u32.to_be_bytes());
    file
}

pub(super) async fn execute(cloud: &TestCloud, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&cloud.app.pool).await.unwrap();
}

pub(super) async fn count(cloud: &TestCloud, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&cloud.app.pool).await.unwrap()
}

/// The instance `web`, which ran on the host and is stopped.
pub(super) async fn stopped(cloud: &TestCloud, host: &TestHost<'_>) -> Value {
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": []});
    let made = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&made["id"], 1, 1, json!({"state": "running"})).await;
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    host.report(&made["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    made
}

/// Asks for an image of the disk that `web` boots from.
pub(super) async fn publish(cloud: &TestCloud, name: &str) -> Value {
    let body = json!({"name": name, "source": {"instance": "web"}});
    cloud.post(IMAGES, body).await.expect(202)
}

/// What the host is ordered to send.
pub(super) async fn orders(host: &TestHost<'_>) -> Vec<Value> {
    let page = host.desired(0).await;
    let objects = page["objects"].as_array().unwrap().iter();
    objects.filter(|object| object["kind"] == "send_image").cloned().collect()
}

/// What only the control plane and its hosts know an order by.
fn path(host: &TestHost<'_>, order: &Value) -> String {
    format!("/agent/v1/images/{}?epoch={}", order.as_str().unwrap(), host.epoch)
}

pub(super) async fn send(cloud: &TestCloud, host: &TestHost<'_>, order: &Value, bytes: Vec<u8>) -> Answer {
    let length = Some(bytes.len());
    send_body(cloud, host, order, Body::from(bytes), length).await
}

pub(super) async fn send_body(
    cloud: &TestCloud,
    host: &TestHost<'_>,
    order: &Value,
    body: Body,
    length: Option<usize>,
) -> Answer {
    let mut request = Request::post(path(host, order));
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    cloud.agent_send(Some(host.id), request.body(body).unwrap()).await
}

/// Some bytes, and then a broken connection.
pub(super) fn broken(bytes: &[u8]) -> Body {
    let pieces = [Ok(Bytes::copy_from_slice(bytes)), Err(std::io::Error::other("cable pulled"))];
    Body::from_stream(futures_util::stream::iter(pieces))
}

pub(super) async fn say(host: &TestHost<'_>, order: &Value, status: Value) -> Answer {
    let path = format!("/agent/v1/images/{}/status", order.as_str().unwrap());
    host.call(Method::POST, &path, Some(json!({"epoch": host.epoch, "status": status}))).await
}

pub(super) async fn operation(cloud: &TestCloud, image: &Value) -> Value {
    let id = image["operation_id"].as_str().unwrap();
    cloud.get(&format!("/v1/projects/demo/operations/{id}")).await.expect(200)
}

pub(super) async fn findings(cloud: &TestCloud) -> Vec<String> {
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    let report = crate::verify::look(&mut conn, None, cloud.app.clock.now()).await.unwrap();
    let codes = report.findings.into_iter().map(|finding| finding.code);
    codes.filter(|code| !code.starts_with("network_") && !code.starts_with("host_network_")).collect()
}

#[tokio::test]
async fn a_stopped_instance_becomes_an_image_like_its_own() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    let properties = json!({"min_memory_mib": 128, "min_disk_gib": 1, "default_user": "debian"});
    cloud.call(Method::PATCH, &format!("{IMAGES}/image"), Some(properties)).await.expect(200);
    let web = stopped(&cloud, &host).await;
    let (_, disks) = host.disks(&web["id"]).await.unwrap();
    let before = disks[0]["volume"]["layers"].as_array().unwrap().clone();
    let dry = json!({"name": "golden", "source": {"instance": "web"}});
    let dry = cloud.post(&format!("{IMAGES}?dry_run=true"), dry).await.expect(200);
    assert_eq!((dry["state"].as_str(), orders(&host).await.len()), (Some("importing"), 0));

    let golden = publish(&cloud, "golden").await;
    assert_eq!((&golden["state"], &golden["format"]), (&json!("importing"), &json!("qcow2")));
    for (property, value) in [
        ("architecture", json!("x86_64")),
        ("firmware", json!("bios")),
        ("min_memory_mib", json!(128)),
        ("min_disk_gib", json!(1)),
        ("default_user", json!("debian")),
    ] {
        assert_eq!(golden[property], value, "{property}");
    }
    let begun = operation(&cloud, &golden).await;
    assert_eq!((&begun["kind"], &begun["resource_name"]), (&json!("create_image"), &json!("golden")));
    // The host sends what was there; whoever starts the guest writes to a layer over it.
    let orders_before = orders(&host).await;
    let (order, source) = (&orders_before[0]["transfer_id"], &orders_before[0]["source"]);
    assert_eq!(source["layers"], json!(before));
    assert_eq!((&source["size_gib"], &source["image"]["size_bytes"]), (&json!(1), &json!(4096)));
    let (generation, disks) = host.disks(&web["id"]).await.unwrap();
    assert_eq!((generation, disks[0]["volume"]["layers"].as_array().unwrap().len()), (3, before.len() + 1));
    assert_eq!(disks[0]["volume"]["layers"][0], before[0]);
    cloud.put_bytes(&format!("{IMAGES}/golden/content"), file()).await.expect_problem(409, "wrong_state");

    say(&host, order, json!({"status": "converting"})).await.expect(204);
    let delayed = json!({"status": "waiting", "detail": "The host\u{7}\nis full."});
    say(&host, order, delayed).await.expect(204);
    let steps = operation(&cloud, &golden).await["trail"].clone();
    assert_eq!(
        (&steps[1]["step"], &steps[2]["detail"]),
        (&json!("disk_copying"), &json!("The hostis full."))
    );
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    send(&cloud, &host, order, file()).await.expect(204);
    let done = image(&cloud, "golden").await;
    assert_eq!((&done["state"], &done["size_bytes"]), (&json!("available"), &json!(file().len())));
    assert_eq!(done["sha256"], hex::encode(sha2::Sha256::digest(file())));
    let ended = operation(&cloud, &golden).await;
    assert_eq!(ended["status"], "succeeded");
    let all = file().len();
    assert_eq!(ended["progress"], json!({"bytes": all, "total_bytes": all, "percent": 100}));
    // It is over: nothing is ordered, and nothing more is taken.
    assert_eq!(orders(&host).await.len(), 0);
    send(&cloud, &host, order, file()).await.expect_problem(404, "not_found");
    say(&host, order, json!({"status": "converting"})).await.expect_problem(404, "not_found");
    assert_eq!(swept(&cloud).await, (2, 2));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    let body = json!({"name": "next", "image": "golden", "instance_type": "tiny", "networks": []});
    cloud.post("/v1/projects/demo/instances", body).await.expect(202);
}

#[tokio::test]
async fn what_is_given_counts_more_than_what_the_disk_was_made_from() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    stopped(&cloud, &host).await;
    let body = json!({"name": "golden", "source": {"instance": "web"}, "format": "qcow2", "firmware": "uefi",
        "min_memory_mib": 64, "default_user": "admin", "labels": {"tier": "base"}, "description": "made"});
    let made = cloud.post(IMAGES, body).await.expect(202);
    assert_eq!((&made["firmware"], &made["min_memory_mib"]), (&json!("uefi"), &json!(64)));
    assert_eq!((&made["default_user"], &made["labels"]), (&json!("admin"), &json!({"tier": "base"})));
    for (wrong, pointer) in [
        (json!({"name": "x"}), "/format"),
        (json!({"name": "x", "source": {}}), "/source"),
        (json!({"name": "x", "source": {"volume": "a", "instance": "b"}}), "/source"),
        (json!({"name": "x", "source": {"snapshot": "a", "instance": "b"}}), "/source"),
        (json!({"name": "x", "source": {"snapshot": "none"}}), "/source/snapshot"),
        (json!({"name": "x", "source": {"instance": "web"}, "format": "raw"}), "/format"),
        (json!({"name": "x", "source": {"instance": "web"}, "sha256": "0".repeat(64)}), "/sha256"),
        (json!({"name": "x", "source": {"instance": "none"}}), "/source/instance"),
        (json!({"name": "x", "source": {"volume": "../x"}}), "/source/volume"),
        (json!({"name": "x", "source": {"surprise": "a"}}), "/source/surprise"),
    ] {
        let refused = cloud.post(IMAGES, wrong).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let taken = json!({"name": "golden", "source": {"instance": "web"}});
    host.report(
        &cloud.get(WEB).await.expect(200)["id"],
        3,
        1,
        json!({"state": "stopped", "reason": "requested"}),
    )
    .await;
    cloud.post(IMAGES, taken).await.expect_problem(409, "name_taken");
    assert_eq!(orders(&host).await.len(), 1);
}

#[tokio::test]
async fn only_a_disk_that_nobody_writes_to_and_that_is_somewhere_becomes_an_image() {
    let cloud = furnished().await;
    cloud.post(VOLUMES, json!({"name": "data", "size_gib": 1})).await.expect(201);
    let of_volume = json!({"name": "golden", "source": {"volume": "data"}});
    let refused = cloud.post(IMAGES, of_volume.clone()).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("has no data yet"), "{refused}");
    let of_instance = json!({"name": "golden", "source": {"instance": "web"}});
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": [],
        "volumes": [{"volume": "data"}]});
    let web = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    let refused = cloud.post(IMAGES, of_instance.clone()).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("has no data yet"), "{refused}");

    let host = cloud.join_host("host-1").await;
    place_pending(&cloud.app).await.unwrap();
    let both = [of_volume.clone(), of_instance.clone()];
    for state in [Value::Null, json!({"state": "preparing"}), json!({"state": "running"})] {
        if !state.is_null() {
            host.report(&web["id"], 1, 1, state).await;
        }
        for body in both.clone() {
            let refused = cloud.post(IMAGES, body).await.expect_problem(409, "wrong_state");
            assert!(refused["detail"].as_str().unwrap().contains("take a snapshot"), "{refused}");
        }
    }
    // On its way down, or up without a word of the host yet.
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    for body in both.clone() {
        cloud.post(IMAGES, body).await.expect_problem(409, "wrong_state");
    }
    host.report(&web["id"], 2, 1, json!({"state": "stopped", "reason": "requested"})).await;
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    cloud.post(IMAGES, of_instance.clone()).await.expect_problem(409, "wrong_state");
    cloud.post(&format!("{WEB}/stop"), json!({})).await.expect(202);
    let unheard = cloud.post(IMAGES, of_instance.clone()).await.expect_problem(409, "wrong_state");
    assert!(unheard["detail"].as_str().unwrap().contains("may be writing"), "{unheard}");
    host.report(&web["id"], 4, 2, json!({"state": "stopped", "reason": "requested"})).await;

    cloud.post(&format!("{WEB}/detach_volume"), json!({"volume": "data"})).await.expect(202);
    cloud.post(IMAGES, of_volume.clone()).await.expect_problem(409, "wrong_state");
    host.report(&web["id"], 5, 2, json!({"state": "stopped", "reason": "requested"})).await;
    // Now it is attached to nothing, and has its data there.
    cloud.post(IMAGES, of_volume).await.expect(202);
    let order = &orders(&host).await[0];
    assert_eq!(order["source"].get("image"), None, "it began empty");
    cloud.delete(WEB).await.expect(202);
    let late = json!({"name": "late", "source": {"instance": "web"}});
    let refused = cloud.post(IMAGES, late).await.expect_problem(409, "wrong_state");
    assert!(refused["detail"].as_str().unwrap().contains("being deleted"), "{refused}");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_snapshot_of_a_running_guest_becomes_an_image_of_the_disk_that_is_chosen() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": [],
        "volumes": [{"size_gib": 2, "name": "data"}]});
    let web = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    let (_, disks) = host.disks(&web["id"]).await.unwrap();
    let layers: Vec<_> = disks.iter().map(|disk| disk["volume"]["layers"].clone()).collect();
    cloud.post(SNAPSHOTS, json!({"name": "before", "instance": "web"})).await.expect(202);
    let of = |name: &str, volume: Value| {
        let mut body = json!({"name": name, "source": {"snapshot": "before"}});
        if !volume.is_null() {
            body["source"]["volume"] = volume;
        }
        body
    };
    let early = cloud.post(IMAGES, of("golden", Value::Null)).await.expect_problem(409, "wrong_state");
    assert!(early["detail"].as_str().unwrap().contains("being taken"), "{early}");
    host.report(&web["id"], 2, 1, json!({"state": "running"})).await;
    let unknown = cloud.post(IMAGES, of("golden", json!("none"))).await;
    assert_eq!(unknown.expect_problem(422, "validation_failed")["errors"][0]["pointer"], "/source/volume");
    cloud.post(IMAGES, of("golden", Value::Null)).await.expect(202);
    let data = cloud.post(IMAGES, of("data", json!("data"))).await.expect(202);
    assert_eq!(data.get("default_user"), None);
    let orders = orders(&host).await;
    assert_eq!((orders.len(), &orders[0]["source"]["layers"]), (2, &layers[0]));
    assert_eq!((&orders[1]["source"]["layers"], &orders[1]["source"]["size_gib"]), (&layers[1], &json!(2)));
    // The guest hears nothing of it.
    assert_eq!(host.disks(&web["id"]).await.unwrap().0, 2);
    for order in orders {
        send(&cloud, &host, &order["transfer_id"], file()).await.expect(204);
    }
    assert_eq!(image(&cloud, "golden").await["state"], "available");
    assert_eq!(image(&cloud, "data").await["state"], "available");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn it_takes_a_right_on_the_disk_and_one_on_the_image() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    stopped(&cloud, &host).await;
    let volume = cloud.get(WEB).await.expect(200)["volumes"][0]["volume"]["name"].clone();
    let (maker, reader) = (cloud.user("maker", false).await, cloud.user("reader", false).await);
    let grant = async |user: &str, name: &str, actions: Value| {
        let statement = json!([{"Effect": "Allow", "Action": actions, "Resource": "*"}]);
        let body = json!({"name": name, "document": {"Version": "2012-10-17", "Statement": statement}});
        cloud.post("/v1/projects/demo/policies", body).await.expect(201);
        let body = json!({"policy": name, "user": user});
        cloud.post("/v1/projects/demo/policy_attachments", body).await.expect(201);
    };
    let attempt = async |who: &str, name: &str, source: Value| {
        let body = json!({"name": name, "source": source});
        cloud.call_with(Method::POST, IMAGES, &[("authorization", who)], Some(body)).await
    };
    cloud.post(SNAPSHOTS, json!({"name": "before", "instance": "web"})).await.expect(201);
    let id = &cloud.get(WEB).await.expect(200)["id"];
    host.report(id, 3, 1, json!({"state": "stopped", "reason": "requested"})).await;
    let (instance, of_volume) = (json!({"instance": "web"}), json!({"volume": volume}));
    let snapshot = json!({"snapshot": "before"});
    let denied = |answer: Answer| answer.expect_problem(403, "forbidden")["denial"]["action"].clone();
    grant("maker", "make", json!(["image:CreateImage", "image:GetImage"])).await;
    // It may not know of the disks.
    let unknown = attempt(&maker, "a", instance.clone()).await.expect_problem(422, "validation_failed");
    assert_eq!(unknown["errors"][0]["pointer"], "/source/instance");
    let unknown = attempt(&maker, "a", of_volume.clone()).await.expect_problem(422, "validation_failed");
    assert_eq!(unknown["errors"][0]["pointer"], "/source/volume");
    let unknown = attempt(&maker, "a", snapshot.clone()).await.expect_problem(422, "validation_failed");
    assert_eq!(unknown["errors"][0]["pointer"], "/source/snapshot");
    let see = ["compute:GetInstance", "volume:GetVolume", "volume:GetSnapshot", "volume:RestoreSnapshot"];
    grant("maker", "see", json!(see)).await;
    assert_eq!(denied(attempt(&maker, "a", snapshot.clone()).await), "volume:ExportSnapshot");
    assert_eq!(denied(attempt(&maker, "a", instance.clone()).await), "compute:ExportInstance");
    assert_eq!(denied(attempt(&maker, "a", of_volume.clone()).await), "volume:ExportVolume");
    grant("maker", "instances", json!(["compute:ExportInstance"])).await;
    assert_eq!(denied(attempt(&maker, "a", of_volume.clone()).await), "volume:ExportVolume");
    attempt(&maker, "a", instance.clone()).await.expect(202);
    host.report(id, 4, 1, json!({"state": "stopped", "reason": "requested"})).await;
    grant("maker", "volumes", json!(["volume:ExportVolume"])).await;
    attempt(&maker, "b", of_volume.clone()).await.expect(202);
    grant("maker", "snapshots", json!(["volume:ExportSnapshot"])).await;
    attempt(&maker, "c", snapshot).await.expect(202);

    let all = json!({"policy": "read-only", "user": "reader"});
    cloud.post("/v1/projects/demo/policy_attachments", all).await.expect(201);
    assert_eq!(denied(attempt(&reader, "d", instance.clone()).await), "image:CreateImage");
    grant("reader", "only", json!(["compute:ExportInstance", "volume:ExportVolume"])).await;
    assert_eq!(denied(attempt(&reader, "d", instance).await), "image:CreateImage");
    assert_eq!(orders(&host).await.len(), 3);
}

#[tokio::test]
async fn a_host_that_lies_makes_a_failed_image_and_nothing_else() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    let stranger = cloud.join_host("host-2").await;
    let web = stopped(&cloud, &host).await;
    let endless = || {
        let pieces =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![7; 1 << 20])));
        Body::from_stream(pieces)
    };
    let beyond = usize::try_from(MAX_BYTES).unwrap() + 1;
    type Case = (&'static str, fn() -> Vec<u8>, &'static str, &'static str);
    let cases: [Case; 5] = [
        ("raw", || vec![0; 4096], "image_refused", "format_mismatch"),
        ("nothing", Vec::new, "image_refused", ""),
        ("large", || large_file(2), "image_refused", "larger than the 1 GiB of its volume"),
        ("endless", Vec::new, "payload_too_large", "at most"),
        ("promised", Vec::new, "payload_too_large", "at most"),
    ];
    for (number, (name, bytes, code, why)) in (3..).zip(cases) {
        let made = publish(&cloud, name).await;
        host.report(&web["id"], number, 1, json!({"state": "stopped", "reason": "requested"})).await;
        let order = orders(&host).await[0]["transfer_id"].clone();
        // Whoever does not have the disk has nothing to say.
        assert_eq!(orders(&stranger).await.len(), 0);
        send(&cloud, &stranger, &order, file()).await.expect_problem(404, "not_found");
        say(&stranger, &order, json!({"status": "failed", "detail": "x"}))
            .await
            .expect_problem(404, "not_found");
        let answer = match name {
            "endless" => send_body(&cloud, &host, &order, endless(), None).await,
            "promised" => send_body(&cloud, &host, &order, Body::empty(), Some(beyond)).await,
            _ => send(&cloud, &host, &order, bytes()).await,
        };
        answer.expect_problem(422, "image_refused");
        let failed = image(&cloud, name).await;
        assert_eq!(
            (&failed["state"], &failed["failure"]["code"]),
            (&json!("failed"), &json!(code)),
            "{failed}"
        );
        assert!(failed["failure"]["detail"].as_str().unwrap().contains(why), "{failed}");
        assert_eq!(operation(&cloud, &made).await["error"], failed["failure"]);
        send(&cloud, &host, &order, file()).await.expect_problem(404, "not_found");
        assert_eq!(orders(&host).await.len(), 0);
        assert_eq!(swept(&cloud).await, (1, 1), "{name}");
    }
    publish(&cloud, "said").await;
    let order = orders(&host).await[0]["transfer_id"].clone();
    let stale = format!("/agent/v1/images/{}?epoch={}", order.as_str().unwrap(), host.epoch - 1);
    host.call(Method::POST, &stale, None).await.expect_problem(409, "stale_epoch");
    for unknown in ["x", "0190a0a0-0000-7000-8000-000000000000"] {
        send(&cloud, &host, &json!(unknown), file()).await.expect_problem(404, "not_found");
    }
    let said = json!({"status": "failed", "detail": format!("Nothing\0 there{}", "x".repeat(2000))});
    say(&host, &order, said).await.expect(204);
    let failed = image(&cloud, "said").await;
    assert_eq!(failed["failure"]["code"], "export_failed");
    let detail = failed["failure"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("Nothing there") && detail.chars().count() == 1000, "{detail}");
    assert_eq!(orders(&host).await.len(), 0);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}
