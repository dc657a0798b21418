//! First run: a signing key, the managed policies, and an administrator.

use camino::Utf8Path;
use protocol::PrincipalId;
use sqlx::{PgConnection, PgPool};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::passwords::{self, Passwords};
use super::signing_keys;
use super::store;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::http::ApiError;
use crate::policies;

/// One replica at a time does first-run work; the number is arbitrary but ours.
const FIRST_RUN_LOCK: i64 = 0x6375_6d75_6c6f;

/// Loads the signing keys, and makes key and administrator if this cloud has none. The administrator's
/// password goes to `credentials_file` (mode 0600), or to standard output; only its hash is stored.
pub(crate) async fn run(
    pool: &PgPool,
    clock: &Clock,
    passwords: &Passwords,
    credentials_file: Option<&Utf8Path>,
) -> Result<Tokens, ApiError> {
    let mut tx = crate::database::begin(pool).await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", FIRST_RUN_LOCK).execute(&mut *tx).await?;
    if signing_keys::store::all(&mut tx).await?.is_empty() {
        let key = signing_keys::generate(clock)?;
        signing_keys::store::insert(&mut tx, &key, clock.now()).await?;
    }
    policies::managed::install(&mut tx, clock.now()).await?;
    if !store::any_user(&mut tx).await? {
        make_administrator(&mut tx, clock, passwords, credentials_file).await?;
    }
    let tokens = Tokens::load(&mut tx).await?;
    tx.commit().await?;
    Ok(tokens)
}

async fn make_administrator(
    conn: &mut PgConnection,
    clock: &Clock,
    passwords: &Passwords,
    credentials_file: Option<&Utf8Path>,
) -> Result<(), ApiError> {
    let password = passwords::generate();
    let hash = passwords.hash(password.clone()).await?;
    let id: PrincipalId = clock.new_id();
    store::insert_user(conn, id, "admin", "", Some(&hash), clock.now()).await?;
    policies::managed::make_administrator(conn, clock.new_id(), id, clock.now()).await?;
    // Shown before the commit: a password that nobody saw would lock everybody out.
    show(&password, credentials_file).map_err(ApiError::internal)
}

fn show(password: &str, credentials_file: Option<&Utf8Path>) -> std::io::Result<()> {
    let Some(path) = credentials_file else {
        let mut out = std::io::stdout().lock();
        writeln!(out, "Cumulo's first administrator, shown this once:")?;
        writeln!(out, "  user name  admin")?;
        writeln!(out, "  password   {password}")?;
        return out.flush();
    };
    let text = serde_json::json!({ "username": "admin", "password": password }).to_string();
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
