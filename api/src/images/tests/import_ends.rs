//! Imports that are cancelled, overtaken, forgotten, or whose replica dies.

use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Reply, Server, Then, image, import, importing, operation};
use super::{IMAGES, swept};
use crate::images::run_imports;
use crate::operations;
use crate::testing::{Answer, TestCloud};

/// A file that takes half a minute at the first request, and a short one later.
async fn slow() -> Server {
    Server::start(|number, _| match number {
        0 => Reply::with("200 OK", &[("content-length", "30000000")], &[0; 2048]).then(Then::Flow),
        _ => Reply::file(&[7; 4096]),
    })
    .await
}

const BEGUN: &str = "SELECT count(*) FROM operations WHERE progress_total_bytes IS NOT NULL";

async fn cancel(cloud: &TestCloud, begun: &Value) -> Answer {
    let id = begun["id"].as_str().unwrap();
    cloud.post(&format!("/v1/projects/demo/operations/{id}/cancel"), json!({})).await
}

/// Drops the controller in the middle of the import, like a kill.
async fn kill_in_the_middle(cloud: &TestCloud) {
    tokio::select! {
        ended = run_imports(&cloud.app) => panic!("it was not in the middle of it: {ended:?}"),
        () = until(cloud, BEGUN) => {}
    }
}

#[tokio::test]
async fn a_dead_replicas_import_is_taken_over_when_its_lease_is_over() {
    let cloud = importing().await;
    let server = slow().await;
    let begun = import(&cloud, "image", &server.url()).await;
    kill_in_the_middle(&cloud).await;
    assert_eq!(operation(&cloud, &begun).await["progress"]["total_bytes"], 30_000_000);
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(image(&cloud, "image").await["state"], "importing");
    assert_eq!(server.heads().len(), 1);
    cloud.pass(61);
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(image(&cloud, "image").await["state"], "available");
    let ended = operation(&cloud, &begun).await;
    assert_eq!(ended["progress"], json!({"bytes": 4096, "total_bytes": 4096, "percent": 100}));
    assert_eq!(swept(&cloud).await, (1, 1));
}

#[tokio::test]
async fn a_replica_that_was_only_stopped_cannot_end_what_another_one_does() {
    let cloud = importing().await;
    let server = slow().await;
    import(&cloud, "image", &server.url()).await;
    let app = cloud.app.clone();
    let stopped = tokio::spawn(async move { run_imports(&app).await });
    until(&cloud, BEGUN).await;
    // As if its lease had run out while it was stopped.
    sqlx::query("UPDATE image_imports SET lease_until = created_at").execute(&cloud.app.pool).await.unwrap();
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(image(&cloud, "image").await["size_bytes"], 4096);
    tokio::time::timeout(Duration::from_secs(10), stopped).await.expect("it goes on").unwrap().unwrap();
    assert_eq!(image(&cloud, "image").await["size_bytes"], 4096);
    assert_eq!(swept(&cloud).await, (1, 1));
}

async fn until(cloud: &TestCloud, count: &'static str) {
    let there = async {
        while sqlx::query_scalar::<_, i64>(count).fetch_one(&cloud.app.pool).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there).await.expect("it never came");
}

#[tokio::test]
async fn a_cancelled_import_leaves_nothing_and_stops() {
    let cloud = importing().await;
    let server = slow().await;
    let begun = import(&cloud, "image", &server.url()).await;
    let app = cloud.app.clone();
    let running = tokio::spawn(async move { run_imports(&app).await });
    until(&cloud, BEGUN).await;
    let cancelled = cancel(&cloud, &begun).await.expect(200);
    assert_eq!(
        (&cancelled["status"], &cancelled["error"]["code"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    assert_eq!(image(&cloud, "image").await["state"], "awaiting_upload");
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("it goes on").unwrap().unwrap();
    assert_eq!(swept(&cloud).await, (0, 0));
    cancel(&cloud, &begun).await.expect_problem(409, "wrong_state");
    cloud.post(&format!("{IMAGES}/image/import"), json!({"url": server.url()})).await.expect(202);
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(image(&cloud, "image").await["state"], "available");
}

#[tokio::test]
async fn an_import_is_cancelled_before_anybody_took_it() {
    let cloud = importing().await;
    let server = Server::of(vec![0; 512]).await;
    let begun = import(&cloud, "image", &server.url()).await;
    cancel(&cloud, &begun).await.expect(200);
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(server.heads().len(), 0);
    assert_eq!(swept(&cloud).await, (0, 0));
}

#[tokio::test]
async fn when_a_cancellation_races_the_end_one_of_them_wins() {
    let cloud = importing().await;
    let server = Server::of(vec![7; 4096]).await;
    let (mut cancelled, mut finished) = (0, 0);
    import(&cloud, "measured", &server.url()).await;
    let begun = std::time::Instant::now();
    run_imports(&cloud.app).await.unwrap();
    let usual = begun.elapsed().min(Duration::from_secs(1));
    // From at once to long after the end.
    for round in 0..24 {
        let name = format!("image-{round}");
        let begun = import(&cloud, &name, &server.url()).await;
        let late = async {
            tokio::time::sleep(usual * round / 12).await;
            cancel(&cloud, &begun).await
        };
        let (ran, answer) = tokio::join!(run_imports(&cloud.app), late);
        ran.unwrap();
        let (image, operation) = (image(&cloud, &name).await, operation(&cloud, &begun).await);
        if answer.status == 200 {
            cancelled += 1;
            assert_eq!(
                (&image["state"], &operation["status"]),
                (&json!("awaiting_upload"), &json!("cancelled"))
            );
        } else {
            finished += 1;
            answer.expect_problem(409, "wrong_state");
            assert_eq!((&image["state"], &operation["status"]), (&json!("available"), &json!("succeeded")));
        }
        // They all have the content of the first one.
        assert_eq!(swept(&cloud).await, (1, 1));
    }
    assert!(finished > 0 && cancelled > 0, "{finished} finished, {cancelled} cancelled");
}

#[tokio::test]
async fn an_import_ends_with_its_image() {
    let cloud = importing().await;
    let server = slow().await;
    let begun = import(&cloud, "image", &server.url()).await;
    let app = cloud.app.clone();
    let running = tokio::spawn(async move { run_imports(&app).await });
    until(&cloud, BEGUN).await;
    cloud.delete(&format!("{IMAGES}/image")).await.expect(204);
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("it goes on").unwrap().unwrap();
    run_imports(&cloud.app).await.unwrap();
    let ended = operation(&cloud, &begun).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("cancelled"), &json!("image_deleted")));
    cloud.pass(61);
    assert_eq!(swept(&cloud).await, (0, 0));
}

#[tokio::test]
async fn an_import_that_takes_too_long_fails() {
    let cloud = importing().await;
    let server = slow().await;
    import(&cloud, "image", &server.url()).await;
    kill_in_the_middle(&cloud).await;
    cloud.pass(6 * 3600);
    operations::expire(&cloud.app).await.unwrap();
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(server.heads().len(), 1);
    let (error, state, reason): (String, String, String) = sqlx::query_as(
        "SELECT o.error_code, i.import_state, i.failure_code FROM operations o JOIN images i ON i.id = o.resource_id",
    )
    .fetch_one(&cloud.app.pool)
    .await
    .unwrap();
    assert_eq!(
        (error.as_str(), state.as_str(), reason.as_str()),
        ("deadline_exceeded", "failed", "deadline_exceeded")
    );
    assert_eq!(swept(&cloud).await, (0, 0));
}

#[tokio::test]
async fn a_replica_that_stops_gives_its_import_back_at_once() {
    let cloud = importing().await;
    let server = slow().await;
    let begun = import(&cloud, "image", &server.url()).await;
    let app = cloud.app.clone();
    let running = tokio::spawn(async move { run_imports(&app).await });
    until(&cloud, BEGUN).await;
    cloud.app.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("it goes on").unwrap().unwrap();
    let free = "SELECT count(*) FROM image_imports WHERE lease_until IS NULL AND attempts = 0";
    until(&cloud, free).await;
    assert_eq!(operation(&cloud, &begun).await["status"], "running");
}

#[tokio::test]
async fn who_may_not_cancel_may_not() {
    let cloud = importing().await;
    let server = Server::of(vec![0; 512]).await;
    let begun = import(&cloud, "image", &server.url()).await;
    let stranger = cloud.user("stranger", false).await;
    let path = format!("/v1/projects/demo/operations/{}/cancel", begun["id"].as_str().unwrap());
    let headers = [("authorization", stranger.as_str())];
    let refused = cloud.call_with(axum::http::Method::POST, &path, &headers, Some(json!({}))).await;
    refused.expect_problem(404, "not_found");
    let import = format!("{IMAGES}/image/import");
    let body = Some(json!({"url": server.url()}));
    cloud.call_with(axum::http::Method::POST, &import, &headers, body).await.expect_problem(404, "not_found");
}
