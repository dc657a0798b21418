//! Imports from servers that behave, that do not, and that are none of a tenant's business.

use serde_json::json;
use sha2::Digest;

use super::server::{MAX_BYTES, Reply, Server, Then, image, import, importing, operation};
use super::{IMAGES, cloud, swept};
use crate::images::run_imports;
use crate::testing::TestCloud;

/// Runs the controller until the import has ended, whatever its pauses.
async fn run(cloud: &TestCloud) {
    for attempt in 1..=5 {
        run_imports(&cloud.app).await.unwrap();
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM image_imports")
            .fetch_one(&cloud.app.pool)
            .await
            .unwrap();
        if left == 0 {
            return;
        }
        cloud.pass(10 * attempt);
    }
    panic!("it never ends");
}

#[tokio::test]
async fn a_file_comes_as_it_is_and_nothing_of_ours_goes_there() {
    let cloud = importing().await;
    let bytes: Vec<u8> = (0..5 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    let file = bytes.clone();
    let server = Server::start(move |number, _| match number {
        0 => Reply::redirect("/elsewhere"),
        _ => Reply::file(&file),
    });
    let server = server.await;
    let begun = import(&cloud, "image", &server.url()).await;
    assert_eq!((&begun["kind"], &begun["status"]), (&json!("import_image"), &json!("running")));
    let waiting = image(&cloud, "image").await;
    assert_eq!((&waiting["state"], &waiting["operation_id"]), (&json!("importing"), &begun["id"]));
    cloud
        .put_bytes(&format!("{IMAGES}/image/content"), vec![0; 512])
        .await
        .expect_problem(409, "wrong_state");
    let again = json!({"url": server.url()});
    cloud.post(&format!("{IMAGES}/image/import"), again).await.expect_problem(409, "wrong_state");
    run_imports(&cloud.app).await.unwrap();
    let done = image(&cloud, "image").await;
    assert_eq!(done["state"], "available", "{done}");
    assert_eq!(done["sha256"], hex::encode(sha2::Sha256::digest(&bytes)));
    let ended = operation(&cloud, &begun).await;
    assert_eq!((&ended["status"], &ended["progress_percent"]), (&json!("succeeded"), &json!(100)));
    assert_eq!(ended["progress"], json!({"bytes": 5 << 20, "total_bytes": 5 << 20, "percent": 100}));
    assert_eq!(swept(&cloud).await, (1, 1));
    let heads = server.heads();
    assert!(heads[1].starts_with("get /elsewhere http/1.1\r\n"), "{heads:?}");
    for head in heads {
        assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
        for secret in ["authorization", "cookie", "referer"] {
            assert!(!head.contains(secret), "{head}");
        }
    }
}

#[tokio::test]
async fn what_may_not_be_spoken_to_is_refused_at_once_if_the_url_shows_it() {
    let cloud = importing().await;
    cloud.post(IMAGES, json!({"name": "image", "format": "raw"})).await.expect(201);
    let path = format!("{IMAGES}/image/import");
    for url in [
        "nonsense",
        "ftp://mirror.test/image",
        "file:///etc/passwd",
        "https://user:secret@mirror.test/image",
        "https://127.0.0.2/",
        "https://2130706434/",
        "https://0x7f.0.0.2/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://10.0.0.1/",
        "https://100.64.0.1/",
        &format!("https://mirror.test/{}", "x".repeat(2048)),
    ] {
        let refused = cloud.post(&path, json!({"url": url})).await.expect_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/url", "{url}: {refused}");
        assert!(!refused.to_string().contains("secret"));
    }
    let strict = super::cloud().await;
    strict.post(IMAGES, json!({"name": "image", "format": "raw"})).await.expect(201);
    let plain = json!({"url": "http://example.com/image"});
    strict.post(&path, plain).await.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn names_and_redirects_lead_nowhere_inside() {
    let cloud = importing().await;
    let inside = Server::of(vec![0; 512]).await;
    for (name, to, why) in [
        ("loopback", format!("http://127.0.0.2:{}/", inside.port), "loopback"),
        ("six", format!("http://[::1]:{}/", inside.port), "loopback"),
        ("private", "http://inside.test/".to_owned(), "private"),
        ("disguised", format!("http://disguised.test:{}/", inside.port), "disguise"),
        ("metadata", "http://169.254.169.254/".to_owned(), "link-local"),
        ("files", "file:///etc/passwd".to_owned(), "only https"),
        ("credentials", format!("http://a:b@127.0.0.1:{}/", inside.port), "password"),
    ] {
        let server = Server::start({
            let to = to.clone();
            move |_, _| Reply::redirect(&to)
        });
        let url = server.await.url();
        let begun = import(&cloud, name, &url).await;
        run_imports(&cloud.app).await.unwrap();
        let ended = operation(&cloud, &begun).await;
        assert_eq!(ended["error"]["code"], "import_refused", "{name}: {ended}");
        assert!(ended["error"]["detail"].as_str().unwrap().contains(why), "{name}: {ended}");
        assert!(!ended.to_string().contains("secret"), "{ended}");
        assert_eq!(image(&cloud, name).await["failure"], ended["error"]);
    }
    for (name, url, why) in [
        ("named", format!("http://inside.test:{}/", inside.port), "private"),
        ("mapped", format!("http://disguised.test:{}/", inside.port), "disguise"),
    ] {
        let begun = import(&cloud, name, &url).await;
        run_imports(&cloud.app).await.unwrap();
        let ended = operation(&cloud, &begun).await;
        assert_eq!(ended["error"]["code"], "import_refused", "{ended}");
        assert!(ended["error"]["detail"].as_str().unwrap().contains(why), "{ended}");
    }
    assert_eq!(inside.heads(), Vec::<String>::new());
    assert_eq!(swept(&cloud).await, (0, 0));
    // Of a name with two addresses the one that is allowed is used.
    import(&cloud, "mixed", &format!("http://mixed.test:{}/", inside.port)).await;
    run_imports(&cloud.app).await.unwrap();
    assert_eq!(image(&cloud, "mixed").await["state"], "available");
}

#[tokio::test]
async fn what_fails_says_why_leaves_nothing_and_may_be_tried_again() {
    let cloud = importing().await;
    let huge = (MAX_BYTES + 1).to_string();
    let chunked = [("transfer-encoding", "chunked")];
    // (name, reply, code, part of the detail, requests)
    type Case = (&'static str, fn() -> Reply, &'static str, &'static str, usize);
    let cases: [Case; 9] = [
        (
            "missing",
            || Reply::with("404 Not Found", &[("content-length", "6")], b"secret"),
            "import_failed",
            "404",
            1,
        ),
        ("busy", || Reply::with("503 Busy", &[], b"secret"), "import_failed", "503", 5),
        ("circle", || Reply::redirect("/again"), "import_failed", "redirects", 6),
        ("nowhere", || Reply::with("302 Found", &[], b""), "import_failed", "redirects", 1),
        (
            "zipped",
            || Reply::with("200 OK", &[("content-encoding", "gzip")], b"secret"),
            "import_failed",
            "encoded",
            1,
        ),
        ("odd", || Reply::file(&[0; 1000]), "image_refused", "", 1),
        (
            "short",
            || Reply::with("200 OK", &[("content-length", "1024")], &[0; 512]),
            "import_failed",
            "broke off",
            5,
        ),
        ("no-http", || Reply(b"secret\r\n\r\n".to_vec(), Then::Close), "import_failed", "cannot be asked", 5),
        (
            "silent",
            || Reply::with("200 OK", &[("content-length", "1024")], &[0; 5]).then(Then::Silence),
            "import_failed",
            "less than",
            5,
        ),
    ];
    for (name, reply, code, why, requests) in cases {
        let server = Server::start(move |_, _| reply()).await;
        let begun = import(&cloud, name, &server.url()).await;
        run(&cloud).await;
        let ended = operation(&cloud, &begun).await;
        assert_eq!(ended["error"]["code"], code, "{name}: {ended}");
        assert!(ended["error"]["detail"].as_str().unwrap().contains(why), "{name}: {ended}");
        assert!(!ended.to_string().contains("secret"), "{ended}");
        assert_eq!(server.heads().len(), requests, "{name}: {ended}");
        let failed = image(&cloud, name).await;
        assert_eq!((&failed["state"], &failed["failure"]), (&json!("failed"), &ended["error"]));
        assert_eq!(swept(&cloud).await, (0, 0), "{name}");
    }
    let too_long = Server::start(move |_, _| {
        Reply::with("200 OK", &[("content-length", &huge)], &[]).then(Then::Silence)
    });
    let endless =
        Server::start(move |_, _| Reply::with("200 OK", &chunked, b"7fffffff\r\n").then(Then::Endless));
    for (name, server) in [("too-long", too_long.await), ("endless", endless.await)] {
        let begun = import(&cloud, name, &server.url()).await;
        run_imports(&cloud.app).await.unwrap();
        assert_eq!(operation(&cloud, &begun).await["error"]["code"], "payload_too_large");
        assert_eq!(swept(&cloud).await, (0, 0), "{name}");
    }
    let loris =
        Server::start(|_, _| Reply::with("200 OK", &[("content-length", "1024")], b"").then(Then::Drip(100)));
    let begun = import(&cloud, "loris", &loris.await.url()).await;
    run(&cloud).await;
    let detail = operation(&cloud, &begun).await["error"]["detail"].clone();
    assert!(detail.as_str().unwrap().contains("less than 1024 bytes per second"), "{detail}");
    assert_eq!(swept(&cloud).await, (0, 0));
    // Once more, from somewhere better; and once with a file of one's own.
    let server = Server::of(vec![0; 512]).await;
    cloud.post(&format!("{IMAGES}/missing/import"), json!({"url": server.url()})).await.expect(202);
    run_imports(&cloud.app).await.unwrap();
    let done = image(&cloud, "missing").await;
    assert_eq!((&done["state"], &done["failure"]), (&json!("available"), &json!(null)));
    let done = cloud.put_bytes(&format!("{IMAGES}/odd/content"), vec![0; 512]).await.expect(200);
    assert_eq!((&done["state"], &done["failure"]), (&json!("available"), &json!(null)));
}

#[tokio::test]
async fn another_file_than_the_announced_one_is_refused() {
    let cloud = importing().await;
    let server = Server::of(vec![0; 512]).await;
    let (right, wrong) = (hex::encode(sha2::Sha256::digest([0; 512])), "0".repeat(64));
    for (name, sha256, state) in [("wrong", &wrong, "failed"), ("right", &right, "available")] {
        cloud.post(IMAGES, json!({"name": name, "format": "raw"})).await.expect(201);
        let body = json!({"url": server.url(), "sha256": sha256});
        cloud.post(&format!("{IMAGES}/{name}/import"), body).await.expect(202);
        run_imports(&cloud.app).await.unwrap();
        assert_eq!(image(&cloud, name).await["state"], state);
    }
    assert_eq!(image(&cloud, "wrong").await["failure"]["code"], "checksum_mismatch");
    cloud.post(IMAGES, json!({"name": "made-for", "format": "raw", "sha256": right})).await.expect(201);
    let path = format!("{IMAGES}/made-for/import");
    let other = json!({"url": server.url(), "sha256": wrong});
    cloud.post(&path, other).await.expect_problem(422, "validation_failed");
    let dry = cloud.post(&format!("{path}?dry_run=true"), json!({"url": server.url()})).await;
    assert_eq!(dry.headers["cumulo-dry-run"], "true");
    assert_eq!(image(&cloud, "made-for").await["state"], "awaiting_upload");
    assert_eq!(swept(&cloud).await, (1, 1));
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_if_it_is_still_the_same_file() {
    let cloud = importing().await;
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    let length = bytes.len().to_string();
    for changed in [false, true] {
        let (file, length) = (bytes.clone(), length.clone());
        let server = Server::start(move |number, head| {
            let half = file.len() / 2;
            let headers = [("content-length", length.as_str()), ("etag", "\"one\"")];
            match (number, changed) {
                (0, _) => Reply::with("200 OK", &headers, &file[..half]),
                (1, false) => {
                    assert!(head.contains("if-range: \"one\"\r\n"), "{head}");
                    let offset = head.split_once("range: bytes=").unwrap().1.split_once('-').unwrap().0;
                    let offset: usize = offset.parse().unwrap();
                    assert!(offset > 0 && offset <= half);
                    let range = format!("bytes {offset}-{}/{}", file.len() - 1, file.len());
                    let rest = &file[offset..];
                    let length = rest.len().to_string();
                    let headers = [("content-length", length.as_str()), ("content-range", &range)];
                    Reply::with("206 Partial Content", &headers, rest)
                }
                _ => Reply::with("200 OK", &headers, &file),
            }
        })
        .await;
        let name = if changed { "changed" } else { "same" };
        let begun = import(&cloud, name, &server.url()).await;
        run(&cloud).await;
        let done = image(&cloud, name).await;
        assert_eq!(done["sha256"], hex::encode(sha2::Sha256::digest(&bytes)), "{done}");
        assert_eq!(server.heads().len(), if changed { 3 } else { 2 });
        let trail = operation(&cloud, &begun).await["trail"].to_string();
        assert_eq!(trail.contains("attempt_1_failed"), changed, "{trail}");
    }
    assert_eq!(swept(&cloud).await, (1, 1));
}

#[tokio::test]
async fn the_clouds_own_addresses_are_refused() {
    let cloud = cloud().await;
    let pool = json!({"name": "public", "cidr": "198.41.0.0/24"});
    cloud.post("/v1/address_pools", pool).await.expect(201);
    let begun = import(&cloud, "image", "https://198.41.0.9/").await;
    run_imports(&cloud.app).await.unwrap();
    let error = operation(&cloud, &begun).await["error"].clone();
    assert_eq!(error["code"], "import_refused", "{error}");
    assert!(error["detail"].as_str().unwrap().contains("of this cloud itself"), "{error}");
}
