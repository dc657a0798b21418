//! SQL of instances that are on their way from one host to another.

use std::net::{IpAddr, SocketAddr};

use protocol::agent::{GuestHardware, Inventory};
use protocol::{HostId, InstanceId, MigrationId, OperationId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::disk_moves;
use crate::hosts;
use crate::nudge::{self, Topic};
use crate::ports::cards;
use crate::volumes::store::attachments;

/// A migration that begins.
pub(in crate::instances) struct New {
    pub id: MigrationId,
    pub instance: InstanceId,
    pub operation: OperationId,
    pub source: HostId,
    pub destination: HostId,
    pub max_downtime_ms: i32,
    pub due_at: OffsetDateTime,
    /// What it takes along of the disk of its host, if it does.
    pub disk_gib: Option<i32>,
    /// Its guest runs, and goes on meanwhile.
    pub runs: bool,
}

impl New {
    /// Of an instance that is stopped, from one host to another.
    pub(in crate::instances) fn of_disks(
        id: MigrationId,
        instance: Uuid,
        operation: OperationId,
        (source, destination): (HostId, HostId),
        due_at: OffsetDateTime,
    ) -> Self {
        // Nothing stands still: nothing runs.
        let (instance, max_downtime_ms, disk_gib) = (instance.into(), 1, Some(0));
        Self { id, instance, operation, source, destination, max_downtime_ms, due_at, disk_gib, runs: false }
    }
}

/// A migration under way.
#[derive(Debug, Clone)]
pub(crate) struct Migration {
    pub id: Uuid,
    pub instance_id: Uuid,
    pub operation_id: Uuid,
    pub source_host_id: Uuid,
    pub destination_host_id: Uuid,
    /// Where the destination waits: the source knows of the migration.
    pub port: Option<i32>,
    pub cancel_code: Option<String>,
    pub cancel_detail: Option<String>,
    /// Files are copied, and nothing is done with a guest: see [`super::disk_moves`].
    pub moves_disks: bool,
    /// What is on the disk of its host goes along.
    pub takes_disks: bool,
    /// Its guest runs.
    pub runs: bool,
}

impl Migration {
    pub fn operation(&self) -> OperationId {
        self.operation_id.into()
    }

    pub fn source(&self) -> HostId {
        self.source_host_id.into()
    }

    pub fn destination(&self) -> HostId {
        self.destination_host_id.into()
    }

    /// Whether the source was told: then only the source can say that it does not happen.
    pub const fn is_sent(&self) -> bool {
        self.port.is_some()
    }
}

/// What tells whether a guest can go from one host to another.
pub(in crate::instances) struct HostFacts {
    pub id: HostId,
    pub name: String,
    pub inventory: Option<Inventory>,
}

/// Of all hosts.
pub(in crate::instances) async fn host_facts(conn: &mut PgConnection) -> Result<Vec<HostFacts>, sqlx::Error> {
    let rows =
        sqlx::query!(r#"SELECT id, name, inventory AS "inventory: Json<Inventory>" FROM hosts ORDER BY id"#)
            .fetch_all(conn)
            .await?;
    let facts = rows.into_iter().map(|row| HostFacts {
        id: row.id.into(),
        name: row.name,
        inventory: row.inventory.map(|inventory| inventory.0),
    });
    Ok(facts.collect())
}

/// What stands in the way of a guest beside its intent.
pub(in crate::instances) struct InTheWay {
    /// A volume or a network card comes or goes.
    pub devices_change: bool,
    /// One of them goes.
    pub devices_leave: bool,
    /// A snapshot is being taken.
    pub snapshot: bool,
    pub hard_group: bool,
    /// Its host was declared dead.
    pub host_dead: bool,
    /// Its host may have seen more of it than there is.
    pub restored: bool,
    pub hardware: Json<GuestHardware>,
}

pub(in crate::instances) async fn in_the_way(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<InTheWay, sqlx::Error> {
    sqlx::query_as!(
        InTheWay,
        r#"SELECT EXISTS (SELECT FROM volumes v WHERE v.instance_id = i.id
                            AND (v.attachment_state <> 'attached' OR v.observed_state IS DISTINCT FROM 'ready'
                                 OR v.observed_generation IS DISTINCT FROM v.spec_generation))
                  OR EXISTS (SELECT FROM ports p WHERE p.instance_id = i.id AND p.detaching) AS "devices_change!",
                  EXISTS (SELECT FROM volumes v WHERE v.instance_id = i.id AND v.attachment_state = 'detaching')
                  OR EXISTS (SELECT FROM ports p WHERE p.instance_id = i.id AND p.detaching) AS "devices_leave!",
                  EXISTS (SELECT FROM snapshots s WHERE s.instance_id = i.id AND s.state = 'creating') AS "snapshot!",
                  EXISTS (SELECT FROM placement_groups g
                          WHERE g.id = i.placement_group_id AND g.strength = 'hard') AS "hard_group!",
                  EXISTS (SELECT FROM hosts h
                          WHERE h.id = i.host_id AND h.declared_dead_at IS NOT NULL) AS "host_dead!",
                  i.restored, t.hardware AS "hardware: Json<GuestHardware>"
           FROM instances i JOIN instance_types t ON t.id = i.instance_type_id WHERE i.id = $1"#,
        id
    )
    .fetch_one(conn)
    .await
}

/// Holds two hosts in the order of everybody.
async fn hold(conn: &mut PgConnection, hosts: [HostId; 2]) -> Result<(), sqlx::Error> {
    let hosts = hosts.map(HostId::as_uuid);
    sqlx::query!("SELECT FROM hosts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", &hosts[..])
        .execute(conn)
        .await?;
    Ok(())
}

/// Holds both hosts of a migration that is to begin.
pub(in crate::instances) async fn hold_hosts(
    conn: &mut PgConnection,
    source: HostId,
    destination: HostId,
) -> Result<(), sqlx::Error> {
    hold(conn, [source, destination]).await
}

/// Stores it, and tells the destination. A trigger takes the capacity there; a CHECK fails when somebody was faster.
pub(in crate::instances) async fn insert(conn: &mut PgConnection, new: &New) -> Result<(), sqlx::Error> {
    // The networks of its cards have to be there.
    let revision = hosts::store::bump_networks(conn, new.destination).await?.unwrap_or_default();
    sqlx::query!(
        "INSERT INTO migrations (id, instance_id, operation_id, source_host_id, destination_host_id, vcpus, memory_mib,
                                 max_downtime_ms, due_at, desired_revision, layers, disk_gib, tops)
         SELECT $1, id, $3, $4, $5, vcpus_held, memory_mib_held, $6, $7, $8,
                CASE WHEN $9::integer IS NOT NULL THEN layers_to_copy(id) END, coalesce($9, 0),
                CASE WHEN $9::integer IS NOT NULL AND $10::boolean THEN layers_written_to(id) END
         FROM instances WHERE id = $2",
        new.id.as_uuid(),
        new.instance.as_uuid(),
        new.operation.as_uuid(),
        new.source.as_uuid(),
        new.destination.as_uuid(),
        new.max_downtime_ms,
        new.due_at,
        revision.0,
        new.disk_gib,
        new.runs
    )
    .execute(&mut *conn)
    .await?;
    nudge::send(conn, Topic::Host(new.destination)).await
}

/// The migration of that id of that instance, which is locked, if the host has a part in it.
pub(crate) async fn of_host(
    conn: &mut PgConnection,
    host: HostId,
    id: MigrationId,
    instance: InstanceId,
) -> Result<Option<Migration>, sqlx::Error> {
    sqlx::query_as!(
        Migration,
        r#"SELECT id, instance_id, operation_id, source_host_id, destination_host_id, port, cancel_code, cancel_detail,
                  NOT sends_guest AS "moves_disks!", layers IS NOT NULL AS "takes_disks!",
                  layers IS NULL OR tops IS NOT NULL AS "runs!"
           FROM migrations
           WHERE id = $1 AND instance_id = $2 AND (source_host_id = $3 OR destination_host_id = $3) FOR UPDATE"#,
        id.as_uuid(),
        instance.as_uuid(),
        host.as_uuid()
    )
    .fetch_optional(conn)
    .await
}

/// The migration of an instance, which is locked.
pub(crate) async fn of_instance(
    conn: &mut PgConnection,
    instance: Uuid,
) -> Result<Option<Migration>, sqlx::Error> {
    sqlx::query_as!(
        Migration,
        r#"SELECT id, instance_id, operation_id, source_host_id, destination_host_id, port, cancel_code, cancel_detail,
                  NOT sends_guest AS "moves_disks!", layers IS NOT NULL AS "takes_disks!",
                  layers IS NULL OR tops IS NOT NULL AS "runs!"
           FROM migrations WHERE instance_id = $1 FOR UPDATE"#,
        instance
    )
    .fetch_optional(conn)
    .await
}

/// Why a migration cannot go on by itself.
pub(crate) struct Stuck {
    pub id: Uuid,
    pub instance_id: Uuid,
    pub source_dead: bool,
    pub destination_dead: bool,
    /// Its agent has been replaced by one that knows of no such migrations.
    pub destination_unable: bool,
    /// Nothing is heard of it, and something of the host that sends a guest there.
    pub destination_silent: bool,
}

/// Those of dead hosts, and those that are not cancelled yet although their time is over, or their destination takes none any
/// more or is silent; or one of them. A silent source would not hear that it is to stop.
pub(crate) async fn stuck(
    conn: &mut PgConnection,
    only: Option<Uuid>,
    now: OffsetDateTime,
) -> Result<Vec<Stuck>, sqlx::Error> {
    sqlx::query_as!(
        Stuck,
        r#"SELECT m.id, m.instance_id, s.declared_dead_at IS NOT NULL AS "source_dead!",
                  d.declared_dead_at IS NOT NULL AS "destination_dead!",
                  NOT takes_migration(m, d.inventory) AS "destination_unable!",
                  cut_off.yes AS "destination_silent!"
           FROM migrations m JOIN hosts s ON s.id = m.source_host_id JOIN hosts d ON d.id = m.destination_host_id
           CROSS JOIN LATERAL (SELECT m.sends_guest AND m.port IS NOT NULL AND d.silent AND NOT s.silent AS yes) cut_off
           WHERE (s.declared_dead_at IS NOT NULL
                  OR m.cancelled_at IS NULL AND (d.declared_dead_at IS NOT NULL OR m.due_at <= $1 OR cut_off.yes
                                                 OR NOT takes_migration(m, d.inventory)))
             AND ($2::uuid IS NULL OR m.id = $2)
           ORDER BY m.instance_id"#,
        now,
        only
    )
    .fetch_all(conn)
    .await
}

/// Whether the agent of its destination still takes such guests.
pub(crate) async fn is_taken(conn: &mut PgConnection, of: &Migration) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT takes_migration(m, d.inventory) AS "takes!"
           FROM migrations m JOIN hosts d ON d.id = m.destination_host_id WHERE m.id = $1"#,
        of.id
    )
    .fetch_one(conn)
    .await
}

/// Locks an instance by its id; false when it is gone.
pub(in crate::instances) async fn lock_instance(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query!("SELECT FROM instances WHERE id = $1 FOR UPDATE", id).execute(conn).await?;
    Ok(locked.rows_affected() == 1)
}

/// Where a host says that it is reached.
pub(crate) async fn underlay_of(
    conn: &mut PgConnection,
    host: HostId,
) -> Result<Option<IpAddr>, sqlx::Error> {
    let text = sqlx::query_scalar!("SELECT host(underlay_address) FROM hosts WHERE id = $1", host.as_uuid())
        .fetch_optional(conn)
        .await?;
    Ok(text.flatten().and_then(|text| text.parse().ok()))
}

/// Notes where the destination waits, and tells the source. False when that was known.
pub(crate) async fn set_ready(
    conn: &mut PgConnection,
    of: &Migration,
    address: SocketAddr,
) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query!(
        "UPDATE migrations SET address = $2::text::inet, port = $3
         WHERE id = $1 AND (address, port) IS DISTINCT FROM ($2::text::inet, $3)",
        of.id,
        address.ip().to_string(),
        i32::from(address.port())
    )
    .execute(&mut *conn)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    tell_source(conn, of).await?;
    Ok(true)
}

/// Asks the source to send no more.
pub(crate) async fn set_cancelled(
    conn: &mut PgConnection,
    of: &Migration,
    (code, detail): (&str, &str),
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE migrations SET cancelled_at = $2, cancel_code = $3, cancel_detail = $4
         WHERE id = $1 AND cancelled_at IS NULL",
        of.id,
        now,
        code,
        detail
    )
    .execute(&mut *conn)
    .await?;
    tell_source(conn, of).await
}

/// The source has its specification anew, in the same generation.
async fn tell_source(conn: &mut PgConnection, of: &Migration) -> Result<(), sqlx::Error> {
    let revision = hosts::store::bump_revision(conn, of.source()).await?;
    sqlx::query!("UPDATE instances SET desired_revision = $2 WHERE id = $1", of.instance_id, revision.0)
        .execute(&mut *conn)
        .await?;
    nudge::send(conn, Topic::Host(of.source())).await
}

/// Ends the migration of an instance, which is locked and stays where it is, if there is one: the destination gives up what
/// it has of it.
pub(crate) async fn give_up(conn: &mut PgConnection, instance: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT end_migration($1)", instance).execute(conn).await?;
    Ok(())
}

/// The same, and the source is told.
pub(crate) async fn end(conn: &mut PgConnection, of: &Migration) -> Result<(), sqlx::Error> {
    give_up(conn, of.instance_id).await?;
    tell_source(conn, of).await
}

/// INVARIANT: the source has said of this migration that it has handed the guest over, so that it never lets it go on; or no
/// guest runs, and the destination has said that it has all of the disks. From
/// the commit on the instance is the destination's, and the source has to let go of what it has of it.
///
/// Of a guest that runs nothing follows any more from what the source has said: that it is guarded is for the destination to say,
/// of this generation, and an end would be that of a guest that has gone.
pub(crate) async fn change_hands(
    conn: &mut PgConnection,
    of: &Migration,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (id, source, destination) = (InstanceId::from(of.instance_id), of.source(), of.destination());
    hold(conn, [source, destination]).await?;
    // Its place there is the instance's from now on.
    sqlx::query!("DELETE FROM migrations WHERE id = $1", of.id).execute(&mut *conn).await?;
    if of.takes_disks {
        disk_moves::change_place(conn, of, now).await?;
    }
    // Both documents change with it.
    let there = hosts::store::bump_networks(conn, destination).await?.unwrap_or_default();
    let left = hosts::store::bump_networks(conn, source).await?.unwrap_or_default();
    attachments::place(conn, id, destination.as_uuid()).await?;
    let generation = sqlx::query_scalar!(
        "UPDATE instances SET host_id = $2, left_host_id = $3, desired_revision = $4, generation = generation + 1,
                updated_at = $5,
                guarded_from = CASE WHEN $6 AND on_host_failure = 'restart' THEN generation + 1 END,
                observed_state = CASE WHEN $6 THEN nullif(observed_state, 'stopped') ELSE observed_state END,
                observed_end_reason = CASE WHEN NOT $6 THEN observed_end_reason END
         WHERE id = $1 RETURNING generation",
        of.instance_id,
        destination.as_uuid(),
        source.as_uuid(),
        there.0,
        now,
        of.runs
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!("UPDATE ports SET host_revision = NULL WHERE instance_id = $1", of.instance_id)
        .execute(&mut *conn)
        .await?;
    cards::came_to_host(conn, id, there.0).await?;
    sqlx::query!(
        "INSERT INTO departures (instance_id, host_id, generation, desired_revision) VALUES ($1, $2, $3, $4)",
        of.instance_id,
        source.as_uuid(),
        generation,
        left.0
    )
    .execute(&mut *conn)
    .await?;
    nudge::send_all(conn, &[Topic::Host(destination), Topic::Host(source)]).await
}
