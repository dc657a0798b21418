//! Whatever is done in whatever order: each volume and each snapshot reads as it should.
//!
//! A layer is what was written to it, and a disk is what its chain reads: that of the tables, over files that are written,
//! merged and removed by a host that does what it is told, later or twice. The model knows no layers: a disk is what was
//! written to it, and a snapshot is a copy.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{INSTANCES, SNAPSHOTS, VOLUMES, WEB, findings, running};
use crate::instances::place_pending;
use crate::testing::{TestCloud, TestHost};
use crate::volumes::merge;

/// Block to what was written there last.
type Content = BTreeMap<u64, u64>;

/// Numbers that look random, the same for the same seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }
}

/// What a snapshot shows of a volume; nothing as long as its host has not taken it.
#[derive(Debug, Clone, Default)]
struct Shown {
    volumes: Vec<String>,
    content: Option<BTreeMap<String, Content>>,
}

struct World<'a> {
    cloud: &'a TestCloud,
    host: &'a TestHost<'a>,
    web: Value,
    numbers: Numbers,
    /// The files of the host, and those that it has removed.
    files: BTreeMap<Uuid, Content>,
    removed: BTreeSet<Uuid>,
    /// The file to which the guest writes, by the name of its disk.
    tops: BTreeMap<String, Uuid>,
    /// What each disk and each snapshot should read.
    disks: BTreeMap<String, Content>,
    snapshots: BTreeMap<String, Shown>,
    written: u64,
    log: Vec<String>,
}

fn uuid(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}

impl World<'_> {
    fn fresh(&mut self, kind: char) -> String {
        self.written += 1;
        format!("{kind}{}", self.written)
    }

    /// The volumes with their chains, as the tables have them.
    async fn chains(&self) -> Vec<(String, Vec<Uuid>)> {
        let sql = "SELECT name, chain_of(layer_id) FROM volumes WHERE removal_id IS NULL";
        sqlx::query_as(sql).fetch_all(&self.cloud.app.pool).await.unwrap()
    }

    /// What a chain reads. A file that was never made is empty; one that was removed is lost data.
    fn read(&self, chain: &[Uuid]) -> Content {
        let mut content = Content::new();
        for layer in chain {
            assert!(!self.removed.contains(layer), "{layer} was removed: {:#?}", self.log);
            content.extend(self.files.get(layer).into_iter().flatten());
        }
        content
    }

    async fn check(&self) {
        let chains = self.chains().await;
        assert_eq!(chains.len(), self.disks.len(), "{:#?}", self.log);
        for (name, chain) in chains {
            assert_eq!(self.read(&chain), self.disks[&name], "{name} after {:#?}", self.log);
        }
        let sql = "SELECT s.name, v.position, v.volume_name, chain_of(v.layer_id)
                   FROM snapshots s JOIN snapshot_volumes v ON v.snapshot_id = s.id WHERE s.state = 'available'";
        let shown: Vec<(String, i32, String, Vec<Uuid>)> =
            sqlx::query_as(sql).fetch_all(&self.cloud.app.pool).await.unwrap();
        for (name, _, volume, chain) in shown {
            let expected = &self.snapshots[&name].content.as_ref().expect("nobody has taken it")[&volume];
            assert_eq!(&self.read(&chain), expected, "{name} of {volume} after {:#?}", self.log);
        }
    }

    /// The guest writes.
    fn write(&mut self) {
        let tops: Vec<_> = self.tops.keys().cloned().collect();
        let Some(name) = self.numbers.one_of(&tops) else { return };
        let block = u64::try_from(self.numbers.below(4)).unwrap();
        self.written += 1;
        self.files.get_mut(&self.tops[&name]).unwrap().insert(block, self.written);
        self.disks.get_mut(&name).unwrap().insert(block, self.written);
        self.log.push(format!("write {name} {block}"));
    }

    /// The host makes what it is told; what it says of it may be lost.
    async fn act(&mut self, lost: bool) {
        let names: BTreeMap<Uuid, String> = sqlx::query_as("SELECT id, name FROM volumes")
            .fetch_all(&self.cloud.app.pool)
            .await
            .unwrap()
            .into_iter()
            .collect();
        let (generation, disks) = self.host.disks(&self.web["id"]).await.unwrap();
        self.tops.clear();
        let mut reports = Vec::new();
        for disk in disks {
            let volume = &disk["volume"];
            let chain: Vec<_> = volume["layers"].as_array().unwrap().iter().map(uuid).collect();
            for layer in &chain {
                assert!(!self.removed.contains(layer), "{layer} was removed: {:#?}", self.log);
                self.files.entry(*layer).or_default();
            }
            self.tops.insert(names[&uuid(&volume["id"])].clone(), chain[chain.len() - 1]);
            let merges = volume["merges"].as_array().cloned().unwrap_or_default();
            for layer in &merges {
                let at = chain.iter().position(|one| *one == uuid(layer)).unwrap();
                assert!(at > 0 && at + 1 < chain.len(), "neither the lowest nor the top");
                let upper = self.files[&chain[at]].clone();
                self.files.get_mut(&chain[at - 1]).unwrap().extend(upper);
            }
            reports.push(json!({"id": volume["id"], "generation": volume["generation"], "state": "ready",
                "merged": merges}));
        }
        let disks = &self.disks;
        for snapshot in self.snapshots.values_mut().filter(|snapshot| snapshot.content.is_none()) {
            let content = snapshot.volumes.iter().map(|name| (name.clone(), disks[name].clone()));
            snapshot.content = Some(content.collect());
        }
        self.log.push(format!("act, lost: {lost}"));
        if !lost {
            self.host.report_with(&self.web["id"], generation, 1, running(), json!(reports)).await;
        }
    }

    async fn remove(&mut self, lost: bool) {
        let orders = self.host.removals().await;
        for order in &orders {
            for layer in order["layers"].as_array().unwrap() {
                assert!(!self.tops.values().any(|top| *top == uuid(layer)), "a guest writes to it");
                self.files.remove(&uuid(layer));
                self.removed.insert(uuid(layer));
            }
        }
        self.log.push(format!("remove {} orders, lost: {lost}", orders.len()));
        if !lost {
            let ids: Vec<_> = orders.iter().map(|order| order["removal_id"].clone()).collect();
            self.host.report_removed(json!(ids)).await;
        }
    }

    /// Makes a call; true when it was done.
    async fn call(&mut self, method: Method, path: &str, body: Value) -> bool {
        // Calls are limited by the second.
        self.cloud.pass(1);
        let answer = self.cloud.call(method.clone(), path, Some(body.clone())).await;
        let status = answer.status.as_u16();
        assert!([200, 201, 202, 204, 409, 422].contains(&status), "{answer:?}");
        self.log.push(format!("{method} {path} {body}: {status}"));
        answer.status.is_success()
    }

    async fn take(&mut self, what: &str, of: &str, volumes: Vec<String>, at_once: bool) {
        let name = self.fresh('s');
        let mut body = json!({"name": name});
        body[what] = json!(of);
        if self.call(Method::POST, SNAPSHOTS, body).await {
            let content = volumes.iter().map(|name| (name.clone(), self.disks[name].clone())).collect();
            self.snapshots.insert(name, Shown { volumes, content: at_once.then_some(content) });
        }
    }

    /// A random step.
    async fn step(&mut self) {
        let disks: Vec<_> = self.disks.keys().cloned().collect();
        let disk = self.numbers.one_of(&disks).unwrap();
        let names: Vec<_> = self.snapshots.keys().cloned().collect();
        let snapshot = self.numbers.one_of(&names);
        let volume = format!("{VOLUMES}/{disk}");
        match (self.numbers.below(20), snapshot) {
            (0, _) => {
                let name = self.fresh('v');
                if self.call(Method::POST, VOLUMES, json!({"name": name, "size_gib": 1})).await {
                    self.disks.insert(name, Content::new());
                }
            }
            (1, _) => {
                self.call(Method::POST, &format!("{WEB}/attach_volume"), json!({"volume": disk})).await;
            }
            (2, _) => {
                self.call(Method::POST, &format!("{WEB}/detach_volume"), json!({"volume": disk})).await;
            }
            (3, _) => {
                if self.call(Method::DELETE, &volume, Value::Null).await {
                    self.disks.remove(&disk);
                }
            }
            (4 | 5, _) => {
                let seen = self.cloud.get(&volume).await.expect(200);
                let at_once = seen.get("attachment").is_none();
                self.take("volume", &disk, vec![disk.clone()], at_once).await;
            }
            (6, _) => {
                let seen = self.cloud.get(WEB).await.expect(200);
                let all = seen["volumes"].as_array().unwrap().iter();
                let all = all.filter(|one| one["state"] != "detaching").map(|one| &one["volume"]["name"]);
                let all: Vec<_> = all.map(|name| name.as_str().unwrap().to_owned()).collect();
                self.take("instance", "web", all, false).await;
            }
            (7 | 8, Some(snapshot)) => {
                if self.call(Method::DELETE, &format!("{SNAPSHOTS}/{snapshot}"), Value::Null).await {
                    self.snapshots.remove(&snapshot);
                }
            }
            (9, Some(snapshot)) => {
                let shown = self.snapshots[&snapshot].clone();
                let of = self.numbers.one_of(&shown.volumes).unwrap();
                let name = self.fresh('v');
                let body = json!({"name": name, "source": {"snapshot": snapshot, "volume": of}});
                if self.call(Method::POST, VOLUMES, body).await {
                    self.disks.insert(name, shown.content.unwrap()[&of].clone());
                }
            }
            (10, Some(snapshot)) => {
                let path = format!("{SNAPSHOTS}/{snapshot}/restore");
                let shown = self.snapshots[&snapshot].clone();
                let of = self.numbers.one_of(&shown.volumes).unwrap();
                if self.call(Method::POST, &path, json!({"volume": of})).await {
                    self.disks.insert(of.clone(), shown.content.unwrap()[&of].clone());
                }
            }
            (11, _) => {
                let name = self.fresh('v');
                if self.call(Method::POST, VOLUMES, json!({"name": name, "source": {"volume": disk}})).await {
                    self.disks.insert(name, self.disks[&disk].clone());
                }
            }
            (12 | 13, _) => merge(&self.cloud.app).await.unwrap(),
            (14 | 15, _) => {
                let lost = self.numbers.below(3) == 0;
                self.act(lost).await;
            }
            (16, _) => {
                let lost = self.numbers.below(3) == 0;
                self.act(lost).await;
                self.remove(lost).await;
            }
            _ => self.write(),
        }
        self.check().await;
    }

    /// Until nothing is left to do.
    async fn settle(&mut self) {
        let sql = "SELECT (SELECT count(*) FROM volumes_to_merge())
                        + (SELECT count(*) FROM layers WHERE parent_merge IS NOT NULL OR NOT kept)";
        let mut left = 1;
        for _ in 0..60 {
            self.act(false).await;
            self.remove(false).await;
            merge(&self.cloud.app).await.unwrap();
            self.check().await;
            left = sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.cloud.app.pool).await.unwrap();
            if left == 0 {
                break;
            }
        }
        assert_eq!(left, 0, "{:#?}", self.log);
        assert_eq!(findings(self.cloud).await, Vec::<String>::new(), "{:#?}", self.log);
    }

    /// Everything goes, in a random order.
    async fn end(&mut self) {
        let disks: Vec<_> = self.disks.keys().filter(|name| !name.starts_with("root")).cloned().collect();
        for disk in &disks {
            self.call(Method::POST, &format!("{WEB}/detach_volume"), json!({"volume": disk})).await;
        }
        self.act(false).await;
        let volumes = disks.iter().map(|name| format!("{VOLUMES}/{name}"));
        let snapshots = self.snapshots.keys().map(|name| format!("{SNAPSHOTS}/{name}"));
        let mut paths: Vec<_> = volumes.chain(snapshots).collect();
        while !paths.is_empty() {
            let path = paths.swap_remove(self.numbers.below(paths.len()));
            assert!(self.call(Method::DELETE, &path, Value::Null).await, "{:#?}", self.log);
            let name = path.rsplit('/').next().unwrap();
            self.disks.remove(name);
            self.snapshots.remove(name);
            self.check().await;
        }
        self.settle().await;
        let [(_, chain)] = &self.chains().await[..] else { panic!("only the root is left") };
        let left: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM layers").fetch_all(&self.cloud.app.pool).await.unwrap();
        let sorted = |layers: &[Uuid]| layers.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&left), sorted(chain), "{:#?}", self.log);
        assert_eq!(self.files.keys().copied().collect::<BTreeSet<_>>(), sorted(chain), "{:#?}", self.log);
    }
}

async fn run(seed: u64, steps: usize) {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    let host = cloud.join_host("host-1").await;
    sqlx::query("UPDATE hosts SET disk_gib_capacity = 9999").execute(&cloud.app.pool).await.unwrap();
    let body = json!({"name": "web", "image": "image", "instance_type": "tiny", "networks": [],
        "volumes": [{"size_gib": 1, "name": "data"}]});
    let web = cloud.post(INSTANCES, body).await.expect(202);
    place_pending(&cloud.app).await.unwrap();
    let names = web["volumes"].as_array().unwrap().iter();
    let disks =
        names.map(|one| (one["volume"]["name"].as_str().unwrap().to_owned(), Content::new())).collect();
    let mut world = World {
        cloud: &cloud,
        host: &host,
        web,
        numbers: Numbers(seed),
        files: BTreeMap::new(),
        removed: BTreeSet::new(),
        tops: BTreeMap::new(),
        disks,
        snapshots: BTreeMap::new(),
        written: 0,
        log: vec![format!("seed {seed}")],
    };
    world.act(false).await;
    for _ in 0..steps {
        world.step().await;
    }
    world.settle().await;
    world.end().await;
}

#[tokio::test]
async fn every_disk_and_every_snapshot_reads_what_was_written_to_it() {
    for seed in 0..3 {
        run(seed, 100).await;
    }
}

#[tokio::test]
async fn and_so_it_does_another_time() {
    let seed = u64::from(rand::random::<u32>());
    run(seed, 150).await;
}
