//! First run: a signing key, the managed policies, and an administrator.

use camino::Utf8PathBuf;
use protocol::PrincipalId;
use sqlx::{PgConnection, PgPool};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::passwords::{self, Passwords};
use super::signing_keys;
use super::store::{self, FirstPassword};
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::http::ApiError;
use crate::policies;

/// One replica at a time does first-run work; the number is arbitrary but ours.
const FIRST_RUN_LOCK: i64 = 0x6375_6d75_6c6f;

/// The first administrator.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct FirstRunOptions {
    /// On the first run, write the administrator's credentials to this file (mode 0600) and not to standard
    /// output.
    #[arg(long, env = "CUMULO_FIRST_RUN_CREDENTIALS")]
    pub first_run_credentials: Option<Utf8PathBuf>,
    /// Whether another password has to be chosen at the first sign-in, before anything else.
    #[arg(long, env = "CUMULO_FIRST_RUN_PASSWORD_CHANGE", value_enum, default_value_t)]
    pub first_run_password_change: PasswordChange,
}

/// What becomes of the first administrator's password.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PasswordChange {
    #[default]
    Required,
    /// It may stay, as for a cloud that programs try out.
    Optional,
}

/// Loads the signing keys, and makes key and administrator if this cloud has none. The administrator's
/// password goes to `credentials_file` (mode 0600), or to standard output; only its hash is stored.
pub(crate) async fn run(
    pool: &PgPool,
    clock: &Clock,
    passwords: &Passwords,
    options: &FirstRunOptions,
) -> Result<Tokens, ApiError> {
    let mut tx = crate::database::begin(pool).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", FIRST_RUN_LOCK).execute(&mut *tx).await?;
    if signing_keys::store::all(&mut tx).await?.is_empty() {
        let key = signing_keys::generate(clock)?;
        signing_keys::store::insert(&mut tx, &key, clock.now()).await?;
    }
    policies::managed::install(&mut tx, clock.now()).await?;
    if !store::any_user(&mut tx).await? {
        make_administrator(&mut tx, clock, passwords, options).await?;
    }
    let tokens = Tokens::load(&mut tx).await?;
    tx.commit().await?;
    Ok(tokens)
}

async fn make_administrator(
    conn: &mut PgConnection,
    clock: &Clock,
    passwords: &Passwords,
    options: &FirstRunOptions,
) -> Result<(), ApiError> {
    let password = passwords::generate();
    let hash = passwords.hash(password.clone()).await?;
    let id: PrincipalId = clock.new_id();
    let change_required = options.first_run_password_change == PasswordChange::Required;
    let first = FirstPassword { hash: &hash, change_required };
    store::insert_user(conn, id, "admin", "", Some(first), clock.now()).await?;
    policies::managed::make_administrator(conn, clock.new_id(), id, clock.now()).await?;
    // Shown before the commit: a password that nobody saw would lock everybody out.
    show(&password, options).map_err(ApiError::internal)
}

fn show(password: &str, options: &FirstRunOptions) -> std::io::Result<()> {
    let Some(path) = &options.first_run_credentials else {
        let mut out = std::io::stdout().lock();
        writeln!(out, "Cumulo's first administrator, shown this once:")?;
        writeln!(out, "  user name  admin")?;
        writeln!(out, "  password   {password}")?;
        if options.first_run_password_change == PasswordChange::Required {
            writeln!(out, "The first sign-in asks for another password.")?;
        }
        return out.flush();
    };
    let text = serde_json::json!({ "username": "admin", "password": password }).to_string();
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
