//! The commands of docs/instances.md, run as they stand there.

use super::{INSTANCES, findings};
use crate::testing::{TestCloud, guide};

const GUIDE: &str = include_str!("../../../../docs/instances.md");

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    // What `make up` has made is called otherwise here.
    let text = GUIDE.replace("cumulo-test", "image");
    let commands = guide::commands(&text);
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let answer = guide::run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
    }
    let left = cloud.get(INSTANCES).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}
