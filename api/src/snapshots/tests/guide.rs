//! The commands of docs/snapshots.md, run as they stand there.

use super::{SNAPSHOTS, findings};
use crate::testing::{TestCloud, guide};

const GUIDE: &str = include_str!("../../../../docs/snapshots.md");

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    // What `make up` has made is called otherwise here.
    let text = GUIDE.replace("cumulo-test", "image");
    // No host ends any work here, and a disk that no host has is nobody's to write to.
    let text = text.replace("?wait=60", "");
    let commands = guide::commands(&text);
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let answer = guide::run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
    }
    let left = cloud.get(SNAPSHOTS).await.expect(200);
    assert_eq!(
        (left["items"].as_array().unwrap().len(), &left["items"][0]["name"]),
        (1, &"before-upgrade".into())
    );
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}
