//! `cumulo-api restored`: the operator says that the database was restored from a backup, so that nothing is concluded
//! from what was true when that was made. `cumulo-api restore` says it by itself.
//!
//! What hosts have seen since is found out when they tell of their instances: see `lift` in `agents/observed.rs`.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use crate::audit::{self, Actor, Deed, Outcome};
use crate::clock::Clock;
use crate::database::{Database, Location};
use crate::operations::store::{self as operations, End};

/// What the audit log calls this.
const RESTORED: &str = "host:DeclareRestored";

/// A host that was heard within that time is in a session.
const HEARD: time::Duration = time::Duration::seconds(60);

/// Which control plane.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoredOptions {
    #[command(flatten)]
    pub database: Location,
    /// Do it although hosts are heard of at this moment: a control plane has been started on the restored database already.
    #[arg(long)]
    pub force: bool,
}

/// What there was.
#[derive(Debug, Clone, Copy)]
pub struct Restored {
    /// Hosts that have to begin anew.
    pub hosts: u64,
    /// Instances that are asked for anew.
    pub instances: u64,
}

/// Makes every host begin anew, and forgets what was known of their being dead, guarded or silent.
///
/// # Errors
/// When the database cannot be reached, or hosts are heard of now.
pub async fn restored(options: &RestoredOptions) -> anyhow::Result<Restored> {
    let Database { pools, keeper } = Database::join(&options.database).await?;
    let clock = Clock::system();
    let done = match refuse_heard(&pools.own, clock.now()).await {
        Err(error) if !options.force => Err(error),
        _ => restored_in(&pools.own, &clock).await.context("cannot note that the database was restored"),
    };
    pools.own.close().await;
    keeper.leave().await.context("cannot stop PostgreSQL again")?;
    done
}

/// Of a cloud that nobody restored, all that it knows of its hosts would be thrown away.
async fn refuse_heard(pool: &PgPool, now: OffsetDateTime) -> anyhow::Result<()> {
    let heard = sqlx::query_scalar!("SELECT count(*) FROM hosts WHERE last_seen_at > $1", now - HEARD);
    let heard = heard.fetch_one(pool).await?.unwrap_or_default();
    anyhow::ensure!(
        heard == 0,
        "{heard} hosts are heard of at this moment: stop cumulo-api and try again in a minute, or say --force if the database \
         was restored before it was started"
    );
    Ok(())
}

pub(crate) async fn restored_in(pool: &PgPool, clock: &Clock) -> Result<Restored, sqlx::Error> {
    let now = clock.now();
    let mut tx = crate::database::begin(pool).await?;
    // Instances first, as everybody locks them. A guest that was on its way to another host then is left to those two.
    let on_hosts = sqlx::query!(
        r#"SELECT i.id, EXISTS (SELECT FROM migrations m WHERE m.instance_id = i.id AND m.layers IS NULL) AS "on_its_way!"
           FROM instances i WHERE i.host_id IS NOT NULL ORDER BY i.id FOR UPDATE"#
    )
    .fetch_all(&mut *tx)
    .await?;
    let (on_their_way, instances): (Vec<_>, Vec<_>) = on_hosts.into_iter().partition(|one| one.on_its_way);
    let [on_their_way, instances] =
        [on_their_way, instances].map(|rows| rows.into_iter().map(|one| one.id).collect::<Vec<_>>());
    sqlx::query!("SELECT FROM hosts ORDER BY id FOR NO KEY UPDATE").execute(&mut *tx).await?;
    forget_copies(&mut tx, now).await?;
    // An epoch that no host has had since, in whichever history: an agent that was in a session then would not notice. There is less
    // than one session a millisecond.
    let milliseconds = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let hosts = sqlx::query!(
        "UPDATE hosts SET epoch = GREATEST(epoch, $2) + 1, declared_dead_at = NULL, desired_revision = desired_revision + 1,
                generation = generation + 1, updated_at = $1",
        now,
        milliseconds
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    // INVARIANT: a lease proves nothing of a guest before its host has told, of this generation, that it has it.
    sqlx::query!(
        "UPDATE instances i SET generation = i.generation + 1, restored = true, desired_revision = h.desired_revision, updated_at = $2,
                guarded_from = CASE WHEN i.on_host_failure = 'restart' THEN i.generation + 1 ELSE i.guarded_from END
         FROM hosts h WHERE h.id = i.host_id AND i.id = ANY($1)",
        &instances,
        now
    )
    .execute(&mut *tx)
    .await?;
    // Their generation stays what both hosts were told.
    sqlx::query!(
        "UPDATE instances SET guarded_from = generation, observed_generation = NULL, observed_state = NULL,
                observed_end_reason = NULL, updated_at = $2
         WHERE id = ANY($1) AND on_host_failure = 'restart'",
        &on_their_way,
        now
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("UPDATE host_leases SET seen_at = $1, guarded = '{}', seen = '[]'", now)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("DELETE FROM fence_watch").execute(&mut *tx).await?;
    sqlx::query!("DELETE FROM host_fences").execute(&mut *tx).await?;
    let done = Restored { hosts, instances: instances.len() as u64 };
    record(&mut tx, clock, done).await?;
    tx.commit().await?;
    Ok(done)
}

/// Disks that were copied then may have arrived since, and be all that there is; and files that were to be removed then may have
/// come back since, with what is needed now. INVARIANT: nothing is removed because of what was true when the backup was made.
async fn forget_copies(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM layer_removals WHERE copies IS NOT NULL").execute(&mut *conn).await?;
    // Files of images that were on their way then may be whole since.
    sqlx::query!("DELETE FROM blobs WHERE state = 'receiving'").execute(&mut *conn).await?;
    let moves = sqlx::query_scalar!("DELETE FROM migrations WHERE layers IS NOT NULL RETURNING operation_id")
        .fetch_all(&mut *conn)
        .await?;
    let detail = "the database was restored from a backup that was made during this move; where its disks are now, their \
                  hosts know";
    for operation in moves {
        let end = End::Failed { code: "migration_failed", detail: Some(detail.to_owned()) };
        operations::finish(conn, operation.into(), &end, now).await?;
    }
    Ok(())
}

async fn record(conn: &mut PgConnection, clock: &Clock, done: Restored) -> Result<(), sqlx::Error> {
    let actor = Actor {
        id: None,
        name: "cumulo-api restored",
        credential_kind: "none",
        credential_id: None,
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let deed = Deed {
        action: RESTORED,
        resource: "crn:cumulo:host::host/*".to_owned(),
        after: Some(json!({"hosts": done.hosts, "instances": done.instances})),
        ..Deed::default()
    };
    audit::write_at(conn, clock, &actor, clock.new_id(), Outcome::Allowed, deed).await
}
