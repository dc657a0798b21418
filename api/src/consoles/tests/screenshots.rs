//! Pictures of the display.

use axum::body::Body;
use axum::http::Request;

use super::*;

const SCREENSHOT: &str = "/v1/projects/demo/instances/web/screenshot";

/// The host's answer to the next request for a picture.
async fn answer(cloud: &TestCloud, host: &TestHost<'_>, after: i64, bytes: Vec<u8>) {
    let path = format!("/agent/v1/desired?epoch={}&after={after}&wait_seconds=20", host.epoch);
    let page = host.call(Method::GET, &path, None).await.expect(200);
    let request = &page["requests"][0];
    assert_eq!(request["request"], "screenshot");
    let path = format!("/agent/v1/transfers/{}?epoch={}", request["id"].as_str().unwrap(), host.epoch);
    let sent = Request::post(path).body(Body::from(bytes)).unwrap();
    cloud.agent_send(Some(host.id), sent).await.expect(204);
}

#[tokio::test]
async fn a_picture_is_what_the_host_sends_if_that_is_one() {
    let cloud = start().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let mut picture = Vec::new();
    let mut encoder = png::Encoder::new(&mut picture, 2, 2);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[9; 12]).unwrap();
    for (bytes, status) in [(picture, 200), (b"<html>".to_vec(), 503)] {
        let revision = host.feed(0).await["revision"].as_i64().unwrap();
        let (shown, ()) = tokio::join!(cloud.get(SCREENSHOT), answer(&cloud, &host, revision, bytes));
        assert_eq!(shown.status.as_u16(), status);
        if status == 200 {
            assert_eq!(shown.headers["content-type"], "image/png");
            assert!(shown.body.starts_with(b"\x89PNG"));
        } else {
            shown.expect_problem(503, "host_failed");
        }
    }
    assert_eq!(left(&cloud).await, 0);
    host.report(&web["id"], 1, 1, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    cloud.get(SCREENSHOT).await.expect_problem(409, "wrong_state");
}

#[tokio::test]
async fn pictures_that_nobody_waits_for_are_not_asked_for() {
    let cloud = start().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let until = async |count: i64| {
        let reached = async {
            while left(&cloud).await != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("so many are asked for");
    };
    {
        let waiting = futures_util::future::join_all((0..4).map(|_| cloud.get(SCREENSHOT)));
        tokio::select! {
            _ = waiting => panic!("nobody has answered"),
            () = until(4) => {}
        }
    }
    // They have gone, and so have their wishes.
    until(0).await;
    let five = futures_util::future::join_all((0..5).map(|_| cloud.get(SCREENSHOT)));
    let refused = async {
        let answers = five.await;
        answers.iter().filter(|answer| answer.status == 429).count()
    };
    let answers = async {
        until(4).await;
        let requests = host.feed(0).await["requests"].as_array().unwrap().clone();
        assert_eq!(requests.len(), 4);
        for request in requests {
            let id = request["id"].as_str().unwrap();
            let path = format!("/agent/v1/requests/{id}/refusal?epoch={}", host.epoch);
            host.call(Method::POST, &path, Some(json!({"reason": "busy"}))).await.expect(204);
        }
    };
    let (refused, ()) = tokio::join!(refused, answers);
    assert_eq!(refused, 1, "four are waited for at once");
}
