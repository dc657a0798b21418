//! PostgreSQL dies under a serving API.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;
use crate::testing::{TestCloud, request};

#[tokio::test]
async fn a_killed_postgresql_is_a_503_at_once_and_comes_back_by_itself() {
    let folder = ClusterFolder::new();
    let Database { pools, keeper } = Database::open(None, &folder.root).await.unwrap();
    let cloud = TestCloud::on(pools.own, None).await;
    cloud.post("/v1/projects", json!({"name": "demo"})).await.expect(201);

    let pid = std::fs::read_to_string(folder.cluster().join("data/postmaster.pid")).unwrap();
    let pid = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    // Its children end by themselves a moment later, and may answer until then.
    let first_refusal = async {
        loop {
            let started = Instant::now();
            let answer = cloud.get("/v1/projects/demo").await;
            if answer.status != 200 {
                return (answer, started.elapsed());
            }
        }
    };
    let (refusal, took) = timeout(Duration::from_secs(20), first_refusal).await.unwrap();
    refusal.expect_problem(503, "database_unavailable");
    assert_eq!(refusal.headers["retry-after"], "1");
    assert!(took < Duration::from_secs(3), "refused after {took:?}");
    let not_ready = async {
        let ready = || request(axum::http::Method::GET, "/readyz", &[], String::new());
        while cloud.send(ready()).await.status != 503 {}
    };
    timeout(Duration::from_secs(20), not_ready).await.expect("it went on being ready");

    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(keeper.run(shutdown.clone()));
    let back = async { while cloud.get("/v1/projects/demo").await.status != 200 {} };
    timeout(Duration::from_secs(30), back).await.expect("the API never served again");
    shutdown.cancel();
    keeper.await.unwrap().unwrap();
}
