//! A host in the place of whose pool there is another folder, as when a disk is not mounted.

use std::fs;

use camino::Utf8Path;
use protocol::agent::Heartbeat;

use super::*;

fn degraded(beat: &Heartbeat) -> Option<String> {
    match &beat.hypervisor {
        HypervisorHealth::Degraded { reason } => Some(reason.clone()),
        HypervisorHealth::Ok => None,
    }
}

/// An instance with an empty disk.
fn blank() -> InstanceSpec {
    let mut spec = running(instance_id());
    spec.disks.iter_mut().for_each(|disk| disk.volume.image = None);
    spec
}

fn pool(root: &Utf8Path) -> Arc<LocalPool> {
    Arc::new(LocalPool::open(OwnPool::new(root, &root.with_extension("record"))).unwrap())
}

/// What the control plane was told of them, with every volume.
fn told(cloud: &Cloud, specs: [&InstanceSpec; 4]) -> String {
    format!("{:?}", specs.map(|spec| cloud.control_plane.report(spec.id).map(|it| (it.state, it.volumes))))
}

impl Cloud {
    async fn run_to(&self, spec: &InstanceSpec, state: ObservedState) {
        self.want(spec);
        self.until(spec.id, state).await;
    }

    /// A few heartbeats later.
    async fn later(&self) {
        for _ in 0..3 {
            self.control_plane.forget_heartbeat();
            self.control_plane.wait_for("a beat", |it| it.heartbeat(|_| ()).is_some()).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_done_and_nothing_is_said_to_be_lost_until_the_pool_is_back() {
    let cloud = Cloud::new();
    let root = Utf8PathBuf::from_path_buf(cloud.dir.path().canonicalize().unwrap().join("pool")).unwrap();
    let away = root.with_extension("away");
    let agent = cloud.start_agent_on(pool(&root));
    let [goes_on, starts_again, goes, new] = [blank(), blank(), blank(), blank()];
    for spec in [&goes_on, &starts_again, &goes] {
        cloud.run_to(spec, ObservedState::Running).await;
    }
    let starts_again = stopped(&starts_again, GRACEFUL);
    cloud.run_to(&starts_again, REQUESTED).await;
    let inventory = cloud.control_plane.inventory();
    agent.stop().await;
    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap();
    let all = [&goes_on, &starts_again, &goes, &new];
    let before = told(&cloud, all);

    cloud.control_plane.forget_heartbeat();
    let agent = cloud.start_agent_on(pool(&root));
    let starts_again = booted_again(&starts_again);
    cloud.want(&starts_again);
    cloud.want(&new);
    cloud.control_plane.want(goes.id, deleted(&goes));
    let is_degraded = |it: &FakeControlPlane| it.heartbeat(degraded).flatten().is_some();
    cloud.control_plane.wait_for("degraded", is_degraded).await;
    let reason = cloud.control_plane.heartbeat(degraded).flatten().unwrap();
    assert!(reason.contains(root.as_str()) && reason.contains("is its file system mounted?"), "{reason}");
    cloud.later().await;
    assert_eq!(told(&cloud, all), before);
    assert_eq!(cloud.control_plane.heartbeat(|beat| beat.pool.is_none()), Some(true));
    assert_eq!(cloud.control_plane.inventory(), inventory);
    assert_eq!(root.read_dir_utf8().unwrap().count(), 0);
    let mut domains: Vec<_> = cloud.hypervisor.domains().await.unwrap().iter().map(|it| it.id).collect();
    domains.sort_unstable();
    let mut still = [goes_on.id, goes.id];
    still.sort_unstable();
    assert_eq!(domains, still);

    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    cloud.until(goes.id, ObservedState::Absent).await;
    for spec in [&goes_on, &starts_again, &new] {
        cloud.until(spec.id, ObservedState::Running).await;
    }
    cloud.control_plane.wait_for("well", |it| it.heartbeat(degraded) == Some(None)).await;
    assert_eq!(cloud.hypervisor.starts(goes_on.id, 1), 1);

    // The same while the agent is at work.
    fs::rename(&root, &away).unwrap();
    fs::create_dir(&root).unwrap();
    cloud.control_plane.wait_for("degraded", is_degraded).await;
    let again = blank();
    cloud.want(&again);
    cloud.later().await;
    assert_eq!(cloud.control_plane.state(again.id), None);
    assert_eq!(root.read_dir_utf8().unwrap().count(), 0);
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    cloud.until(again.id, ObservedState::Running).await;
    agent.stop().await;
}
