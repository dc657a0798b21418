//! The commands of docs/hosts.md, run as they stand there.

use super::{cordon, two};
use crate::testing::{TestCloud, guide};

const GUIDE: &str = include_str!("../../../../../docs/hosts.md");

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    two(&cloud).await;
    cordon(&cloud, "host-2", false).await;
    let commands = guide::commands(GUIDE);
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let answer = guide::run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
    }
    // The last one has removed it.
    cloud.get("/v1/hosts/host-1").await.expect_problem(404, "not_found");
}
