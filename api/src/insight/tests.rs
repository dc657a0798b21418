//! Metrics and guests through the router, brought by hosts that tell the truth and by others.

mod cost;

use axum::http::Method;
use serde_json::{Value, json};

use super::store::taking::{empty_next_slot, slot};
use crate::instances::place_pending;
use crate::testing::{Answer, TestCloud, TestHost, guide};

const WEB: &str = "/v1/projects/demo/instances/web";
const METRICS: &str = "/v1/projects/demo/instances/web/metrics";
const GUEST: &str = "/v1/projects/demo/instances/web/guest";

async fn create(cloud: &TestCloud, labels: Value) -> Value {
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "labels": labels});
    let created = cloud.post("/v1/projects/demo/instances", body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    cloud.get(&format!("/v1/projects/demo/instances/{}", created["id"].as_str().unwrap())).await.expect(200)
}

/// A sample of an instance that has used so much since its start.
fn sample(instance: &Value, run: u32, cpu_ns: u64, bytes: u64) -> Value {
    let port = &instance["nics"][0]["port"]["id"];
    let volume = &instance["volumes"][0]["volume"]["id"];
    let card = json!({"received_bytes": bytes, "received_packets": 1, "received_drops": 0,
        "sent_bytes": bytes.saturating_mul(2), "sent_packets": 2, "sent_drops": 0});
    let ports: Vec<_> = Some(port)
        .filter(|id| id.is_string())
        .map(|id| json!({"id": id, "counters": card}))
        .into_iter()
        .collect();
    json!({"id": instance["id"], "run": run, "age_ms": 0, "vcpus": 1, "cpu_ns": cpu_ns,
        "memory": {"size_bytes": 268_435_456, "total_bytes": 250_000_000, "available_bytes": 200_000_000,
            "resident_bytes": 90_000_000},
        "volumes": [{"id": volume, "counters": {"read_bytes": bytes, "read_requests": 3,
            "written_bytes": 0, "write_requests": 0}}],
        "ports": ports})
}

async fn bring(host: &TestHost<'_>, samples: Value, guests: Value) -> Answer {
    let batch = json!({"epoch": host.epoch, "samples": samples, "guests": guests});
    host.call(Method::POST, "/agent/v1/insight", Some(batch)).await
}

async fn kept(cloud: &TestCloud) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM instance_samples").fetch_one(&cloud.app.pool).await.unwrap()
}

#[tokio::test]
async fn counters_become_rates_and_a_restart_is_no_rate() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = create(&cloud, json!({})).await;
    assert_eq!(cloud.get(METRICS).await.expect(200)["items"], json!([]));
    for (run, cpu_ns, bytes) in
        [(1, 0, 0), (1, 7_500_000_000u64, 15_000), (2, 0, 0), (2, 15_000_000_000, 30_000)]
    {
        let answer = bring(&host, json!([sample(&web, run, cpu_ns, bytes)]), json!([])).await.expect(200);
        assert_eq!(answer, json!({"sample_seconds": 15, "guest_seconds": 300}));
        cloud.pass(15);
    }
    let metrics = cloud.get(METRICS).await.expect(200);
    assert_eq!(metrics["step_seconds"], 15);
    let points = metrics["items"].as_array().unwrap();
    let of = |name: &str| points.iter().map(|point| point[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("cpu_percent"), [Value::Null, json!(50.0), Value::Null, json!(100.0)]);
    assert_eq!(of("read_bytes_per_second"), [Value::Null, json!(1000.0), Value::Null, json!(2000.0)]);
    assert_eq!(of("memory_used_bytes"), vec![json!(50_000_000); 4]);
    assert_eq!(points[1]["at"], "2026-06-01T12:00:15Z");
    let volume = json!({"volume_id": web["volumes"][0]["volume"]["id"], "read_bytes_per_second": 1000.0,
        "written_bytes_per_second": 0.0, "read_requests_per_second": 0.0, "write_requests_per_second": 0.0});
    assert_eq!(points[1]["volumes"], json!([volume]));

    // A longer step, and another time.
    let hour = cloud.get(&format!("{METRICS}?step_seconds=60")).await.expect(200);
    assert_eq!(hour["items"].as_array().unwrap().len(), 1);
    assert_eq!(hour["items"][0]["cpu_percent"], 75.0);
    let early =
        cloud.get(&format!("{METRICS}?to=2026-06-01T12:00:10Z&from=2026-06-01T11:00:00Z")).await.expect(200);
    assert_eq!(early["items"].as_array().unwrap().len(), 1);
    for wrong in [
        "step_seconds=14",
        "step_seconds=15&from=2026-05-01T00:00:00Z",
        "from=2026-06-02T00:00:00Z",
        "from=-009999-01-01T00:00:00Z",
        "from=yesterday",
        "until=now",
    ] {
        cloud.get(&format!("{METRICS}?{wrong}")).await.expect_problem(400, "invalid_query");
    }
    cloud.get("/v1/projects/demo/instances/nothing/metrics").await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn what_a_hostile_agent_brings_is_bounded_and_concerns_its_own_instances_alone() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = create(&cloud, json!({})).await;
    let stranger = cloud.join_host("host-2").await;
    let guest = json!([{"id": web["id"], "age_ms": 0, "answer": {"silent": "no_agent"}}]);
    bring(&stranger, json!([sample(&web, 1, 1, 1)]), guest).await.expect(200);
    assert_eq!(kept(&cloud).await, 0);
    assert_eq!(cloud.get(GUEST).await.expect(200)["asked_at"], Value::Null);

    // The same again and again, what is old, and what cannot be.
    let one = sample(&web, 1, u64::MAX, u64::MAX);
    for _ in 0..5 {
        bring(&host, json!([one, one, one]), json!([])).await.expect(200);
        cloud.pass(1);
    }
    assert_eq!(kept(&cloud).await, 2, "four seconds apart");
    let mut old = one.clone();
    old["age_ms"] = json!(u32::MAX);
    cloud.pass(30);
    bring(&host, json!([old]), json!([])).await.expect(200);
    assert_eq!(kept(&cloud).await, 2);
    let mut many = one.clone();
    many["volumes"] = Value::Array(vec![one["volumes"][0].clone(); 1000]);
    bring(&host, json!([many]), json!([])).await.expect(200);
    let size: i32 = sqlx::query_scalar("SELECT max(pg_column_size(sample)) FROM instance_samples")
        .fetch_one(&cloud.app.pool)
        .await
        .unwrap();
    assert!(size < 20_000, "{size}");
    cloud.get(METRICS).await.expect(200);
    bring(&host, Value::Array(vec![one.clone(); 501]), json!([]))
        .await
        .expect_problem(422, "validation_failed");
    let silent = json!({"id": web["id"], "age_ms": 0, "answer": {"silent": "no_agent"}});
    bring(&host, json!([]), Value::Array(vec![silent; 9])).await.expect_problem(422, "validation_failed");
    for (field, wrong) in
        [("cpu_ns", json!(-1)), ("run", json!("one")), ("vcpus", json!(1.5)), ("evil", json!(1))]
    {
        let mut sample = one.clone();
        sample[field] = wrong;
        bring(&host, json!([sample]), json!([])).await.expect_problem(422, "validation_failed");
    }
    let batch = json!({"epoch": host.epoch - 1, "samples": [one]});
    host.call(Method::POST, "/agent/v1/insight", Some(batch)).await.expect_problem(409, "stale_epoch");
}

#[tokio::test]
async fn hosts_invent_neither_disks_nor_cards_and_no_answer_comes_too_often() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = create(&cloud, json!({"tier": "web"})).await;
    let mut invented = sample(&web, 1, 1, 1);
    for part in ["volumes", "ports"] {
        let real = invented[part][0].clone();
        let mut stranger = real.clone();
        stranger["id"] = web["id"].clone();
        invented[part] = json!([stranger, real, real]);
    }
    bring(&host, json!([invented]), json!([])).await.expect(200);
    let text = String::from_utf8(cloud.get("/v1/projects/demo/instance_metrics").await.body).unwrap();
    for (metric, id) in [
        ("cumulo_instance_volume_reads_total{", &web["volumes"][0]["volume"]["id"]),
        ("cumulo_instance_port_sent_bytes_total{", &web["nics"][0]["port"]["id"]),
    ] {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(metric)).collect();
        assert!(lines.len() == 1 && lines[0].contains(id.as_str().unwrap()), "{lines:?}");
    }

    let say = async |hostname: &str| {
        let guests = json!([{"id": web["id"], "age_ms": 0, "answer": {"told": {"hostname": hostname}}}]);
        bring(&host, json!([]), guests).await.expect(200);
        cloud.get(GUEST).await.expect(200)["hostname"].clone()
    };
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    assert_eq!(say("one").await, "one");
    cloud.pass(3);
    assert_eq!(say("two").await, "one", "four seconds apart");
    cloud.pass(1);
    assert_eq!(say("three").await, "three");

    let scrape = async |labels: &str| {
        let path = format!("/v1/projects/demo/instance_metrics?label_selector={labels}");
        String::from_utf8(cloud.get(&path).await.body).unwrap()
    };
    assert!(scrape("tier=web").await.contains("instance_name=\"web\""));
    assert_eq!(scrape("tier=db").await, "");
}

#[tokio::test]
async fn a_guest_is_shown_as_it_says_and_why_it_says_nothing() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = create(&cloud, json!({})).await;
    let shown = cloud.get(GUEST).await.expect(200);
    assert_eq!((&shown["agent"], &shown["seen_at"]), (&json!("not_running"), &Value::Null));
    host.report(&web["id"], 1, 1, json!({"state": "running"})).await;
    assert_eq!(cloud.get(GUEST).await.expect(200)["agent"], "not_asked");
    let say = async |answer: Value| {
        let guests = json!([{"id": web["id"], "age_ms": 2000, "answer": answer}]);
        bring(&host, json!([]), guests).await.expect(200);
        cloud.get(GUEST).await.expect(200)
    };
    let shown = say(json!({"silent": "no_agent"})).await;
    assert_eq!(shown["agent"], "no_agent");
    assert!(shown["detail"].as_str().unwrap().contains("qemu-guest-agent"), "{shown}");
    assert_eq!(shown["asked_at"], "2026-06-01T11:59:58Z");

    let info = json!({"hostname": "web\u{1b}[2J\0", "os": {"id": "debian", "pretty_name": "x".repeat(5000)},
        "utc_offset_seconds": 3600, "clock_offset_ms": -20,
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01",
            "addresses": [{"address": "10.0.0.5", "prefix_length": 24}]}],
        "filesystems": vec![json!({"mount_point": "/", "device": "vda1", "kind": "ext4", "total_bytes": 100,
            "used_bytes": 40}); 100]});
    cloud.pass(60);
    let shown = say(json!({"told": info})).await;
    assert_eq!((&shown["agent"], &shown["detail"]), (&json!("answering"), &Value::Null));
    assert_eq!(shown["hostname"], "web[2J");
    assert_eq!(shown["os"]["pretty_name"].as_str().unwrap().len(), 256);
    assert_eq!(shown["filesystems"].as_array().unwrap().len(), 64);
    assert_eq!(shown["interfaces"][0]["addresses"][0], json!({"address": "10.0.0.5", "prefix_length": 24}));
    assert_eq!((&shown["clock_offset_ms"], &shown["seen_at"]), (&json!(-20), &json!("2026-06-01T12:00:58Z")));

    cloud.pass(60);
    let shown = say(json!({"silent": "not_answering"})).await;
    assert_eq!((&shown["agent"], &shown["hostname"]), (&json!("not_answering"), &json!("web[2J")));
    assert_eq!(
        (&shown["asked_at"], &shown["seen_at"]),
        (&json!("2026-06-01T12:01:58Z"), &json!("2026-06-01T12:00:58Z"))
    );
    host.report(&web["id"], 1, 1, json!({"state": "stopped", "reason": "guest_shutdown"})).await;
    assert_eq!(cloud.get(GUEST).await.expect(200)["agent"], "not_running");
}

#[tokio::test]
async fn prometheus_scrapes_with_the_key_of_a_service_account() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let labels = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "tier": "web"});
    let web = create(&cloud, labels).await;
    let filesystem = json!({"mount_point": "/a\"b\\c", "device": "vda1", "kind": "ext4", "used_bytes": 40});
    let info = json!({"filesystems": [filesystem]});
    let guest = json!([{"id": web["id"], "age_ms": 0, "answer": {"told": info}}]);
    bring(&host, json!([sample(&web, 1, 1_500_000_000, 7)]), guest).await.expect(200);

    cloud.post("/v1/projects/demo/service_accounts", json!({"name": "prometheus"})).await.expect(201);
    let key =
        cloud.post("/v1/projects/demo/service_accounts/prometheus/api_keys", json!({})).await.expect(201);
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    let scrape =
        async |path: &str| cloud.call_with(Method::GET, path, &[("authorization", &bearer)], None).await;
    let (metrics, targets) = ("/v1/projects/demo/instance_metrics", "/v1/projects/demo/scrape_targets");
    scrape(metrics).await.expect_problem(404, "not_found");
    let policy = json!({"name": "scraping", "document": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Action": ["compute:ListInstanceMetrics", "compute:ListScrapeTargets"], "Resource": "*"}]}});
    cloud.post("/v1/projects/demo/policies", policy).await.expect(201);
    let attachment = json!({"policy": "scraping", "service_account": "prometheus"});
    cloud.post("/v1/projects/demo/policy_attachments", attachment).await.expect(201);

    let scraped = scrape(metrics).await;
    assert_eq!(scraped.status, 200);
    assert_eq!(scraped.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(scraped.body).unwrap();
    let id = web["id"].as_str().unwrap();
    let own = format!("instance_id=\"{id}\",instance_name=\"web\"");
    for line in [
        "# TYPE cumulo_instance_cpu_seconds_total counter".to_owned(),
        format!("cumulo_instance_cpu_seconds_total{{{own}}} 1.5"),
        format!("cumulo_instance_up{{{own}}} 1"),
        format!("cumulo_instance_memory_used_bytes{{{own}}} 50000000"),
        format!(
            "cumulo_instance_info{{{own},instance_type=\"tiny\",label_prometheus_io_port=\"8080\",\
            label_prometheus_io_scrape=\"true\",label_tier=\"web\"}} 1"
        ),
        format!(
            r#"cumulo_instance_filesystem_used_bytes{{{own},mountpoint="/a\"b\\c",device="vda1",fstype="ext4"}} 40"#
        ),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    let found = scrape(targets).await.expect(200);
    let address = web["nics"][0]["addresses"][0].as_str().expect("a project has a network of its own");
    assert_eq!(found[0]["targets"], json!([format!("{address}:8080")]));
    let labels = &found[0]["labels"];
    assert_eq!(
        (&labels["instance_name"], &labels["__meta_cumulo_label_tier"]),
        (&json!("web"), &json!("web"))
    );
    assert_eq!(scrape(&format!("{targets}?address=public")).await.expect(200), json!([]));
    scrape(&format!("{targets}?address=both")).await.expect_problem(400, "invalid_query");

    // What is old is not now, and what is not wanted is not scraped.
    cloud.pass(61);
    let text = String::from_utf8(scrape(metrics).await.body).unwrap();
    assert!(
        text.contains(&format!("cumulo_instance_up{{{own}}} 0")) && !text.contains("cpu_seconds"),
        "{text}"
    );
    cloud
        .call(Method::PATCH, WEB, Some(json!({"labels": {"prometheus.io/scrape": "false"}})))
        .await
        .expect(200);
    assert_eq!(scrape(targets).await.expect(200), json!([]));
}

#[tokio::test]
async fn the_history_of_three_hours_stays_and_no_more() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    let web = create(&cloud, json!({})).await;
    // A sample in each half of ten half-hours.
    for _ in 0..20 {
        empty_next_slot(&cloud.app).await.unwrap();
        bring(&host, json!([sample(&web, 1, 1, 1)]), json!([])).await.expect(200);
        cloud.pass(900);
    }
    empty_next_slot(&cloud.app).await.unwrap();
    let now = cloud.app.clock.now();
    let oldest: time::OffsetDateTime =
        sqlx::query_scalar("SELECT min(at) FROM instance_samples").fetch_one(&cloud.app.pool).await.unwrap();
    let age = (now - oldest).whole_minutes();
    assert!((180..=240).contains(&age), "{age}");
    assert_eq!(slot(now), slot(now + time::Duration::hours(4)));
    cloud.sign_in_again().await;
    let shown = cloud.get(&format!("{METRICS}?from=2026-06-01T14:00:00Z&step_seconds=900")).await.expect(200);
    assert!(shown["items"].as_array().unwrap().len() >= 11, "{shown}");

    // Whoever reads for long, like a backup, holds up nobody.
    let mut reader = cloud.app.pool.acquire().await.unwrap();
    sqlx::query("BEGIN").execute(&mut *reader).await.unwrap();
    sqlx::query("SELECT FROM instance_samples LIMIT 1").execute(&mut *reader).await.unwrap();
    cloud.pass(1800);
    empty_next_slot(&cloud.app).await.unwrap();
    cloud.sign_in_again().await;
    let held = kept(&cloud).await;
    cloud.get(METRICS).await.expect(200);
    sqlx::query("ROLLBACK").execute(&mut *reader).await.unwrap();
    empty_next_slot(&cloud.app).await.unwrap();
    assert!(kept(&cloud).await < held);
}

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.join_host("host-1").await;
    create(&cloud, json!({})).await;
    let commands = guide::commands(include_str!("../../../docs/insight.md"));
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let answer = guide::run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
    }
}

#[test]
fn a_target_has_the_address_that_was_asked_for() {
    use super::discovery::target;
    use super::store::Scraped;
    use super::types::AddressKind::{Private, Public};
    use sqlx::types::Json;

    let nics = json!([
        {"network_name": "old", "addresses": [{"address": "10.9.0.9"}], "detaching": true},
        {"network_name": "back", "addresses": [{"address": "fd00::5"}], "detaching": false},
        {"network_name": "front", "addresses": [{"address": "10.0.0.5"}], "detaching": false}]);
    let instance = |labels: Value| Scraped {
        id: uuid::Uuid::from_u128(1),
        name: "web".to_owned(),
        project: "demo".to_owned(),
        instance_type: "tiny".to_owned(),
        labels: Json(serde_json::from_value(labels).unwrap()),
        nics: Json(serde_json::from_value(nics.clone()).unwrap()),
        floating_ips: Json(serde_json::from_value(json!({"10.0.0.5": "203.0.113.7"})).unwrap()),
    };
    let web = instance(
        json!({"prometheus.io/path": "stats", "prometheus.io/scheme": "https", "a.b": "1", "a/b": "2", "__address__": "elsewhere"}),
    );
    let private = target(&web, Private).unwrap();
    assert_eq!(private.targets, ["[fd00::5]:9100"]);
    assert_eq!(
        (private.labels["__metrics_path__"].as_str(), private.labels["__scheme__"].as_str()),
        ("/stats", "https")
    );
    assert_eq!(private.labels["__meta_cumulo_label_a_b"], "1");
    assert_eq!(private.labels["__meta_cumulo_label_address__"], "elsewhere");
    let public = target(&web, Public).unwrap();
    assert_eq!(
        (public.targets[0].as_str(), public.labels["__meta_cumulo_network"].as_str()),
        ("203.0.113.7:9100", "front")
    );
    assert_eq!(public.labels["__meta_cumulo_private_ip"], "10.0.0.5");
    for wrong in ["0", "65536", "http", ""] {
        assert_eq!(target(&instance(json!({"prometheus.io/port": wrong})), Private), None);
    }
    assert!(
        !target(&instance(json!({"prometheus.io/scheme": "file"})), Private)
            .unwrap()
            .labels
            .contains_key("__scheme__")
    );
}
