//! What stands between the connection and the handlers.

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::routing::get;
use serde_json::json;
use tower::ServiceExt as _;

use crate::http::{Client, EdgeOptions, RateOptions, router::layered};
use crate::testing::{TestCloud, peer, request};

/// What a handler is told of the client of this request.
async fn client_of(cloud: &TestCloud, from: Option<&str>, headers: &[(&str, &str)]) -> String {
    let told = get(async |request: Request| {
        let client = Client::of(request.extensions());
        format!("{} {}", client.address, client.secure_transport)
    });
    let mut request = request(Method::GET, "/", headers, String::new());
    if let Some(from) = from {
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer(from)));
    }
    let response = layered(Router::new().route("/", told), cloud.app.clone()).oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn handlers_are_told_the_client_behind_trusted_proxies() {
    let trusting = EdgeOptions { trusted_proxies: "10.0.0.0/8".parse().unwrap(), ..EdgeOptions::default() };
    let cloud = TestCloud::start_with(trusting).await;
    let forwarded = [("x-forwarded-for", "6.6.6.6, 198.51.100.1"), ("x-forwarded-proto", "https")];
    assert_eq!(client_of(&cloud, Some("10.0.0.1"), &forwarded).await, "198.51.100.1 true");
    assert_eq!(client_of(&cloud, Some("203.0.113.9"), &forwarded).await, "203.0.113.9 false");
    assert_eq!(client_of(&cloud, None, &forwarded).await, "127.0.0.1 false");
    let garbled = request(Method::GET, "/healthz", &[("x-forwarded-for", "\u{fc},,::")], String::new());
    cloud.send_from("10.0.0.1", garbled).await.expect(200);

    let trusting_nobody = TestCloud::start().await;
    assert_eq!(client_of(&trusting_nobody, Some("10.0.0.1"), &forwarded).await, "10.0.0.1 false");
}

fn limited(rates: RateOptions) -> EdgeOptions {
    EdgeOptions { trusted_proxies: "10.0.0.1".parse().unwrap(), rates }
}

fn get_request(path: &str, headers: &[(&str, &str)]) -> Request {
    request(Method::GET, path, headers, String::new())
}

#[tokio::test]
async fn addresses_are_limited_until_somebody_has_signed_in() {
    let rates = RateOptions { address_rate_limit: 1, address_rate_limit_burst: 3, ..RateOptions::default() };
    let cloud = TestCloud::start_with(limited(rates)).await;
    let login = || request(Method::POST, "/v1/auth/login", &[], cloud.credentials().to_string());
    let from = "2001:db8::1";
    let first = cloud.send_from(from, login()).await;
    let bearer = format!("Bearer {}", first.expect(200)["access_token"].as_str().unwrap());
    assert_eq!(first.headers["ratelimit-policy"], r#""address";q=3;w=3"#);
    assert_eq!(first.headers["ratelimit"], r#""address";r=2;t=1"#);
    let without_length = cloud.send_from(from, get_request("/v1/projects", &[])).await;
    without_length.expect_problem(401, "unauthenticated");
    assert_eq!(without_length.headers["ratelimit"], r#""address";r=1;t=2"#);
    // The whole /64 is one; whatever does not exist counts, too.
    cloud.send_from("2001:db8::2", get_request("/nowhere", &[])).await.expect_problem(404, "not_found");
    for path in ["/v1/auth/login", "/v1/projects", "/docs/", "/openapi.json", "/nowhere"] {
        let refused = cloud.send_from(from, get_request(path, &[])).await;
        refused.expect_problem(429, "too_many_requests");
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(refused.headers["ratelimit"], r#""address";r=0;t=1"#);
    }
    // A header is no way around signing in.
    let disguised = request(Method::POST, "/v1/auth/login", &[("authorization", "x")], String::new());
    cloud.send_from(from, disguised).await.expect_problem(429, "too_many_requests");
    // Nobody else is concerned: not who has signed in, not the neighbours, not who watches us.
    let signed_in = cloud.send_from(from, get_request("/v1/projects", &[("authorization", &bearer)])).await;
    signed_in.expect(200);
    assert!(!signed_in.headers.contains_key("ratelimit"));
    cloud.send_from("2001:db8:0:1::1", login()).await.expect(200);
    for path in ["/healthz", "/readyz", "/metrics"] {
        for _ in 0..5 {
            assert_eq!(cloud.send_from(from, get_request(path, &[])).await.status, 200, "{path}");
        }
    }
    cloud.pass(1);
    cloud.send_from(from, login()).await.expect(200);
    cloud.send_from(from, login()).await.expect_problem(429, "too_many_requests");
}

#[tokio::test]
async fn agents_are_limited_by_their_certificate_and_whoever_joins_by_address() {
    let rates = RateOptions {
        rate_limit: 1,
        rate_limit_burst: 3,
        address_rate_limit: 1,
        address_rate_limit_burst: 2,
    };
    let cloud = TestCloud::start_with(limited(rates)).await;
    let call = async |host: Option<u128>, path: &str| {
        let host = host.map(|id| uuid::Uuid::from_u128(id).into());
        cloud.agent_call(host, Method::POST, path, Some(json!({}))).await
    };
    for _ in 0..2 {
        call(None, "/agent/v1/join").await.expect_problem(422, "validation_failed");
    }
    let refused = call(None, "/agent/v1/join").await;
    refused.expect_problem(429, "too_many_requests");
    assert_eq!(refused.headers["retry-after"], "1");
    // Without a certificate there is no other way in.
    call(None, "/agent/v1/heartbeat").await.expect_problem(429, "too_many_requests");
    // Hosts behind the same address are not concerned, and each counts for itself.
    for _ in 0..3 {
        call(Some(1), "/agent/v1/heartbeat").await.expect_problem(422, "validation_failed");
    }
    call(Some(1), "/agent/v1/heartbeat").await.expect_problem(429, "too_many_requests");
    call(Some(2), "/agent/v1/heartbeat").await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn no_header_is_a_way_around_the_limit_of_an_address() {
    let rates = RateOptions { address_rate_limit: 1, address_rate_limit_burst: 2, ..RateOptions::default() };
    let cloud = TestCloud::start_with(limited(rates)).await;
    let good = format!("Bearer {}", cloud.token().await);
    let bad = [
        "x".to_owned(),
        "Basic YTpi".to_owned(),
        "Bearer x".to_owned(),
        format!("{good}x"),
        format!("Bearer cumulo_key_{}", "A".repeat(48)),
    ];
    let routes = [
        (Method::GET, "/"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/docs/"),
        (Method::GET, "/nowhere"),
        (Method::GET, "/.well-known/jwks.json"),
        (Method::PUT, "/v1/projects"),
        (Method::GET, "/v1/projects/%ff"),
        (Method::GET, "/v1/projects"),
    ];
    let mut network = 0;
    for (method, path) in routes {
        let send = async |from: &str, shown: &str| {
            let headers = [("authorization", shown)];
            cloud.send_from(from, request(method.clone(), path, &headers, String::new())).await
        };
        for shown in &bad {
            network += 1;
            let from = format!("198.51.100.{network}");
            for _ in 0..2 {
                assert_ne!(send(&from, shown).await.status, 429, "{path} {shown}");
            }
            send(&from, shown).await.expect_problem(429, "too_many_requests");
            if !path.starts_with("/v1/auth/") {
                assert_ne!(
                    send(&from, &good).await.status,
                    429,
                    "{path}: whoever has signed in is not counted"
                );
            }
        }
    }
}

#[tokio::test]
async fn clients_of_a_proxy_are_told_apart() {
    let rates = RateOptions { address_rate_limit: 1, address_rate_limit_burst: 1, ..RateOptions::default() };
    let cloud = TestCloud::start_with(limited(rates)).await;
    let from = async |client: &str| {
        cloud.send_from("10.0.0.1", get_request("/nowhere", &[("x-forwarded-for", client)])).await.status
    };
    assert_eq!(from("198.51.100.1").await, 404);
    assert_eq!(from("198.51.100.1").await, 429);
    assert_eq!(from("6.6.6.6, 198.51.100.1").await, 429);
    assert_eq!(from("198.51.100.2").await, 404);
}

#[tokio::test]
async fn principals_are_limited_wherever_they_call_from() {
    let rates = RateOptions { rate_limit: 2, rate_limit_burst: 4, ..RateOptions::default() };
    let cloud = TestCloud::start_with(limited(rates)).await;
    let mine = format!("Bearer {}", cloud.token().await);
    let theirs = cloud.user("second", true).await;
    let from = async |address: &str, bearer: &str| {
        cloud.send_from(address, get_request("/v1/projects", &[("authorization", bearer)])).await
    };
    for number in 0..4 {
        let answer = from(&format!("192.0.2.{number}"), &mine).await;
        answer.expect(200);
        assert_eq!(answer.headers["ratelimit-policy"], r#""principal";q=4;w=2"#);
        assert_eq!(
            answer.headers["ratelimit"],
            format!(r#""principal";r={};t={}"#, 3 - number, number / 2 + 1)
        );
    }
    let refused = from("192.0.2.9", &mine).await;
    refused.expect_problem(429, "too_many_requests");
    assert_eq!(refused.headers["retry-after"], "1");
    from("192.0.2.9", &theirs).await.expect(200);
    cloud.pass(1);
    from("192.0.2.9", &mine).await.expect(200);
    // A token that is not genuine is nobody's.
    from("192.0.2.9", &format!("{mine}x")).await.expect_problem(401, "invalid_token");
}

#[tokio::test]
async fn browsers_are_told_to_do_nothing_with_an_answer() {
    let cloud = TestCloud::start().await;
    for (path, status) in [("/healthz", 200), ("/nowhere", 404), ("/v1/projects", 401), ("/docs/", 200)] {
        let answer = cloud.send(get_request(path, &[])).await;
        assert_eq!(answer.status, status, "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            let values: Vec<_> = answer.headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{path}: {name}");
        }
        assert!(answer.headers.contains_key("permissions-policy"));
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(policy.contains("script-src 'self'"), path == "/docs/", "{path}: {policy}");
        assert!(!answer.headers.contains_key("strict-transport-security"));
    }
    let trusting = TestCloud::start_with(limited(RateOptions::default())).await;
    let over_tls = get_request("/healthz", &[("x-forwarded-proto", "https")]);
    let answer = trusting.send_from("10.0.0.1", over_tls).await;
    assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000");
}

/// Whatever the pages of the reference load must be allowed by what we say of them.
#[tokio::test]
async fn the_reference_runs_under_its_own_policy() {
    let cloud = TestCloud::start().await;
    let page = String::from_utf8(cloud.send(get_request("/docs/", &[])).await.body).unwrap();
    let scripts: Vec<_> = page.split("<script").skip(1).collect();
    assert!(scripts.len() >= 3);
    for script in scripts {
        let (attributes, text) = script.split_once('>').unwrap();
        assert!(attributes.contains(r#"src="./"#), "a script from elsewhere: {attributes}");
        assert!(text.split("</script").next().unwrap().trim().is_empty(), "a script in the page: {text}");
    }
    assert!(!page.contains("<style") && !page.contains(" onload="), "{page}");
    for source in page.split(r#"src="./"#).skip(1) {
        let file = source.split('"').next().unwrap();
        assert_eq!(cloud.send(get_request(&format!("/docs/{file}"), &[])).await.status, 200, "{file}");
    }
}

/// An API key of the right form.
fn api_key(secret: [u8; 32]) -> String {
    use base64::Engine as _;
    use sha2::{Digest as _, Sha256};
    let checksum = &Sha256::digest(secret)[..4];
    let bytes = [&secret[..], checksum].concat();
    format!("cumulo_key_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test]
async fn a_key_counts_for_its_owner_and_a_guess_for_its_address() {
    use sha2::{Digest as _, Sha256};
    let rates = RateOptions {
        rate_limit: 1,
        rate_limit_burst: 2,
        address_rate_limit: 1,
        address_rate_limit_burst: 3,
    };
    let cloud = TestCloud::start_with(limited(rates)).await;
    for number in [1, 2] {
        sqlx::query(
            "INSERT INTO api_keys (id, principal_id, description, hint, secret_hash, created_at)
             SELECT $1, id, '', '', $2, $3 FROM principals WHERE name = 'admin'",
        )
        .bind(cloud.app.clock.new_id::<uuid::Uuid>())
        .bind(Sha256::digest(api_key([number; 32])).to_vec())
        .bind(cloud.app.clock.now())
        .execute(&cloud.app.pool)
        .await
        .unwrap();
    }
    let call = async |from: &str, number: u8| {
        let bearer = format!("Bearer {}", api_key([number; 32]));
        cloud.send_from(from, get_request("/v1/projects", &[("authorization", &bearer)])).await
    };
    let limit = |answer: &crate::testing::Answer| {
        answer.headers["ratelimit"].to_str().unwrap().split(';').next().unwrap().to_owned()
    };
    // Nobody knows the key before its first use.
    let first = call("192.0.2.1", 1).await;
    first.expect(200);
    assert_eq!(limit(&first), r#""address""#);
    for number in [1, 1] {
        let next = call("192.0.2.1", number).await;
        next.expect(200);
        assert_eq!(limit(&next), r#""principal""#);
    }
    call("192.0.2.2", 1).await.expect_problem(429, "too_many_requests");
    // Another key of the same owner is no way out, once it has been seen.
    call("192.0.2.2", 2).await.expect(200);
    call("192.0.2.2", 2).await.expect_problem(429, "too_many_requests");
    // Guesses are an address's own, and so are forged tokens.
    for guess in 3..6 {
        call("192.0.2.3", guess).await.expect_problem(401, "invalid_token");
    }
    call("192.0.2.3", 6).await.expect_problem(429, "too_many_requests");
    let forged = get_request("/v1/projects", &[("authorization", "Bearer e30.e30.x")]);
    cloud.send_from("192.0.2.3", forged).await.expect_problem(429, "too_many_requests");
    // The owner is not held back by what others guess at the same place.
    cloud.pass(2);
    call("192.0.2.3", 1).await.expect(200);
}
