//! Disks whose hosts break off, send again, or never come; images that are deleted meanwhile.

use std::time::Duration;

use axum::body::{Body, Bytes};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::disks::{
    SNAPSHOTS, VOLUMES, WEB, broken, count, execute, file, findings, furnished, operation, orders, publish,
    say, send, send_body, stopped,
};
use super::server::image;
use super::{IMAGES, swept};
use crate::images::run_imports;
use crate::operations;
use crate::testing::{TestCloud, TestHost};
use crate::volumes::merge;

const HELD: &str = "SELECT count(*) FROM image_imports";

/// A body that brings what is sent to it.
fn slow() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(bytes), receiver))
    });
    (sender, Body::from_stream(pieces))
}

async fn until(cloud: &TestCloud, sql: &str) {
    let there = async {
        while count(cloud, sql).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there).await.expect("it never came");
}

#[tokio::test]
async fn a_host_that_breaks_off_sends_again_from_the_beginning() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    stopped(&cloud, &host).await;
    let made = publish(&cloud, "golden").await;
    let order = orders(&host).await[0]["transfer_id"].clone();
    let all = file();
    for attempt in 1..=7 {
        let answer = match attempt {
            // Less, or more, than was announced.
            1 => send_body(&cloud, &host, &order, Body::from(all.clone()), Some(all.len() + 1)).await,
            2 => send_body(&cloud, &host, &order, Body::from(all.clone()), Some(all.len() - 1)).await,
            _ => send_body(&cloud, &host, &order, broken(&all[..100]), Some(all.len())).await,
        };
        answer.expect_problem(400, "bad_request");
        assert_eq!(image(&cloud, "golden").await["state"], "importing");
        assert_eq!(orders(&host).await.len(), 1, "it is still to be sent");
    }
    let trail = operation(&cloud, &made).await["trail"].to_string();
    assert!(trail.contains("attempt_7_failed") && trail.contains("the host broke off"), "{trail}");
    assert_eq!(swept(&cloud).await, (1, 1));
    send(&cloud, &host, &order, all).await.expect(204);
    assert_eq!(image(&cloud, "golden").await["state"], "available");
    assert_eq!(swept(&cloud).await, (2, 2));
}

#[tokio::test]
async fn of_attempts_at_once_one_fills_the_image_on_whichever_replica() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    stopped(&cloud, &host).await;
    publish(&cloud, "golden").await;
    let order = orders(&host).await[0]["transfer_id"].clone();
    let replica = cloud.replica().await;
    let (pieces, body) = slow();
    let first = send_body(&cloud, &host, &order, body, None);
    let others = async {
        until(&cloud, "SELECT count(*) FROM image_imports WHERE blob_id IS NOT NULL").await;
        send(&replica, &host, &order, file()).await.expect_problem(503, "busy");
        send(&cloud, &host, &order, file()).await.expect_problem(503, "busy");
        // As if this replica had been stopped for longer than its lease lasts. It was not, and may renew it in between.
        let taken_over = loop {
            execute(&cloud, "UPDATE image_imports SET lease_until = created_at").await;
            let answer = send(&replica, &host, &order, file()).await;
            if answer.status.as_u16() != 503 {
                break answer;
            }
        };
        taken_over.expect(204);
        // The one that was overtaken may have noticed by now, and take no more.
        pieces.send(Bytes::from(file())).await.ok();
        drop(pieces);
    };
    let (overtaken, ()) = tokio::join!(first, others);
    overtaken.expect_problem(404, "not_found");
    assert_eq!(image(&cloud, "golden").await["state"], "available");
    assert_eq!(count(&cloud, "SELECT count(*) FROM blobs WHERE state = 'stored'").await, 2);

    // All at the same time.
    let id = cloud.get(WEB).await.expect(200)["id"].clone();
    host.report(&id, 3, 1, json!({"state": "stopped", "reason": "requested"})).await;
    publish(&cloud, "again").await;
    let order = orders(&host).await[0]["transfer_id"].clone();
    let sends = (0..6).map(|n| send(if n % 2 == 0 { &cloud } else { &replica }, &host, &order, file()));
    let answers = futures_util::future::join_all(sends).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [204, 404, 503].contains(status)), "{statuses:?}");
    assert_eq!(image(&cloud, "again").await["state"], "available");
}

#[tokio::test]
async fn an_image_that_is_deleted_halfway_stops_its_host() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    stopped(&cloud, &host).await;
    let made = publish(&cloud, "golden").await;
    let order = orders(&host).await[0]["transfer_id"].clone();
    let (pieces, body) = slow();
    let sending = send_body(&cloud, &host, &order, body, Some(1 << 20));
    let deleting = async {
        pieces.send(Bytes::from(file())).await.unwrap();
        until(&cloud, "SELECT count(*) FROM operations WHERE progress_total_bytes = 1048576").await;
        cloud.delete(&format!("{IMAGES}/golden")).await.expect(204);
    };
    let (stopped, ()) = tokio::join!(sending, deleting);
    stopped.expect_problem(404, "not_found");
    drop(pieces);
    run_imports(&cloud.app).await.unwrap();
    let ended = operation(&cloud, &made).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("cancelled"), &json!("image_deleted")));
    say(&host, &order, json!({"status": "converting"})).await.expect_problem(404, "not_found");
    assert_eq!((orders(&host).await.len(), count(&cloud, HELD).await), (0, 0));
    assert_eq!(swept(&cloud).await, (1, 1));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_operation_that_is_cancelled_leaves_an_empty_image() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    stopped(&cloud, &host).await;
    let made = publish(&cloud, "golden").await;
    let order = orders(&host).await[0]["transfer_id"].clone();
    let cancel = format!("/v1/projects/demo/operations/{}/cancel", made["operation_id"].as_str().unwrap());
    cloud.post(&cancel, json!({})).await.expect(200);
    assert_eq!(image(&cloud, "golden").await["state"], "awaiting_upload");
    send(&cloud, &host, &order, file()).await.expect_problem(404, "not_found");
    assert_eq!(count(&cloud, HELD).await, 0);
    cloud.put_bytes(&format!("{IMAGES}/golden/content"), file()).await.expect(200);
}

#[tokio::test]
async fn a_host_that_never_comes_fails_the_image_in_the_end() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    stopped(&cloud, &host).await;
    publish(&cloud, "golden").await;
    let order = orders(&host).await[0]["transfer_id"].clone();
    // No replica takes the work of a host.
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(image(&cloud, "golden").await["state"], "importing");
    execute(&cloud, "UPDATE operations SET deadline_at = created_at WHERE kind = 'create_image'").await;
    operations::expire(&cloud.app).await.unwrap();
    run_imports(&cloud.app).await.unwrap();
    let failed = image(&cloud, "golden").await;
    assert_eq!(
        (&failed["state"], &failed["failure"]["code"]),
        (&json!("failed"), &json!("deadline_exceeded"))
    );
    assert!(failed["failure"]["detail"].as_str().unwrap().contains("host did not send"), "{failed}");
    send(&cloud, &host, &order, file()).await.expect_problem(404, "not_found");
    assert_eq!((orders(&host).await.len(), count(&cloud, HELD).await), (0, 0));
}

/// The layers that the host is to remove.
async fn doomed(host: &TestHost<'_>) -> Vec<Value> {
    let removals = host.removals().await;
    removals.iter().flat_map(|removal| removal["layers"].as_array().unwrap().clone()).collect()
}

#[tokio::test]
async fn what_is_sent_outlives_everything_that_it_is_made_of() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    let web = stopped(&cloud, &host).await;
    cloud.post(SNAPSHOTS, json!({"name": "before", "instance": "web"})).await.expect(201);
    let body = json!({"name": "golden", "source": {"snapshot": "before"}});
    cloud.post(IMAGES, body).await.expect(202);
    let order = orders(&host).await.remove(0);
    let sent = order["source"]["layers"].as_array().unwrap().clone();

    // Snapshot, instance, volume and the image below go while it is sent.
    cloud.delete(&format!("{SNAPSHOTS}/before")).await.expect(204);
    cloud.delete(WEB).await.expect(202);
    let page = host.desired(0).await;
    let deletion = page["objects"].as_array().unwrap().iter().find(|one| one["kind"] == "delete_instance");
    let gone = deletion.unwrap()["layers"].as_array().unwrap();
    assert!(gone.len() == 1 && !sent.contains(&gone[0]), "{page}");
    host.report(&web["id"], 4, 1, json!({"state": "absent"})).await;
    assert_eq!(cloud.get(VOLUMES).await.expect(200)["items"], json!([]));
    cloud.delete(&format!("{IMAGES}/image")).await.expect(204);
    swept(&cloud).await;
    assert_eq!(doomed(&host).await, Vec::<Value>::new());
    let still = orders(&host).await.remove(0);
    assert_eq!(
        (&still["source"]["layers"], &still["source"]["image"]),
        (&json!(sent), &order["source"]["image"])
    );
    assert_eq!(findings(&cloud).await, Vec::<String>::new());

    send(&cloud, &host, &order["transfer_id"], file()).await.expect(204);
    assert_eq!(image(&cloud, "golden").await["state"], "available");
    // Now nobody needs it any more.
    assert_eq!(doomed(&host).await, sent);
    let removals: Vec<_> = host.removals().await.iter().map(|one| one["removal_id"].clone()).collect();
    host.report_removed(json!(removals)).await;
    assert_eq!(count(&cloud, "SELECT count(*) FROM layers").await, 0);
    assert_eq!(swept(&cloud).await, (1, 1));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_goes_on_while_its_disk_is_sent() {
    let cloud = furnished().await;
    let host = cloud.join_host("host-1").await;
    let web = stopped(&cloud, &host).await;
    publish(&cloud, "golden").await;
    let order = orders(&host).await.remove(0);
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    let (generation, disks) = host.disks(&web["id"]).await.unwrap();
    let layers = disks[0]["volume"]["layers"].as_array().unwrap();
    assert_eq!((generation, layers.len(), &layers[0]), (4, 2, &order["source"]["layers"][0]));
    host.report(&web["id"], 4, 2, json!({"state": "running"})).await;
    // Nothing is merged into what is sent, or out of it.
    merge(&cloud.app).await.unwrap();
    merge(&cloud.app).await.unwrap();
    assert_eq!(host.disks(&web["id"]).await.unwrap().0, 4);
    assert_eq!(orders(&host).await[0]["source"], order["source"]);
    send(&cloud, &host, &order["transfer_id"], file()).await.expect(204);
    // Afterwards it is, since nobody names that layer.
    merge(&cloud.app).await.unwrap();
    let (generation, disks) = host.disks(&web["id"]).await.unwrap();
    assert_eq!((generation, disks[0]["volume"]["layers"].as_array().unwrap().len()), (5, 3), "{disks:?}");
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}
