//! `cumulo-api restore`.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};

use super::restored::{Restored, restored_in};
use super::run;
use crate::clock::Clock;
use crate::database::private_cluster::ClusterError;
use crate::database::{Location, MIGRATOR, Maintenance, OpenError};

/// PostgreSQL cuts off what is longer. (PostgreSQL, 4.1.1)
const LONGEST_NAME: usize = 63;

/// Of which backup, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreOptions {
    /// A backup that `cumulo-api backup` has written. `-` is the standard input.
    pub file: Utf8PathBuf,
    #[command(flatten)]
    pub database: Location,
}

/// What there is now.
#[derive(Debug)]
pub struct Done {
    pub restored: Restored,
    /// The name that what was there before has now.
    pub kept: String,
}

/// The database whose place the backup takes.
struct Target {
    name: String,
    /// What the backup becomes, until it takes that place.
    new: String,
    /// What is there becomes then.
    kept: String,
    /// Whose its tables are.
    owner: String,
    encoding: String,
    collation: String,
    characters: String,
    /// Whether it has rights, limits or settings that a new one has not.
    has_rules: bool,
}

/// Puts a backup in the place of the database.
///
/// # Errors
/// When a control plane runs on it, or the backup is not whole, not of a control plane, or of a newer release. All is as it was then.
pub async fn restore(options: &RestoreOptions) -> anyhow::Result<Done> {
    let input = match options.file.as_str() {
        "-" => Stdio::inherit(),
        path => File::open(path).with_context(|| format!("cannot read {path}"))?.into(),
    };
    let postgres = match Maintenance::alone(&options.database).await {
        Err(OpenError::Cluster(error @ ClusterError::InUse { .. })) => {
            return Err(error).context("the backup is restored while no cumulo-api runs: stop it first");
        }
        reached => reached?,
    };
    eprintln!("restoring the database {}", postgres.name());
    let done = restore_in(&postgres, input).await;
    postgres.leave().await.context("cannot stop PostgreSQL again")?;
    done.context("the backup was not restored; the database is as it was")
}

async fn restore_in(postgres: &Maintenance, input: Stdio) -> anyhow::Result<Done> {
    let target = Target::of(postgres).await?;
    let mut administrator = administrator(postgres).await?;
    refuse_others(&mut administrator, &target.name).await?;
    // What is left of an earlier one that was killed.
    drop_database(&mut administrator, &target.new).await?;
    let made = make(postgres, &target, input, &mut administrator).await;
    administrator.close().await.ok();

    // Another connection: to restore may have taken an hour, and what is idle for so long may be cut off.
    let mut administrator = self::administrator(postgres).await?;
    let done = match made {
        Ok(restored) => swap(&mut administrator, &target).await.map(|()| restored),
        Err(error) => Err(error),
    };
    if done.is_err()
        && let Err(error) = drop_database(&mut administrator, &target.new).await
    {
        tracing::warn!(%error, "the database {} is left, until the next restore", target.new);
    }
    administrator.close().await.ok();
    Ok(Done { restored: done?, kept: target.kept })
}

async fn administrator(postgres: &Maintenance) -> anyhow::Result<PgConnection> {
    postgres.administrator.connect().await.context("cannot connect to the database postgres")
}

impl Target {
    async fn of(postgres: &Maintenance) -> anyhow::Result<Self> {
        let options = &postgres.control_plane;
        let name = options.get_database().unwrap_or(options.get_username()).to_owned();
        let [new, kept] = ["restoring", "before_restore"].map(|what| format!("{name}_{what}"));
        ensure!(kept.len() <= LONGEST_NAME, "the name of the database is too long to keep it beside another");
        ensure!(
            name != "postgres",
            "the database postgres has to stay: give the control plane one of its own"
        );
        let mut connection = postgres.administrator.clone().database(&name).connect().await?;
        let found = sqlx::query_as(
            "SELECT pg_get_userbyid(coalesce(t.relowner, d.datdba))::text, pg_encoding_to_char(d.encoding)::text,
                    d.datcollate::text, d.datctype::text,
                    d.datacl IS NOT NULL OR d.datconnlimit <> -1 OR EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = d.oid)
             FROM pg_database d LEFT JOIN pg_class t ON t.oid = to_regclass('_sqlx_migrations')
             WHERE d.datname = current_database()",
        );
        let (owner, encoding, collation, characters, has_rules) = found.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(Self { name, new, kept, owner, encoding, collation, characters, has_rules })
    }
}

/// A control plane that runs would go on in the database that has another name then. Those that have just ended may be seen for a
/// moment.
async fn refuse_others(administrator: &mut PgConnection, name: &str) -> anyhow::Result<()> {
    for _ in 0..50 {
        if others(administrator, name).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let others = others(administrator, name).await?;
    bail!("{others} connections to the database are open: stop every cumulo-api, and whatever else uses it");
}

async fn others(administrator: &mut PgConnection, name: &str) -> sqlx::Result<i64> {
    // Of sessions of others a role may not learn what they are.
    let others = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type IS DISTINCT FROM 'autovacuum worker'",
    );
    others.bind(name).fetch_one(administrator).await
}

/// Makes a database of the backup that could be served at once.
async fn make(
    postgres: &Maintenance,
    target: &Target,
    input: Stdio,
    administrator: &mut PgConnection,
) -> anyhow::Result<Restored> {
    let [new, owner] = [&target.new, &target.owner].map(|name| quoted(name, '"'));
    let [encoding, collation, characters] =
        [&target.encoding, &target.collation, &target.characters].map(|text| quoted(text, '\''));
    let create = format!(
        "CREATE DATABASE {new} OWNER {owner} TEMPLATE template0 ENCODING {encoding} LC_COLLATE {collation} LC_CTYPE {characters}"
    );
    execute(administrator, &create).await.context("cannot make a database; the role has to be allowed to")?;
    eprintln!("reading the backup");
    let mut program = postgres.program("pg_restore", &postgres.administrator);
    program.args([
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        "--role",
        &target.owner,
        "--dbname",
        &target.new,
    ]);
    program.stdin(input).stdout(Stdio::null());
    run(program).await.context("the backup cannot be read")?;

    eprintln!("bringing it up to date");
    // As its owner, whoever we are; of what belongs to the server ANALYZE would say that it is left out.
    let settings = [("role", target.owner.as_str()), ("client_min_messages", "error")];
    let options = postgres.administrator.clone().database(&target.new).options(settings);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let made = bring_up_to_date(&pool).await;
    pool.close().await;
    made
}

async fn bring_up_to_date(pool: &PgPool) -> anyhow::Result<Restored> {
    let ours: bool = sqlx::query_scalar(
        "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AND to_regclass('hosts') IS NOT NULL",
    )
    .fetch_one(pool)
    .await?;
    ensure!(ours, "this is no backup of a control plane");
    match MIGRATOR.run(pool).await {
        Err(MigrateError::VersionMissing(_)) => {
            bail!("the backup was made by a newer cumulo-api: restore it with that one")
        }
        migrated => migrated?,
    }
    let restored = restored_in(pool, &Clock::system()).await?;
    // A dump has no statistics; without them the first hours would be slow.
    sqlx::raw_sql("ANALYZE").execute(pool).await?;
    Ok(restored)
}

/// INVARIANT: at each moment there is a database of the target's name, the old one or the whole new one.
async fn swap(administrator: &mut PgConnection, target: &Target) -> anyhow::Result<()> {
    drop_database(administrator, &target.kept).await?;
    let [name, new, kept] = [&target.name, &target.new, &target.kept].map(|name| quoted(name, '"'));
    let rename = format!(
        "BEGIN; ALTER DATABASE {name} RENAME TO {kept}; ALTER DATABASE {new} RENAME TO {name}; COMMIT"
    );
    if let Err(error) = execute(administrator, &rename).await {
        execute(administrator, "ROLLBACK").await.ok();
        return Err(error).context("cannot put the new database in the place of the old one");
    }
    if target.has_rules {
        tracing::warn!(
            "{} had rights, limits or settings of its own (GRANT ON DATABASE, ALTER DATABASE), which {} has now: give them anew",
            target.name,
            target.kept
        );
    }
    Ok(())
}

async fn drop_database(administrator: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    execute(administrator, &format!("DROP DATABASE IF EXISTS {}", quoted(name, '"'))).await
}

async fn execute(connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    // Its names are quoted, and chosen by the operator.
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

/// (PostgreSQL, 4.1.1 and 4.1.2.1)
fn quoted(text: &str, quote: char) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}
