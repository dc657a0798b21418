//! Who gets a ticket, and what it opens.

use super::*;

async fn refused(at: SocketAddr, console: &Value, status: u16, code: &str) {
    let (found, problem) = UserHalf::open(at, console).await.err().expect("a refusal");
    assert_eq!((found, &problem["code"]), (status, &json!(code)), "{problem}");
}

#[tokio::test]
async fn a_ticket_opens_one_console_once_within_a_minute() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let used = ask(&cloud, "vnc").await;
    let (user, half) = open(&cloud, &host, at, &used).await;
    refused(at, &used, 401, "invalid_ticket").await;

    let (mut one, two) = (ask(&cloud, "vnc").await, ask(&cloud, "serial").await);
    one["subprotocols"] = two["subprotocols"].clone();
    refused(at, &one, 401, "invalid_ticket").await;
    let mut guessed = two.clone();
    guessed["subprotocols"][1] = json!(format!("cumulo.ticket.{}", "A".repeat(43)));
    refused(at, &guessed, 401, "invalid_ticket").await;
    // Somebody else who found it, and signs in for good measure.
    let thief = cloud.user("thief", true).await;
    let offered = |console: &Value| {
        let one = |index: usize| console["subprotocols"][index].as_str().unwrap().to_owned();
        ("sec-websocket-protocol", format!("{}, {}", one(0), one(1)))
    };
    let shown = [offered(&two), ("authorization", thief)];
    let (status, problem) =
        UserHalf::open_with(at, two["id"].as_str().unwrap(), &shown).await.err().expect("a refusal");
    assert_eq!((status, &problem["code"]), (401, &json!("invalid_ticket")), "{problem}");
    refused(at, &two, 401, "invalid_ticket").await;

    let old = ask(&cloud, "vnc").await;
    cloud.pass(60);
    cloud.app.heartbeats.heard(host.id, cloud.app.clock.now(), None, Default::default());
    refused(at, &old, 401, "invalid_ticket").await;
    drop((user, half));
}

#[tokio::test]
async fn a_page_of_another_origin_and_a_plain_request_are_refused() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let console = ask(&cloud, "vnc").await;
    let id = console["id"].as_str().unwrap();
    let both = format!("binary, {}", console["subprotocols"][1].as_str().unwrap());
    let open = async |headers: &[(&'static str, String)]| {
        let (status, problem) = UserHalf::open_with(at, id, headers).await.err().expect("a refusal");
        (status, problem["code"].as_str().unwrap_or_default().to_owned())
    };
    let protocols = ("sec-websocket-protocol", both.clone());
    let evil = ("origin", "https://evil.example".to_owned());
    assert_eq!(open(&[protocols, evil]).await, (403, "forbidden".to_owned()));
    assert_eq!(open(&[]).await, (401, "unauthenticated".to_owned()));
    assert_eq!(open(&[("sec-websocket-protocol", "binary".to_owned())]).await.0, 401);
    let (path, offer) = (format!("/v1/consoles/{id}"), [("sec-websocket-protocol", both.as_str())]);
    let plain = cloud.call_with(Method::GET, &path, &offer, None).await;
    plain.expect_problem(400, "bad_request");
    cloud.get("/v1/consoles/web").await.expect_problem(404, "not_found");

    // None of that used the ticket up, and a page of the API's own origin may.
    let agents = listen_for_host(&cloud, host.id).await;
    let own = [("sec-websocket-protocol", both), ("origin", format!("http://{at}"))];
    let bring = async {
        requested(&host, &console).await;
        HostHalf::bring(agents, &console["id"], host.epoch).await
    };
    let (user, half) = tokio::join!(UserHalf::open_with(at, id, &own), bring);
    assert!(user.is_ok() && half.is_ok());
}

#[tokio::test]
async fn asking_is_a_call_like_any_other() {
    let cloud = start().await;
    let host = cloud.join_host("host-1").await;
    let web = running(&cloud, &host).await;
    let body = json!({"kind": "vnc"});
    cloud.post(&format!("{CONSOLES}?dry_run=true"), body.clone()).await.expect(200);
    assert_eq!(left(&cloud).await, 0);
    let key = [("idempotency-key", "one")];
    let first = cloud.call_with(Method::POST, CONSOLES, &key, Some(body.clone())).await.expect(201);
    let again = cloud.call_with(Method::POST, CONSOLES, &key, Some(body.clone())).await.expect(201);
    assert_eq!(first["id"], again["id"]);
    assert!(first["subprotocols"].is_array() && again["subprotocols"].is_null(), "a secret is shown once");
    assert!(
        first["url"].as_str().unwrap().ends_with(&format!("/v1/consoles/{}", first["id"].as_str().unwrap()))
    );
    cloud.post(CONSOLES, json!({"kind": "spice"})).await.expect_problem(422, "validation_failed");
    cloud.post(CONSOLES, json!({"kind": "vnc", "x": 1})).await.expect_problem(422, "validation_failed");

    // As nobody, as a stranger, and as somebody who may only look.
    let nobody = cloud.call_with(Method::POST, CONSOLES, &[("authorization", "")], Some(body.clone())).await;
    nobody.expect_problem(401, "unauthenticated");
    let ann = cloud.user("ann", false).await;
    ask_as(&cloud, &ann, "vnc").await.expect_problem(404, "not_found");
    let attach = json!({"policy": "instance-operator", "user": "ann"});
    cloud.post("/v1/projects/demo/policy_attachments", attach).await.expect(201);
    let refused = ask_as(&cloud, &ann, "vnc").await.expect_problem(403, "forbidden");
    assert_eq!(refused["denial"]["action"], "compute:OpenConsole");

    for _ in 1..super::super::model::MAX_TICKETS {
        ask(&cloud, "vnc").await;
    }
    cloud.post(CONSOLES, body.clone()).await.expect_problem(429, "too_many_requests");
    cloud.pass(21);
    cloud.post(CONSOLES, body.clone()).await.expect_problem(503, "host_unreachable");
    cloud.app.heartbeats.heard(host.id, cloud.app.clock.now(), None, Default::default());
    cloud.app.heartbeats.flush(&cloud.app.pool).await.unwrap();
    host.report(&web["id"], 1, 1, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    cloud.post(CONSOLES, body).await.expect_problem(409, "wrong_state");
    cloud.pass(60);
    super::super::sweep(&cloud.app).await.unwrap();
    assert_eq!(left(&cloud).await, 0);
}

#[tokio::test]
async fn a_wrong_ticket_makes_no_work() {
    let cloud = start().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    ask(&cloud, "vnc").await;
    let mut console = ask(&cloud, "vnc").await;
    console["subprotocols"][1] = json!(format!("cumulo.ticket.{}", "a".repeat(43)));
    cloud.pass(3600);
    refused(at, &console, 401, "invalid_ticket").await;
    assert_eq!(left(&cloud).await, 2, "old tickets are swept by and by, not by strangers");
}
