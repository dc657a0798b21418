//! Many writers, two sequencers and a reader, all at once.

use std::cell::Cell;
use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

use super::{EVENTS, all, sequence};
use crate::testing::TestCloud;

const WRITERS: usize = 4;
const ROUNDS: usize = 60;

/// A pool of its own on the cloud's database, as another process would have.
fn pool(cloud: &TestCloud) -> PgPool {
    let options = cloud.app.pool.connect_options().as_ref().clone();
    PgPoolOptions::new().max_connections(2).connect_lazy_with(options)
}

/// Makes images; every fifth is taken back, and transactions overlap in all ways. The names that stay.
async fn write(pool: &PgPool, writer: usize) -> Vec<String> {
    let mut names = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("w{writer}-{round}");
        let sql = format!(
            "INSERT INTO images (id, project_id, name, description, labels, architecture, format, generation,
                                 created_at, updated_at)
             SELECT gen_random_uuid(), id, '{name}', '', '{{}}', 'x86_64', 'raw', 1, created_at, created_at
             FROM projects"
        );
        let mut tx = crate::database::begin(pool).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        for _ in 0..(writer * round) % 7 {
            tokio::task::yield_now().await;
        }
        if round % 5 == 4 {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            names.push(name);
        }
    }
    names
}

#[tokio::test]
async fn a_reader_sees_everything_once_in_order_while_it_is_written() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.lift_quotas().await;
    let replica = cloud.replica().await;
    let start = all(&cloud, EVENTS).await.len();
    let pools: Vec<_> = (0..WRITERS).map(|_| pool(&cloud)).collect();
    let written = Cell::new(false);
    let writing = async {
        let names = join_all(pools.iter().enumerate().map(|(writer, pool)| write(pool, writer))).await;
        written.set(true);
        names.concat().into_iter().collect::<BTreeSet<_>>()
    };
    let sequencing = |app| {
        let written = &written;
        async move {
            loop {
                let last = written.get();
                sequence(app).await.unwrap();
                if last {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    let expected = WRITERS * ROUNDS * 4 / 5;
    let reading = async {
        let (mut names, mut after) = (Vec::new(), start);
        while names.len() < expected {
            let page = replica.get(&format!("{EVENTS}?after={after}&limit=17")).await.expect(200);
            for event in page["items"].as_array().unwrap() {
                after += 1;
                assert_eq!(event["position"].as_u64(), Some(after as u64));
                names.push(event["resource_name"].as_str().unwrap().to_owned());
            }
        }
        names
    };
    let sequencers = join(sequencing(&cloud.app), sequencing(&replica.app));
    let ((written, _), read) = join(join(writing, sequencers), reading).await;
    assert_eq!(written.len(), expected);
    assert_eq!(read.iter().cloned().collect::<BTreeSet<_>>(), written);
    assert_eq!(read.len(), expected, "something came twice");
    // Of one writer, everything in its order.
    for writer in 0..WRITERS {
        let number = |name: &String| name.strip_prefix(&format!("w{writer}-"))?.parse::<usize>().ok();
        assert!(read.iter().filter_map(number).is_sorted());
    }
}

#[tokio::test]
async fn two_sequencers_number_each_event_once() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let replica = cloud.replica().await;
    for round in 0..20 {
        let change = format!("UPDATE projects SET description = '{round}'");
        let changes = join_all((0..4).map(|_| super::execute(&cloud, &change)));
        let sequencers = join(sequence(&cloud.app), sequence(&replica.app));
        let (_, (one, other)) = join(changes, sequencers).await;
        one.and(other).unwrap();
    }
    let log = all(&cloud, EVENTS).await;
    assert_eq!(log.iter().filter(|event| *event == "project updated demo").count(), 20);
    let left: Value = cloud.get(EVENTS).await.expect(200);
    assert_eq!(left["head"].as_u64(), Some(log.len() as u64));
}
