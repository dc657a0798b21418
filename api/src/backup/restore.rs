//! `cumulo-api restore`.

use std::fs::File;
use std::io::IsTerminal as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::restored::{Restored, restored_in};
use super::{INTERRUPTED, run};
use crate::clock::Clock;
use crate::database::private_cluster::ClusterError;
use crate::database::{Location, MIGRATOR, Maintenance, OpenError};

/// PostgreSQL cuts off what is longer. (PostgreSQL, 4.1.1)
const LONGEST_NAME: usize = 63;
const AS_IT_WAS: &str = "the backup was not restored; the database is as it was";

/// Of which backup, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreOptions {
    /// A backup that `cumulo-api backup` has written. `-` is the standard input.
    #[arg(required_unless_present = "undo", conflicts_with = "undo")]
    pub file: Option<Utf8PathBuf>,
    /// Put back what the last restore has replaced; what it had put there is kept in turn.
    #[arg(long)]
    pub undo: bool,
    /// Drop what an earlier restore has kept, for good.
    #[arg(long, conflicts_with = "undo")]
    pub drop_kept: bool,
    #[command(flatten)]
    pub database: Location,
}

/// What there is now.
#[derive(Debug)]
pub struct Done {
    pub restored: Restored,
    /// The name that what was there before has now.
    pub kept: String,
    /// Whether that had rights, limits or settings that what is there now has not.
    pub lost_rules: bool,
}

/// A database that can be served at once.
struct Whole {
    name: String,
    /// By which PostgreSQL knows it, whatever it is called.
    oid: i64,
    restored: Restored,
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

/// Puts a backup in the place of the database, unless `shutdown` comes before it is read.
///
/// # Errors
/// When a control plane runs on it, or the backup is not whole, not of a control plane, or of a newer release. All is as it was then.
pub async fn restore(options: &RestoreOptions, shutdown: &CancellationToken) -> anyhow::Result<Done> {
    let input = options.file.as_deref().map(open).transpose()?;
    let postgres = match Maintenance::alone(&options.database).await {
        Err(OpenError::Cluster(error @ ClusterError::InUse { .. })) => {
            return Err(error).context("the backup is restored while no cumulo-api runs: stop it first");
        }
        reached => reached?,
    };
    eprintln!("restoring the database {}", postgres.name());
    let done = restore_in(&postgres, input, options.drop_kept, shutdown).await;
    postgres.leave().await;
    done
}

fn open(file: &Utf8Path) -> anyhow::Result<Stdio> {
    if file == "-" {
        ensure!(!std::io::stdin().is_terminal(), "a backup is nothing to type: name a file, or use < FILE");
        return Ok(Stdio::inherit());
    }
    let opened = File::open(file).with_context(|| match file.exists() {
        true => format!("cannot read {file}; whoever may can give it: - < {file}"),
        false => format!("cannot read {file}"),
    });
    Ok(opened?.into())
}

/// Without an input, what the last restore has kept.
async fn restore_in(
    postgres: &Maintenance,
    input: Option<Stdio>,
    drop_kept: bool,
    shutdown: &CancellationToken,
) -> anyhow::Result<Done> {
    let target = Target::of(postgres).await?;
    let mut administrator = administrator(postgres).await?;
    refuse_others(&mut administrator, &target.name).await?;
    let kept = oid_of(&mut administrator, &target.kept).await?.is_some();
    match input {
        None => ensure!(kept, "there is no database {}: no restore has kept one", target.kept),
        Some(_) => ensure!(
            !kept || drop_kept,
            "an earlier restore has kept the database {}: put it back with --undo, or let it go for good with --drop-kept",
            target.kept
        ),
    }
    // What is left of an earlier one that was killed.
    drop_database(&mut administrator, &target.new).await?;
    let made = match input {
        Some(input) => make(postgres, &target, input, &mut administrator, shutdown).await,
        None => serviceable(postgres, &target, &target.kept, &mut administrator).await,
    };
    administrator.close().await.ok();
    let done = match made {
        Ok(_) if shutdown.is_cancelled() => Err(anyhow!(INTERRUPTED).context(AS_IT_WAS)),
        Ok(whole) => swap(postgres, &target, &whole).await.map(|()| whole.restored),
        Err(error) => Err(error.context(AS_IT_WAS)),
    };
    if done.is_err()
        && let Err(error) = drop_new(postgres, &target).await
    {
        tracing::warn!("the database {} is left, until the next restore: {error:#}", target.new);
    }
    Ok(Done { restored: done?, kept: target.kept, lost_rules: target.has_rules })
}

/// Each time another connection: to restore may take an hour, and what is idle for so long may be cut off.
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
                        OR EXISTS (SELECT FROM pg_class WHERE relacl IS NOT NULL AND relnamespace = 'public'::regnamespace)
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
    shutdown: &CancellationToken,
) -> anyhow::Result<Whole> {
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
    run(program, shutdown).await.map_err(|error| match shutdown.is_cancelled() {
        true => error,
        false => error.context("the backup cannot be read"),
    })?;
    serviceable(postgres, target, &target.new, administrator).await
}

/// Makes a database that is there one that can be served at once.
async fn serviceable(
    postgres: &Maintenance,
    target: &Target,
    name: &str,
    administrator: &mut PgConnection,
) -> anyhow::Result<Whole> {
    let oid = oid_of(administrator, name).await?.with_context(|| format!("the database {name} is gone"))?;
    eprintln!("bringing it up to date");
    // As its owner, whoever we are; of what belongs to the server ANALYZE would say that it is left out.
    let settings = [("role", target.owner.as_str()), ("client_min_messages", "error")];
    let options = postgres.administrator.clone().database(name).options(settings);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let restored = bring_up_to_date(&pool).await;
    pool.close().await;
    Ok(Whole { name: name.to_owned(), oid, restored: restored? })
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

/// Lets it take the target's place.
async fn swap(postgres: &Maintenance, target: &Target, whole: &Whole) -> anyhow::Result<()> {
    let mut connection = administrator(postgres).await?;
    if whole.name == target.new {
        // There is one only if it may go.
        drop_database(&mut connection, &target.kept).await?;
    }
    let swapped = rename(&mut connection, target, whole).await;
    connection.close().await.ok();
    let Err(error) = swapped else { return Ok(()) };
    // The answer may be lost, and the deed done.
    let unknown = "whether the backup is in its place now is not known, look with psql -l";
    let mut connection = administrator(postgres).await.context(unknown)?;
    let there = oid_of(&mut connection, &target.name).await.context(unknown)?;
    ensure!(there == Some(whole.oid), error.context(AS_IT_WAS));
    Ok(())
}

/// INVARIANT: at each moment there is a database of the target's name, the old one or the whole new one.
async fn rename(administrator: &mut PgConnection, target: &Target, whole: &Whole) -> anyhow::Result<()> {
    let mut tx = administrator.begin().await?;
    // Somebody else may restore, too.
    let still = oid_of(&mut tx, &whole.name).await? == Some(whole.oid);
    ensure!(still, "another restore has begun meanwhile");
    let aside = if whole.name == target.kept { &target.new } else { &target.kept };
    let names = [(&target.name, aside), (&whole.name, &target.name), (aside, &target.kept)];
    for (from, to) in names.into_iter().filter(|(from, to)| from != to) {
        let rename = format!("ALTER DATABASE {} RENAME TO {}", quoted(from, '"'), quoted(to, '"'));
        execute(&mut tx, &rename).await?;
    }
    Ok(tx.commit().await?)
}

async fn oid_of(connection: &mut PgConnection, name: &str) -> sqlx::Result<Option<i64>> {
    let oid = sqlx::query_scalar("SELECT oid::bigint FROM pg_database WHERE datname = $1");
    oid.bind(name).fetch_optional(connection).await
}

async fn drop_new(postgres: &Maintenance, target: &Target) -> anyhow::Result<()> {
    let mut administrator = administrator(postgres).await?;
    drop_database(&mut administrator, &target.new).await?;
    Ok(administrator.close().await?)
}

/// Whoever is connected to it, as a `pg_restore` whose command was killed.
async fn drop_database(administrator: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    execute(administrator, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name, '"'))).await
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
