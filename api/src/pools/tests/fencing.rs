//! Hosts that the operator's program switches off, with real programs.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use axum::http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::restart::{flush, heard, running, sees, work};
use super::{WEB, directory, fast, findings, two_with_the_pool};
use crate::hosts::{FenceOptions, Fencer, fence_with, watch_for_silence};
use crate::testing::{TestCloud, TestHost};

/// A program in a folder of its own, which counts its calls there.
struct Script(TempDir);

impl Script {
    fn new(text: &str) -> Self {
        let script = Self(TempDir::new().unwrap());
        script.write(text);
        script
    }

    fn write(&self, text: &str) {
        let own = self.0.path().display();
        let text = format!("#!/bin/sh\ncd {own}\necho \"$@\" >> calls\n{text}\n");
        // Not in place: the old one may be running.
        std::fs::write(self.path("next"), text).unwrap();
        std::fs::set_permissions(self.path("next"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(self.path("next"), self.path("fence")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn fencer(&self, timeout: u32) -> Fencer {
        let command = self.path("fence").into_os_string().into_string().unwrap();
        let (fence_command, fence_after_seconds) = (Some(command.into()), 120);
        FenceOptions { fence_command, fence_after_seconds, fence_timeout_seconds: timeout }
            .open()
            .unwrap()
            .unwrap()
    }

    async fn appears(&self, name: &str) {
        let there = async {
            while !self.path(name).exists() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), there).await.expect("it never began");
    }
}

/// The host is heard, and no guard on it keeps a lease.
async fn heard_unguarded(cloud: &TestCloud, host: &TestHost<'_>) {
    host.beat(json!([fast(directory(1), 20)])).await.expect(200);
    flush(cloud).await;
}

/// Time in which only these are heard.
async fn silence(cloud: &TestCloud, heard_of: &[&TestHost<'_>], seconds: i64) {
    for _ in 0..seconds / 10 {
        cloud.pass(10);
        watch_for_silence(&cloud.app).await.unwrap();
        for host in heard_of {
            heard(cloud, host, 100, json!([])).await;
        }
    }
}

async fn host(cloud: &TestCloud, host: &TestHost<'_>) -> Value {
    cloud.get(&format!("/v1/hosts/{}", host.id)).await.expect(200)
}

/// An agent that is dead ends no guest, nor does what follows from it.
#[tokio::test]
async fn a_host_whose_guard_writes_on_is_not_switched_off() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (_, home, away) = running(&cloud, &hosts).await;
    let script = Script::new("cat > input; echo off");
    let fencer = script.fencer(20);
    watch_for_silence(&cloud.app).await.unwrap();
    silence(&cloud, &[away], 130).await;
    heard(&cloud, away, 101, json!([sees(home, 9000, 5)])).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls(), Vec::<String>::new());
    let held = host(&cloud, home).await["fencing"].clone();
    assert!(held["detail"].as_str().is_some_and(|why| why.contains("lease")), "{held}");
    heard(&cloud, away, 102, json!([sees(home, 9000, 61)])).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls().len(), 1);
}

/// Where the instance is, as the operator sees it.
async fn is_on(host: &TestHost<'_>, id: &Value) -> bool {
    host.disks(id).await.is_some()
}

#[tokio::test]
async fn a_host_without_a_guard_is_switched_off_and_its_instances_start_elsewhere() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = running(&cloud, &hosts).await;
    let lost = usize::from(home.id == hosts[1].id);
    heard_unguarded(&cloud, home).await;
    let script = Script::new("cat > input; echo chassis power is off");
    let fencer = script.fencer(20);
    watch_for_silence(&cloud.app).await.unwrap();
    silence(&cloud, &[away], 110).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    work(&cloud).await;
    assert_eq!(script.calls(), Vec::<String>::new(), "it is not silent for long enough");
    assert_eq!(host(&cloud, home).await.get("fencing"), None);
    silence(&cloud, &[away], 10).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    let name = host(&cloud, home).await["name"].as_str().unwrap().to_owned();
    assert_eq!(script.calls(), [format!("off {} {name}", home.id)]);
    let dead = host(&cloud, home).await;
    assert!(dead["declared_dead_at"].is_string(), "{dead}");
    assert_eq!((&dead["fencing"]["state"], &dead["fencing"]["attempts"]), (&json!("off"), &json!(1)));
    work(&cloud).await;
    assert!(is_on(away, &web["id"]).await, "it did not start elsewhere");
    let operation = cloud.get(WEB).await.expect(200)["operation"]["id"].as_str().unwrap().to_owned();
    let trail = cloud.get(&format!("/v1/projects/demo/operations/{operation}")).await.expect(200);
    assert!(trail["trail"].to_string().contains("which was switched off"), "{trail}");
    let records = cloud.get("/v1/audit_records?action=host:DeclareHostDead").await.expect(200);
    let record = &records["items"][0];
    assert_eq!(record["principal_name"], "cumulo", "{record}");
    assert_eq!(record["after"]["proof"]["fence_command"]["said"], "chassis power is off");
    // Nothing is done twice.
    silence(&cloud, &[away], 200).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls().len(), 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
    // It is switched on again, and joins in as ever.
    hosts[lost].open_session().await;
    let back = host(&cloud, &hosts[lost]).await;
    assert_eq!((back.get("declared_dead_at"), back.get("fencing")), (None, None));
    assert_eq!(hosts[lost].desired(0).await["objects"][0]["kind"], "delete_instance");
}

#[tokio::test]
async fn a_program_that_fails_is_called_again_and_the_operator_reads_why() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (web, home, away) = running(&cloud, &hosts).await;
    heard_unguarded(&cloud, home).await;
    let script = Script::new("printf 'BMC says \\033[31mno\\n' >&2; exit 7");
    let fencer = script.fencer(20);
    watch_for_silence(&cloud.app).await.unwrap();
    silence(&cloud, &[away], 120).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls().len(), 1, "it was called again at once");
    let fencing = host(&cloud, home).await["fencing"].clone();
    assert_eq!((&fencing["state"], &fencing["attempts"]), (&json!("failed"), &json!(1)));
    assert_eq!(fencing["detail"], "it ended with 7: BMC says [31mno");
    assert!(fencing["next_at"].is_string());
    assert!(findings(&cloud).await.contains(&"host_fence_failed".to_owned()));
    let metrics = cloud.call(Method::GET, "/metrics", None).await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.lines().any(|line| line.starts_with("cumulo_host_fence_failures{") && line.ends_with(" 1"))
    );
    work(&cloud).await;
    assert!(is_on(home, &web["id"]).await, "it left a host that may run it");
    // Once a minute, then every other minute: and then it says yes.
    silence(&cloud, &[away], 60).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls().len(), 2);
    script.write("exit 0");
    silence(&cloud, &[away], 110).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls().len(), 2);
    silence(&cloud, &[away], 10).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!((script.calls().len(), &host(&cloud, home).await["fencing"]["state"]), (3, &json!("off")));
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_heard_while_the_program_runs_is_not_declared_dead() {
    let cloud = TestCloud::start().await;
    let mut hosts = two_with_the_pool(&cloud).await;
    let (web, home, _) = running(&cloud, &hosts).await;
    let lost = usize::from(home.id == hosts[1].id);
    let script = Script::new("touch begun; while [ ! -e go ]; do sleep 0.05; done; rm begun go");
    let fencer = script.fencer(30);
    for anew in [false, true] {
        heard_unguarded(&cloud, &hosts[lost]).await;
        watch_for_silence(&cloud.app).await.unwrap();
        silence(&cloud, &[&hosts[1 - lost]], 120).await;
        let (app, fencer) = (cloud.app.clone(), fencer.clone());
        let running = tokio::spawn(async move { fence_with(&app, &fencer).await });
        script.appears("begun").await;
        if anew {
            hosts[lost].open_session().await;
        } else {
            heard_unguarded(&cloud, &hosts[lost]).await;
        }
        std::fs::write(script.path("go"), "").unwrap();
        running.await.unwrap().unwrap();
        let now = host(&cloud, &hosts[lost]).await;
        assert_eq!((now.get("declared_dead_at"), now.get("fencing")), (None, None), "{now}");
        work(&cloud).await;
        assert!(is_on(&hosts[lost], &web["id"]).await, "it left a host that was heard");
    }
    assert_eq!(script.calls().len(), 2);
}

#[tokio::test]
async fn a_program_that_a_replica_has_left_behind_is_run_again() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (_, home, away) = running(&cloud, &hosts).await;
    heard_unguarded(&cloud, home).await;
    let script = Script::new("touch begun; sleep 600");
    watch_for_silence(&cloud.app).await.unwrap();
    silence(&cloud, &[away], 120).await;
    let (app, fencer) = (cloud.app.clone(), script.fencer(20));
    let dies = tokio::spawn(async move { fence_with(&app, &fencer).await });
    script.appears("begun").await;
    dies.abort();
    assert!(dies.await.unwrap_err().is_cancelled());
    script.write("exit 0");
    let other = cloud.app.clone();
    fence_with(&other, &script.fencer(20)).await.unwrap();
    assert_eq!((script.calls().len(), &host(&cloud, home).await["fencing"]["state"]), (1, &json!("running")));
    silence(&cloud, &[away], 40).await;
    fence_with(&other, &script.fencer(20)).await.unwrap();
    let dead = host(&cloud, home).await;
    assert_eq!((&dead["fencing"]["state"], &dead["fencing"]["attempts"]), (&json!("off"), &json!(2)));
    assert!(dead["declared_dead_at"].is_string());
}

#[tokio::test]
async fn many_at_once_are_held_and_so_is_what_its_operator_works_on() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (_, home, away) = running(&cloud, &hosts).await;
    heard_unguarded(&cloud, home).await;
    let others =
        [cloud.join_host("host-3").await, cloud.join_host("host-4").await, cloud.join_host("host-5").await];
    let script = Script::new("exit 0");
    let fencer = script.fencer(20);
    watch_for_silence(&cloud.app).await.unwrap();
    let held = async |why: &str| {
        fence_with(&cloud.app, &fencer).await.unwrap();
        let fencing = host(&cloud, home).await["fencing"].clone();
        assert_eq!(fencing["state"], "held", "{why}");
        assert!(fencing["detail"].as_str().unwrap().contains(why), "{fencing}");
        assert!(findings(&cloud).await.contains(&"host_fence_held".to_owned()));
        assert_eq!(script.calls(), Vec::<String>::new(), "{why}");
    };
    silence(&cloud, &[away, &others[0]], 120).await;
    held("3 of 5 hosts are silent at once").await;
    // Cordoned hosts are the operator's business, and count neither way.
    let path = format!("/v1/hosts/{}", home.id);
    let cordon = async |cordoned: bool| {
        cloud.call(Method::PATCH, &path, Some(json!({"cordoned": cordoned}))).await.expect(200);
    };
    cordon(true).await;
    held("it is cordoned").await;
    cordon(false).await;
    for _ in 0..3 {
        silence(&cloud, &[], 10).await;
        heard_unguarded(&cloud, away).await;
        for other in &others {
            other.beat(json!([])).await.expect(200);
        }
    }
    flush(&cloud).await;
    held("no other host could take any").await;
    silence(&cloud, &[away], 10).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls().len(), 1);
    assert!(host(&cloud, home).await["declared_dead_at"].is_string());
}

#[tokio::test]
async fn silence_counts_from_when_somebody_listened() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (_, home, away) = running(&cloud, &hosts).await;
    heard_unguarded(&cloud, home).await;
    let script = Script::new("exit 0");
    let fencer = script.fencer(20);
    watch_for_silence(&cloud.app).await.unwrap();
    silence(&cloud, &[away], 110).await;
    // The control plane is away for an hour, or its database is.
    cloud.pass(3600);
    cloud.sign_in_again().await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    watch_for_silence(&cloud.app).await.unwrap();
    silence(&cloud, &[away], 110).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls(), Vec::<String>::new());
    silence(&cloud, &[away], 10).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls().len(), 1);
}

#[tokio::test]
async fn nothing_is_switched_off_for_what_waits_anyway_or_for_what_a_lease_proves() {
    let cloud = TestCloud::start().await;
    let hosts = two_with_the_pool(&cloud).await;
    let (_, home, away) = running(&cloud, &hosts).await;
    let script = Script::new("exit 0");
    let fencer = script.fencer(20);
    watch_for_silence(&cloud.app).await.unwrap();
    cloud.call(Method::PATCH, WEB, Some(json!({"on_host_failure": "wait"}))).await.expect(200);
    silence(&cloud, &[away], 200).await;
    fence_with(&cloud.app, &fencer).await.unwrap();
    assert_eq!(script.calls(), Vec::<String>::new());
    assert_eq!(host(&cloud, home).await.get("fencing"), None);
}
