//! Images that are made of disks, sent by the whole agent.

use std::time::Duration;

use protocol::TransferId;
use protocol::agent::{Sending, VolumeSpec};
use uuid::Uuid;

use super::Cloud;
use crate::control_plane::fake::FakeControlPlane;
use crate::samples::disk;

fn order() -> TransferId {
    TransferId::from(Uuid::now_v7())
}

/// The disk of a running instance, and what a copy of it holds.
async fn written(cloud: &Cloud) -> (VolumeSpec, Vec<u8>) {
    let volume = cloud.running_instance().await.disks.remove(0).volume;
    let content = volume.layers[0].to_string().into_bytes();
    (volume, content)
}

impl Cloud {
    async fn until_sent(&self, order: TransferId, content: &[u8]) {
        self.control_plane.wait_for("an image", |it| it.image(order).is_some()).await;
        assert_eq!(self.control_plane.image(order).unwrap(), content);
        self.until_no_copies().await;
    }

    async fn until_no_copies(&self) {
        let gone = async {
            while self.storage.exports() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), gone).await.is_ok(), "a copy stays");
    }

    async fn until_said(&self, what: &str, order: TransferId, said: impl Fn(&Sending) -> bool) {
        let is_said = |it: &FakeControlPlane| it.said_of_image(order).iter().any(&said);
        self.control_plane.wait_for(what, is_said).await;
    }
}

#[tokio::test]
async fn an_image_is_sent_whatever_breaks_and_no_copy_stays() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let (volume, content) = written(&cloud).await;
    let (first, broken, refused) = (order(), order(), order());
    cloud.control_plane.ask_for_image(first, &volume);
    cloud.until_sent(first, &content).await;
    assert_eq!(cloud.control_plane.said_of_image(first), [Sending::Converting]);

    cloud.control_plane.break_images(2);
    cloud.control_plane.ask_for_image(broken, &volume);
    cloud.until_sent(broken, &content).await;
    assert_eq!(cloud.control_plane.said_of_image(broken), [Sending::Converting], "copied once");

    cloud.storage.fail_next(1);
    cloud.control_plane.ask_for_image(refused, &volume);
    cloud.until_sent(refused, &content).await;
    cloud.until_said("why it waited", refused, |said| matches!(said, Sending::Waiting { .. })).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_has_no_data_is_said_to_fail_once() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let order = order();
    cloud.control_plane.ask_for_image(order, &disk(Uuid::now_v7()).volume);
    cloud.until_said("a failure", order, |said| matches!(said, Sending::Failed { .. })).await;
    assert_eq!(cloud.control_plane.said_of_image(order).len(), 2);
    cloud.until_no_copies().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_copy_that_nobody_wants_any_more_is_given_up_in_its_middle() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let (volume, content) = written(&cloud).await;
    let (cancelled, next) = (order(), order());
    cloud.storage.hold_exports(true);
    cloud.control_plane.ask_for_image(cancelled, &volume);
    cloud.until_said("a copy", cancelled, |said| *said == Sending::Converting).await;
    cloud.control_plane.cancel_image(cancelled);
    cloud.until_no_copies().await;
    cloud.storage.hold_exports(false);
    cloud.control_plane.ask_for_image(next, &volume);
    cloud.until_sent(next, &content).await;
    assert_eq!(cloud.control_plane.image(cancelled), None);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_ends_in_the_middle_leaves_nothing_and_the_next_one_begins_anew() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let (volume, content) = written(&cloud).await;
    let (kept, cancelled) = (order(), order());
    cloud.storage.hold_exports(true);
    cloud.control_plane.ask_for_image(cancelled, &volume);
    cloud.control_plane.ask_for_image(kept, &volume);
    cloud.until_said("a copy", cancelled, |said| *said == Sending::Converting).await;
    agent.stop().await;
    cloud.until_no_copies().await;
    cloud.control_plane.cancel_image(cancelled);
    cloud.storage.hold_exports(false);
    let agent = cloud.start_agent();
    cloud.until_sent(kept, &content).await;
    assert_eq!(cloud.control_plane.image(cancelled), None);
    agent.stop().await;
}

#[tokio::test]
async fn disks_are_copied_one_after_the_other() {
    let cloud = Cloud::new();
    let agent = cloud.start_agent();
    let (volume, content) = written(&cloud).await;
    cloud.storage.hold_exports(true);
    let orders: Vec<_> = (0..5).map(|_| order()).collect();
    orders.iter().for_each(|order| cloud.control_plane.ask_for_image(*order, &volume));
    let is_begun = |it: &FakeControlPlane| {
        orders.iter().filter(|order| !it.said_of_image(**order).is_empty()).count() == 1
    };
    cloud.control_plane.wait_for("one copy", is_begun).await;
    assert_eq!(cloud.storage.exports(), 1);
    cloud.storage.hold_exports(false);
    for order in orders {
        cloud.until_sent(order, &content).await;
    }
    agent.stop().await;
}
