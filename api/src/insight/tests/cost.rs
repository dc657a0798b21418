//! What the history of a thousand instances costs the database:
//! `cargo nextest run -p api --run-ignored only thousand_instances --no-capture`. The figures are in the decision about it.

use std::time::{Duration, Instant};

use protocol::agent::{CardCounters, DiskCounters, MemorySample, PortSample, Sample, VolumeSample};
use protocol::{HostId, InstanceId};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::super::store::taking::take;
use crate::testing::TestCloud;

const HOSTS: usize = 50;
const PER_HOST: usize = 20;
/// An hour.
const ROUNDS: u64 = 240;

fn sample(id: InstanceId, round: u64) -> Sample {
    let bytes = round * 1_234_567;
    let memory = Some(round * 4096 + (1 << 28));
    let disk = DiskCounters {
        read_bytes: bytes,
        read_requests: round * 90,
        written_bytes: bytes,
        write_requests: round * 70,
    };
    let card = CardCounters {
        received_bytes: bytes,
        received_packets: round * 900,
        sent_bytes: bytes,
        sent_packets: round * 800,
        ..CardCounters::default()
    };
    Sample {
        id,
        run: 1,
        age_ms: 20,
        vcpus: 2,
        cpu_ns: Some(round * 7_123_456_789),
        memory: MemorySample {
            size_bytes: memory,
            total_bytes: memory,
            available_bytes: memory,
            resident_bytes: memory,
        },
        volumes: [1, 2].map(|n| VolumeSample { id: Uuid::from_u128(n).into(), counters: disk }).to_vec(),
        ports: vec![PortSample { id: Uuid::from_u128(3).into(), counters: card }],
    }
}

async fn number(conn: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(conn).await.unwrap()
}

#[tokio::test]
#[ignore = "measures for some minutes"]
async fn what_a_thousand_instances_cost() {
    let cloud = TestCloud::start().await;
    let mut conn = cloud.app.pool.acquire().await.unwrap();
    // Instances of which nothing is known but where they are.
    for sql in [
        "CREATE TEMP TABLE instances (id uuid PRIMARY KEY, host_id uuid NOT NULL)",
        "CREATE TEMP TABLE volumes (id uuid, instance_id uuid)",
        "CREATE INDEX ON pg_temp.volumes (instance_id)",
        "CREATE TEMP TABLE ports (id uuid, instance_id uuid)",
        "CREATE INDEX ON pg_temp.ports (instance_id)",
        "SET search_path = pg_temp, public",
    ] {
        sqlx::query(sql).execute(&mut *conn).await.unwrap();
    }
    let mut hosts: Vec<(HostId, Vec<InstanceId>)> = Vec::new();
    for _ in 0..HOSTS {
        let host: HostId = Uuid::now_v7().into();
        let instances: Vec<InstanceId> = (0..PER_HOST).map(|_| Uuid::now_v7().into()).collect();
        for id in &instances {
            sqlx::query("INSERT INTO instances VALUES ($1, $2)")
                .bind(id.as_uuid())
                .bind(host.as_uuid())
                .execute(&mut *conn)
                .await
                .unwrap();
            let parts =
                "WITH v AS (INSERT INTO volumes VALUES ($1, $4), ($2, $4)) INSERT INTO ports VALUES ($3, $4)";
            let parts = [1, 2, 3].iter().fold(sqlx::query(parts), |query, n| query.bind(Uuid::from_u128(*n)));
            parts.bind(id.as_uuid()).execute(&mut *conn).await.unwrap();
        }
        hosts.push((host, instances));
    }
    let wal = number(&mut conn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").await;
    let (mut spent, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        for (host, instances) in &hosts {
            let samples: Vec<_> = instances.iter().map(|id| sample(*id, round)).collect();
            let begun = Instant::now();
            take(&mut conn, *host, &samples, Vec::new(), cloud.app.clock.now()).await.unwrap();
            spent += begun.elapsed();
            slowest = slowest.max(begun.elapsed());
        }
        cloud.pass(15);
    }
    let wal = number(&mut conn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").await - wal;
    let rows = number(&mut conn, "SELECT count(*) FROM instance_samples").await;
    assert_eq!(rows, (HOSTS * PER_HOST) as i64 * ROUNDS as i64);
    let sizes = "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
                 WHERE inhparent = 'instance_samples'::regclass";
    let size = number(&mut conn, sizes).await;
    let statements = HOSTS as u32 * ROUNDS as u32;
    println!(
        "{rows} samples in {statements} statements of {PER_HOST}: {:?} each, {slowest:?} at most; busy {:.2} % of the \
         time; {} MiB an hour, {} KiB of WAL",
        spent / statements,
        spent.as_secs_f64() / (ROUNDS as f64 * 15.0) * 100.0,
        size >> 20,
        wal >> 10
    );
    let begun = Instant::now();
    let read = "SELECT count(sample::text) FROM instance_samples WHERE at >= '2026-06-01' AND instance_id = ";
    number(&mut conn, &format!("{read}'{}'", hosts[7].1[3])).await;
    println!("an hour of one instance is read in {:?}", begun.elapsed());
}
