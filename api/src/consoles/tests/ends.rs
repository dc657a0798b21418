//! What ends a console, and what keeps one from beginning.

use super::*;

/// The user `ann` may do everything in the project: the attachment that says so, and her sign-in.
async fn member(cloud: &TestCloud) -> (String, Value) {
    let attach = json!({"policy": "power-user", "user": "ann"});
    let attached = cloud.post("/v1/projects/demo/policy_attachments", attach).await.expect(201);
    let body = json!({"username": "ann", "password": "correct horse"});
    let tokens = cloud.post("/v1/auth/login", body).await.expect(200);
    (attached["id"].as_str().unwrap().to_owned(), tokens)
}

#[tokio::test]
async fn a_console_ends_when_its_owner_may_not_any_more() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    cloud.user("ann", false).await;
    let (attached, tokens) = member(&cloud).await;
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let opened = async || {
        let console = ask_as(&cloud, &bearer, "serial").await.expect(201);
        open(&cloud, &host, at, &console).await
    };

    let (mut user, mut half) = opened().await;
    // An access token that is too old is no reason.
    cloud.pass(16 * 60);
    cloud.app.heartbeats.heard(host.id, cloud.app.clock.now(), None, Default::default());
    tokio::time::sleep(Duration::from_millis(300)).await;
    half.write(b"still here").await;
    assert!(user.read().await.is_some());
    cloud.sign_in_again().await;
    cloud.delete(&format!("/v1/projects/demo/policy_attachments/{attached}")).await.expect(204);
    assert_eq!(user.closed().await, (4403, "right_lost".to_owned()));
    half.expect_end().await;

    let (_, tokens) = member(&cloud).await;
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let again = async || {
        cloud.app.heartbeats.heard(host.id, cloud.app.clock.now(), None, Default::default());
        cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
        let console = ask_as(&cloud, &bearer, "serial").await.expect(201);
        open(&cloud, &host, at, &console).await
    };
    let (mut user, mut half) = again().await;
    host.report(&web["id"], 1, 1, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    assert_eq!(user.closed().await, (4409, "instance_stopped".to_owned()));
    half.expect_end().await;

    // A report never goes back, so the start is another boot.
    cloud.post(&format!("{WEB}/start"), json!({})).await.expect(202);
    host.report(&web["id"], 2, 2, json!({"state": "running"})).await;
    let (mut user, mut half) = again().await;
    let out = json!({"refresh_token": tokens["refresh_token"]});
    cloud.post("/v1/auth/logout", out).await.expect(204);
    assert_eq!(user.closed().await, (4401, "credential_ended".to_owned()));
    half.expect_end().await;
    let records = until_records(&cloud, 9).await;
    let reasons: Vec<_> = records.iter().filter_map(|(_, after)| after["reason"].as_str()).collect();
    assert_eq!(reasons, ["right_lost", "instance_stopped", "credential_ended"]);
}

#[tokio::test]
async fn an_api_key_opens_consoles_until_it_is_revoked() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    cloud.post("/v1/projects/demo/service_accounts", json!({"name": "robot"})).await.expect(201);
    let attach = json!({"policy": "power-user", "service_account": "robot"});
    cloud.post("/v1/projects/demo/policy_attachments", attach).await.expect(201);
    let keys = "/v1/projects/demo/service_accounts/robot/api_keys";
    let key = cloud.post(keys, json!({})).await.expect(201);
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    let console = ask_as(&cloud, &bearer, "vnc").await.expect(201);
    let (mut user, mut half) = open(&cloud, &host, at, &console).await;
    cloud.delete(&format!("{keys}/{}", key["id"].as_str().unwrap())).await.expect(204);
    assert_eq!(user.closed().await, (4401, "credential_ended".to_owned()));
    half.expect_end().await;
}

#[tokio::test]
async fn the_host_may_end_it_or_say_no() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let console = ask(&cloud, "vnc").await;
    let (mut user, half) = open(&cloud, &host, at, &console).await;
    drop(half);
    assert_eq!(user.closed().await, (1000, "host_ended".to_owned()));

    let stranger = cloud.join_host("host-2").await;
    let theirs = listen_for_host(&cloud, stranger.id).await;
    for (reason, status, code) in [
        ("not_running", 409, "wrong_state"),
        ("no_display", 409, "wrong_state"),
        ("busy", 409, "in_use"),
        ("failed", 503, "host_failed"),
        ("of_a_later_release", 503, "host_failed"),
    ] {
        let console = ask(&cloud, "vnc").await;
        let refusing = async {
            requested(&host, &console).await;
            let id = console["id"].as_str().unwrap();
            let path = |epoch| format!("/agent/v1/requests/{id}/refusal?epoch={epoch}");
            let body = Some(json!({"reason": reason}));
            // Neither may another host answer.
            let other = stranger.call(Method::POST, &path(stranger.epoch), body.clone()).await;
            other.expect_problem(404, "not_found");
            assert_eq!(HostHalf::bring(theirs, &console["id"], stranger.epoch).await.err(), Some(404));
            host.call(Method::POST, &path(host.epoch), body).await.expect(204);
        };
        let (user, ()) = tokio::join!(UserHalf::open(at, &console), refusing);
        let (found, problem) = user.err().expect("a refusal");
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{problem}");
    }
    until_records(&cloud, 8).await;
    assert_eq!(left(&cloud).await, 0);
}

#[tokio::test]
async fn so_many_are_open_at_once_and_one_of_a_serial_port() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let mut kept = Vec::new();
    for kind in ["serial", "vnc", "vnc", "vnc"] {
        let console = ask(&cloud, kind).await;
        kept.push(open(&cloud, &host, at, &console).await);
    }
    let second = ask(&cloud, "serial").await;
    let (status, problem) = UserHalf::open(at, &second).await.err().expect("a refusal");
    assert_eq!((status, &problem["code"]), (409, &json!("in_use")), "{problem}");
    let fifth = ask(&cloud, "vnc").await;
    let (status, problem) = UserHalf::open(at, &fifth).await.err().expect("a refusal");
    assert_eq!((status, &problem["code"]), (429, &json!("too_many_requests")), "{problem}");

    // With the first one closed the other gets in, with the ticket that it has.
    let (user, mut half) = kept.remove(0);
    user.close().await;
    half.expect_end().await;
    until_records(&cloud, 11).await;
    open(&cloud, &host, at, &second).await;
}
