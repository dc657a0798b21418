//! Consoles, from the feed to the end of either side.

use std::time::Duration;

use protocol::agent::{ConsoleKind, HostRequest, RefusalReason};
use protocol::{ConsoleId, InstanceId, TransferId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use uuid::Uuid;

use super::Cloud;
use crate::samples::instance_id;

impl Cloud {
    fn ask_for_console(&self, instance: InstanceId, kind: ConsoleKind, max_seconds: u32) -> ConsoleId {
        let id = ConsoleId::from_uuid(Uuid::now_v7());
        let dial = Some("https://192.0.2.1:8443".to_owned());
        let request =
            HostRequest::OpenConsole { id, instance_id: instance, console: kind, dial, max_seconds };
        self.control_plane.ask_for_console(request);
        id
    }

    async fn brought(&self, id: ConsoleId) -> DuplexStream {
        self.control_plane.wait_for("the console", |it| it.has_console(id)).await;
        let (stream, dial) = self.control_plane.take_console(id).unwrap();
        assert_eq!(dial.as_deref(), Some("https://192.0.2.1:8443"));
        stream
    }

    async fn refused(&self, id: ConsoleId) -> RefusalReason {
        let id = TransferId::from_uuid(id.as_uuid());
        self.control_plane.wait_for("a refusal", |it| it.refusal(id).is_some()).await;
        self.control_plane.refusal(id).unwrap()
    }

    async fn until_open(&self, count: usize) {
        let closed = async {
            while self.hypervisor.open_consoles() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed).await.expect("so many consoles are open");
    }
}

#[tokio::test]
async fn a_console_carries_bytes_and_each_side_ends_it() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;

    let mut user = cloud.brought(cloud.ask_for_console(spec.id, ConsoleKind::Serial, 60)).await;
    user.write_all(b"hello\n").await.unwrap();
    let mut heard = [0; 6];
    user.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello\n");
    // One reader of a serial port.
    let second = cloud.ask_for_console(spec.id, ConsoleKind::Serial, 60);
    assert_eq!(cloud.refused(second).await, RefusalReason::Busy);
    let display = cloud.brought(cloud.ask_for_console(spec.id, ConsoleKind::Vnc, 60)).await;
    cloud.until_open(2).await;

    // The user goes: nothing is open on the host, and the next one gets in.
    drop((user, display));
    cloud.until_open(0).await;
    let mut user = cloud.brought(cloud.ask_for_console(spec.id, ConsoleKind::Serial, 60)).await;
    // The guest goes.
    cloud.hypervisor.crash(spec.id);
    assert_eq!(user.read(&mut heard).await.unwrap(), 0);
    cloud.until_open(0).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_refused_and_what_nobody_takes_is_closed() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let nowhere = cloud.ask_for_console(instance_id(), ConsoleKind::Vnc, 60);
    assert_eq!(cloud.refused(nowhere).await, RefusalReason::NotRunning);

    let spec = cloud.running_instance().await;
    cloud.control_plane.want_consoles(false);
    let late = cloud.ask_for_console(spec.id, ConsoleKind::Serial, 60);
    let busy = cloud.ask_for_console(instance_id(), ConsoleKind::Vnc, 60);
    assert_eq!(cloud.refused(busy).await, RefusalReason::NotRunning);
    cloud.until_open(0).await;
    assert!(!cloud.control_plane.has_console(late));
    cloud.control_plane.want_consoles(true);

    // It ends by itself, and with the agent.
    let mut short = cloud.brought(cloud.ask_for_console(spec.id, ConsoleKind::Vnc, 0)).await;
    assert_eq!(short.read(&mut [0; 1]).await.unwrap(), 0);
    let mut last = cloud.brought(cloud.ask_for_console(spec.id, ConsoleKind::Vnc, 60)).await;
    agent.stop().await;
    assert_eq!(last.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_picture_of_the_display_is_sent_once() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let [here, nowhere] = [spec.id, instance_id()].map(|instance_id| {
        let id = TransferId::from_uuid(Uuid::now_v7());
        cloud.control_plane.ask_for_console(HostRequest::Screenshot { id, instance_id, max_bytes: 1000 });
        id
    });
    cloud.control_plane.wait_for("the picture", |it| it.transfer(here).is_some()).await;
    assert!(cloud.control_plane.transfer(here).unwrap().starts_with(b"\x89PNG"));
    cloud.control_plane.wait_for("a refusal", |it| it.refusal(nowhere).is_some()).await;
    assert_eq!(cloud.control_plane.refusal(nowhere), Some(RefusalReason::NotRunning));
    agent.stop().await;
}

#[tokio::test]
async fn pictures_do_not_pile_up() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let id = TransferId::from_uuid(Uuid::now_v7());
            let request = HostRequest::Screenshot { id, instance_id: spec.id, max_bytes: 1000 };
            cloud.control_plane.ask_for_console(request);
            id
        })
        .collect();
    for id in &asked {
        let told = |it: &crate::control_plane::fake::FakeControlPlane| {
            it.transfer(*id).is_some() || it.refusal(*id).is_some()
        };
        cloud.control_plane.wait_for("an answer", told).await;
    }
    let refused = asked.iter().filter(|id| cloud.control_plane.refusal(**id) == Some(RefusalReason::Busy));
    assert_eq!(refused.count(), 12, "eight wait for their turn, the others hear that it is busy");
    agent.stop().await;
}
