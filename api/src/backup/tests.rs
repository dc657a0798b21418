//! Backups of a real private PostgreSQL: whole ones, and all that is none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use camino::Utf8PathBuf;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio_util::sync::CancellationToken;

use super::{BackupOptions, Done, RestoreOptions, back_up, restore};
use crate::database::testing::ClusterFolder;
use crate::database::{Location, MIGRATOR, Maintenance};

const OWNERS: &str = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'";

/// A control plane's data directory, with a database that says what it is.
struct Place {
    folder: ClusterFolder,
}

impl Place {
    async fn new() -> Self {
        let place = Self::empty().await;
        let postgres = place.alone().await;
        fill(&postgres.control_plane).await;
        postgres.leave().await;
        place
    }

    /// As the first start of a control plane leaves it.
    async fn empty() -> Self {
        let folder = ClusterFolder::new();
        folder.start().await.unwrap().stop().await.unwrap();
        Self { folder }
    }

    fn location(&self) -> Location {
        Location { data_dir: self.folder.root.clone(), database_url: None }
    }

    /// As a control plane that runs.
    async fn alone(&self) -> Maintenance {
        Maintenance::alone(&self.location()).await.unwrap()
    }

    async fn execute(&self, statement: &str) {
        let postgres = self.alone().await;
        let mut connection = postgres.control_plane.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        postgres.leave().await;
    }

    /// What is in the database of that name.
    async fn ask(&self, database: &str, question: &str) -> Vec<String> {
        let postgres = self.alone().await;
        let mut connection = postgres.administrator.clone().database(database).connect().await.unwrap();
        let answer = sqlx::query_scalar(AssertSqlSafe(question)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        postgres.leave().await;
        answer
    }

    async fn mark(&self, database: &str) -> String {
        self.ask(database, "SELECT it FROM mark").await.remove(0)
    }

    fn file(&self, name: &str) -> Utf8PathBuf {
        self.folder.root.join(name)
    }

    async fn back_up(&self, name: &str) -> anyhow::Result<Option<u64>> {
        back_up(&BackupOptions { file: self.file(name), database: self.location() }, &never()).await
    }

    fn options(&self, name: &str) -> RestoreOptions {
        let file = Some(self.file(name));
        RestoreOptions { file, undo: false, drop_kept: false, database: self.location() }
    }

    async fn restore(&self, name: &str) -> Result<Done, String> {
        tried(&self.options(name)).await
    }
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

async fn tried(options: &RestoreOptions) -> Result<Done, String> {
    restore(options, &never()).await.map_err(|error| format!("{error:#}"))
}

/// As the release before leaves a database. Most of it is rows.
async fn fill(database: &PgConnectOptions) {
    let mut connection = database.connect().await.unwrap();
    let [.., before, _] = &*MIGRATOR.migrations else { panic!("too few migrations") };
    MIGRATOR.run_to(before.version, &mut connection).await.unwrap();
    let rows = "CREATE TABLE mark AS SELECT 'first' AS it;
                CREATE TABLE bulk AS SELECT gen_random_uuid() AS it FROM generate_series(1, 100000)";
    sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_takes_the_place_of_what_came_after_it_which_is_kept() {
    let place = Place::new().await;
    let running = place.alone().await;
    let size = place.back_up("cumulo.dump").await.unwrap().unwrap();
    let error = place.restore("cumulo.dump").await.unwrap_err();
    assert!(error.contains("no cumulo-api runs: stop it first"), "{error}");
    running.leave().await;
    let metadata = place.file("cumulo.dump").metadata().unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (size, 0o600));

    let error = tried(&RestoreOptions { file: None, undo: true, ..place.options("") }).await.unwrap_err();
    assert!(error.contains("no restore has kept one"), "{error}");
    for (now, drop_kept) in [("second", false), ("third", true)] {
        place.execute(&format!("UPDATE mark SET it = '{now}'")).await;
        let done = tried(&RestoreOptions { drop_kept, ..place.options("cumulo.dump") }).await.unwrap();
        assert_eq!(place.mark("cumulo").await, "first");
        assert_eq!((&*place.mark(&done.kept).await, done.lost_rules), (now, false));
        // Nobody loses it by doing the same again.
        let error = place.restore("cumulo.dump").await.unwrap_err();
        assert!(error.contains("--undo") && error.contains("--drop-kept"), "{error}");
        assert_eq!(place.mark(&done.kept).await, now);
    }
    let undo = RestoreOptions { file: None, undo: true, ..place.options("") };
    for expected in [("third", "first"), ("first", "third")] {
        let done = tried(&undo).await.unwrap();
        assert_eq!((&*place.mark("cumulo").await, &*place.mark(&done.kept).await), expected);
    }
    // Its hosts begin anew, and it belongs to whom it belonged to.
    let declared = "SELECT action FROM audit_records WHERE principal_name = 'cumulo-api restored'";
    assert_eq!(place.ask("cumulo", declared).await, ["host:DeclareRestored"; 2]);
    assert_eq!(place.ask("cumulo", OWNERS).await, ["cumulo"]);

    // On a new machine.
    let new = Place::empty().await;
    fs::copy(place.file("cumulo.dump"), new.file("cumulo.dump")).unwrap();
    new.restore("cumulo.dump").await.unwrap();
    assert_eq!(new.mark("cumulo").await, "first");
}

#[tokio::test]
async fn what_is_no_whole_backup_of_a_control_plane_changes_nothing() {
    let place = Place::new().await;
    place.back_up("whole").await.unwrap();
    let whole = fs::read(place.file("whole")).unwrap();
    fs::write(place.file("cut"), &whole[..whole.len() * 3 / 4]).unwrap();
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    fs::write(place.file("damaged"), damaged).unwrap();
    fs::write(place.file("text"), "no backup").unwrap();
    fs::write(place.file("empty"), "").unwrap();
    place.execute("INSERT INTO _sqlx_migrations VALUES (9999, 'of tomorrow', now(), true, '', 0)").await;
    place.back_up("newer").await.unwrap();
    place
        .execute("DELETE FROM _sqlx_migrations WHERE version = 9999; ALTER TABLE hosts RENAME TO others")
        .await;
    place.back_up("other").await.unwrap();
    place.execute("ALTER TABLE others RENAME TO hosts; UPDATE mark SET it = 'second'").await;

    for (file, reason) in [
        ("cut", "the backup cannot be read"),
        ("damaged", "the backup cannot be read"),
        ("text", "the backup cannot be read"),
        ("empty", "the backup cannot be read"),
        ("newer", "by a newer cumulo-api"),
        ("other", "no backup of a control plane"),
        ("missing", "cannot read"),
    ] {
        let error = place.restore(file).await.unwrap_err();
        assert!(error.contains(reason), "{file}: {error}");
        assert_eq!(place.mark("cumulo").await, "second", "{file}");
        let databases = "SELECT datname::text FROM pg_database WHERE datname LIKE 'cumulo%'";
        assert_eq!(place.ask("postgres", databases).await, ["cumulo"], "{file}");
    }
    let interrupted = CancellationToken::new();
    interrupted.cancel();
    let error = restore(&place.options("whole"), &interrupted).await.unwrap_err();
    assert!(format!("{error:#}").contains("it was interrupted"), "{error:#}");
    assert_eq!(place.mark("cumulo").await, "second");
    let error = format!("{:#}", place.back_up("missing/file").await.unwrap_err());
    assert!(error.contains("cannot write to"), "{error}");
    let error = format!("{:#}", place.back_up("").await.unwrap_err());
    assert!(error.contains("is no file"), "{error}");
    // Where nothing is, nothing is made.
    let database = Location { data_dir: place.file("elsewhere"), database_url: None };
    let error = tried(&RestoreOptions { database, ..place.options("whole") }).await.unwrap_err();
    assert!(error.contains("there is no database in"), "{error}");
    assert!(!place.file("elsewhere").exists());
}

/// Of a server that others run, as its role that is no superuser.
#[tokio::test]
async fn a_database_elsewhere_is_replaced_while_nobody_uses_it() {
    let place = Place::empty().await;
    let server = place.alone().await;
    let mut administrator = server.administrator.connect().await.unwrap();
    // The tables are its, also where the database is another's.
    for statement in [
        "CREATE ROLE other",
        "GRANT other TO cumulo",
        "CREATE DATABASE cloud OWNER other TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' CONNECTION LIMIT 50",
    ] {
        sqlx::raw_sql(statement).execute(&mut administrator).await.unwrap();
    }
    let cloud = server.control_plane.clone().database("cloud");
    fill(&cloud).await;
    // What only the superuser of that server may make.
    let mut superuser = server.administrator.clone().database("cloud").connect().await.unwrap();
    let theirs = "CREATE EXTENSION pg_stat_statements; CREATE PUBLICATION everything FOR ALL TABLES";
    sqlx::raw_sql(theirs).execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
    let url = format!(
        "postgres://cumulo@localhost/cloud?host={}/postgresql/run&sslmode=disable",
        place.folder.root
    );
    let database = Location { data_dir: "/nonexistent".into(), database_url: Some(url) };
    let file = place.file("cumulo.dump");
    back_up(&BackupOptions { file, database: database.clone() }, &never()).await.unwrap();
    let options = RestoreOptions { database, ..place.options("cumulo.dump") };

    let error = tried(&options).await.unwrap_err();
    assert!(
        error.contains("the role has to be allowed to") && error.contains("permission denied"),
        "{error}"
    );
    sqlx::raw_sql("ALTER ROLE cumulo CREATEDB").execute(&mut administrator).await.unwrap();
    administrator.close().await.unwrap();
    let user = cloud.connect().await.unwrap();
    let error = tried(&options).await.unwrap_err();
    assert!(error.contains("stop every cumulo-api"), "{error}");
    user.close().await.unwrap();
    let done = tried(&options).await.unwrap();
    assert!(done.lost_rules);
    server.leave().await;
    assert_eq!(place.ask("cloud", OWNERS).await, ["cumulo"]);
    let collation = "SELECT datcollate FROM pg_database WHERE datname = 'cloud'";
    assert_eq!(place.ask("postgres", collation).await, ["C"]);
    assert_eq!((&*place.mark("cloud").await, &*place.mark(&done.kept).await), ("first", "first"));
}
