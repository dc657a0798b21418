//! `cumulo-api restore`.

use std::fs::File;
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};

use super::restored::{Restored, restored_in};
use super::run;
use crate::clock::Clock;
use crate::database::{MIGRATOR, Maintenance};

/// PostgreSQL cuts off what is longer. (PostgreSQL, 4.1.1)
const LONGEST_NAME: usize = 63;

/// Of which backup, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreOptions {
    /// A backup that `cumulo-api backup` has written. `-` is the standard input.
    pub file: Utf8PathBuf,
    /// Data directory of the control plane, with its private PostgreSQL. It is made if there is none.
    #[arg(long, env = "CUMULO_DATA_DIR", default_value = "/var/lib/cumulo/api")]
    pub data_dir: Utf8PathBuf,
    /// PostgreSQL of the control plane, if it is not a private one. The role has to own its database and to be allowed to make others.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
}

/// What there is now.
#[derive(Debug)]
pub struct Done {
    pub restored: Restored,
    /// The name that what was there before has now.
    pub kept: String,
}

/// The names of the database, and whose it is.
struct Names {
    target: String,
    /// What the backup becomes, until it takes the place of the target.
    new: String,
    /// What the target becomes then.
    kept: String,
    owner: String,
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
    let postgres = Maintenance::alone(options.database_url.as_deref(), &options.data_dir).await;
    let postgres = postgres.context("the backup is restored while no cumulo-api runs: stop it first")?;
    let done = restore_in(&postgres, input).await;
    postgres.leave().await.context("cannot stop PostgreSQL again")?;
    done.context("the backup was not restored; the database is as it was")
}

pub(super) async fn restore_in(postgres: &Maintenance, input: Stdio) -> anyhow::Result<Done> {
    let mut administrator =
        postgres.administrator.connect().await.context("cannot connect to the database postgres")?;
    let names = Names::of(&postgres.control_plane, &mut administrator).await?;
    refuse_others(&mut administrator, &names.target).await?;
    // What is left of an earlier one that was killed.
    execute(&mut administrator, &format!("DROP DATABASE IF EXISTS {}", quoted(&names.new))).await?;
    let done = match make(postgres, &names, input, &mut administrator).await {
        Ok(restored) => swap(&mut administrator, &names).await.map(|()| restored),
        Err(error) => Err(error),
    };
    if done.is_err() {
        let dropped =
            execute(&mut administrator, &format!("DROP DATABASE IF EXISTS {}", quoted(&names.new))).await;
        dropped
            .unwrap_or_else(|error| tracing::warn!(%error, "{} is left, until the next restore", names.new));
    }
    administrator.close().await.ok();
    Ok(Done { restored: done?, kept: names.kept })
}

impl Names {
    async fn of(options: &PgConnectOptions, administrator: &mut PgConnection) -> anyhow::Result<Self> {
        let target = options.get_database().unwrap_or(options.get_username()).to_owned();
        let [new, kept] = ["restoring", "before_restore"].map(|what| format!("{target}_{what}"));
        ensure!(kept.len() <= LONGEST_NAME, "the name of the database is too long to keep it beside another");
        ensure!(
            target != "postgres",
            "the database postgres has to stay: give the control plane one of its own"
        );
        let owner =
            sqlx::query_scalar("SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = $1");
        let owner: Option<String> = owner.bind(&target).fetch_optional(administrator).await?;
        let owner = owner.with_context(|| format!("there is no database {target}: make it first, empty"))?;
        Ok(Self { target, new, kept, owner })
    }
}

/// A control plane that runs would go on in the database that has another name then.
async fn refuse_others(administrator: &mut PgConnection, target: &str) -> anyhow::Result<()> {
    let others = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'",
    );
    let others: i64 = others.bind(target).fetch_one(administrator).await?;
    ensure!(
        others == 0,
        "{others} connections to the database are open: stop every cumulo-api, and whatever else uses it"
    );
    Ok(())
}

/// Makes a database of the backup that could be served at once.
async fn make(
    postgres: &Maintenance,
    names: &Names,
    input: Stdio,
    administrator: &mut PgConnection,
) -> anyhow::Result<Restored> {
    let [new, owner] = [&names.new, &names.owner].map(|name| quoted(name));
    let create = format!("CREATE DATABASE {new} OWNER {owner} TEMPLATE template0");
    execute(administrator, &create).await.context("cannot make a database; the role has to be allowed to")?;
    eprintln!("reading the backup");
    let mut program = postgres.program("pg_restore", &postgres.administrator);
    program.args([
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        "--role",
        &names.owner,
        "--dbname",
        &names.new,
    ]);
    program.stdin(input).stdout(Stdio::null());
    run(program).await.context("the backup cannot be read")?;

    eprintln!("bringing it up to date");
    // As its owner, whoever we are.
    let options = postgres.administrator.clone().database(&names.new).options([("role", &names.owner)]);
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
async fn swap(administrator: &mut PgConnection, names: &Names) -> anyhow::Result<()> {
    let [target, new, kept] = [&names.target, &names.new, &names.kept].map(|name| quoted(name));
    execute(administrator, &format!("DROP DATABASE IF EXISTS {kept}")).await?;
    let rename = format!(
        "BEGIN; ALTER DATABASE {target} RENAME TO {kept}; ALTER DATABASE {new} RENAME TO {target}; COMMIT"
    );
    if let Err(error) = execute(administrator, &rename).await {
        execute(administrator, "ROLLBACK").await.ok();
        return Err(error).context("cannot put the new database in the place of the old one");
    }
    Ok(())
}

async fn execute(connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    // Its names are quoted, and chosen by the operator.
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
