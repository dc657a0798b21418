//! An agent that was upgraded before its control plane.

use protocol::agent::{EARLIEST_PROTOCOL_VERSION, ObservedState, PROTOCOL_VERSION};
use protocol::recorded::unknown_to;

use super::{Cloud, REQUESTED};
use crate::samples::{GRACEFUL, booted_again, stopped};

#[tokio::test]
async fn a_control_plane_of_the_release_before_hears_nothing_that_it_does_not_know_until_it_is_upgraded() {
    let cloud = Cloud::new();
    let before = EARLIEST_PROTOCOL_VERSION;
    cloud.control_plane.be_of_release_before(true);
    let agent = cloud.start_agent();
    let spec = cloud.running_instance().await;
    let spec = stopped(&spec, GRACEFUL);
    cloud.want(&spec);
    cloud.until(spec.id, REQUESTED).await;
    cloud.control_plane.wait_for("a heartbeat", |it| it.heartbeat(|beat| beat.epoch).is_some()).await;
    assert_eq!(cloud.control_plane.spoken(), before);
    let heard = cloud.control_plane.heard();
    for name in ["open_session", "observed_batch", "heartbeat"] {
        assert!(heard.iter().any(|(heard, _)| *heard == name), "{name}");
    }
    for (name, message) in heard {
        assert_eq!(unknown_to(before, name, &message), Vec::<String>::new(), "{message}");
    }

    cloud.control_plane.be_of_release_before(false);
    cloud.control_plane.wait_for("a session of this release", |it| it.spoken() == PROTOCOL_VERSION).await;
    let spec = booted_again(&spec);
    cloud.want(&spec);
    cloud.until(spec.id, ObservedState::Running).await;
    agent.stop().await;
}
