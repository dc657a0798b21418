//! Two at once.

use serde_json::json;

use super::{DATA, INSTANCES, VOLUMES, attach, count, data, detach, findings, instance, run, running, state};
use crate::instances::place_pending;
use crate::testing::TestCloud;

#[tokio::test]
async fn of_racing_attachments_exactly_one_wins() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    for name in ["a", "b", "c", "d"] {
        run(&cloud, &host, name).await;
    }
    data(&cloud).await;
    let racing = ["a", "b", "c", "d"].map(|name| attach(&cloud, name, "data"));
    let answers = futures_util::future::join_all(racing).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409, 409, 409]);
    for refused in answers.iter().filter(|answer| answer.status == 409) {
        refused.expect_problem(409, "in_use");
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_is_attached_or_deleted_but_not_both() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let host = cloud.join_host("host-1").await;
    run(&cloud, &host, "web").await;
    for round in 0..6 {
        let name = format!("data-{round}");
        let path = format!("{VOLUMES}/{name}");
        cloud.post(VOLUMES, json!({"name": name, "size_gib": 1})).await.expect(201);
        let (attached, deleted) = tokio::join!(attach(&cloud, "web", &name), cloud.delete(&path));
        match (attached.status.as_u16(), deleted.status.as_u16()) {
            (202, 409) => assert_eq!(state(&cloud, &path).await, "attaching"),
            (409 | 422, 204) => {
                cloud.get(&path).await.expect_problem(404, "not_found");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(findings(&cloud).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_locks_anything_out_and_no_disk_has_two_instances() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    let host = cloud.join_host("host-1").await;
    let a = run(&cloud, &host, "a").await;
    let b = run(&cloud, &host, "b").await;
    data(&cloud).await;
    for round in 0..10 {
        let grown = json!({"size_gib": 3 + round});
        let pending = format!("pending-{round}");
        let (one, other, patched, made, reported) = tokio::join!(
            attach(&cloud, "a", "data"),
            attach(&cloud, "b", "data"),
            cloud.call(axum::http::Method::PATCH, DATA, Some(grown)),
            cloud.post(INSTANCES, instance(&pending)),
            place_pending(&cloud.app),
        );
        reported.unwrap();
        made.expect(202);
        assert!([200, 202, 503].contains(&patched.status.as_u16()), "{patched:?}");
        let (winner, id) = match (one.status.as_u16(), other.status.as_u16()) {
            (202, 409) => ("a", &a["id"]),
            (409, 202) => ("b", &b["id"]),
            statuses => panic!("{statuses:?}"),
        };
        for instance in [&a["id"], &b["id"]] {
            let (generation, _) = host.disks(instance).await.unwrap();
            host.report(instance, generation, 1, running()).await;
        }
        assert_eq!(state(&cloud, DATA).await, "attached");
        detach(&cloud, winner, "data").await.expect(202);
        let (generation, _) = host.disks(id).await.unwrap();
        host.report(id, generation, 1, running()).await;
        assert_eq!(state(&cloud, DATA).await, "available");
        let twice = "SELECT count(*) FROM (SELECT FROM volumes v JOIN instances i
                     ON i.observed_volumes @> jsonb_build_array(jsonb_build_object('id', v.id))
                     GROUP BY v.id HAVING count(*) > 1) shared";
        assert_eq!(count(&cloud, twice).await, 0);
        assert_eq!(findings(&cloud).await, Vec::<String>::new());
    }
}
