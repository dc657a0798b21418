//! Real clusters in temporary folders, killed in every way we could think of.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::database::testing::ClusterFolder as Folder;
use crate::database::{Pools, is_unavailable};

async fn query(cluster: &PrivateCluster, sql: &'static str) -> String {
    let mut connection = cluster.connect_options().connect().await.unwrap();
    let answer = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    answer
}

async fn kill_and_wait(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let status = format!("/proc/{pid}/cwd");
    wait_for(|| fs::read_link(&status).is_err()).await;
}

async fn wait_for(mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the condition never came true");
}

#[tokio::test]
async fn a_cluster_starts_serves_its_role_and_keeps_its_data() {
    let folder = Folder::new();
    let cluster = folder.start().await.unwrap();
    let mut connection = cluster.connect_options().connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE kept AS SELECT 'yes' AS it").execute(&mut connection).await.unwrap();
    // The control plane owns its database and is no superuser.
    assert!(sqlx::raw_sql("CREATE ROLE more").execute(&mut connection).await.is_err());
    connection.close().await.unwrap();
    for (setting, value) in [
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
        ("wal_level", "replica"),
    ] {
        let mut connection = cluster.connect_options().connect().await.unwrap();
        let found: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(found, value, "{setting}");
    }
    let pid = cluster.pid();
    cluster.stop().await.unwrap();
    assert!(kill(Pid::from_raw(pid), None).is_err());

    let again = folder.start().await.unwrap();
    assert!(!again.is_adopted());
    assert_eq!(query(&again, "SELECT it FROM kept").await, "yes");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn only_root_and_the_account_may_come_near_the_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let cluster = folder.start().await.unwrap();
    for (path, mode) in [("run", 0o700), ("data", 0o700), ("", 0o711)] {
        let metadata = folder.cluster().join(path).metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path}");
    }
    cluster.stop().await.unwrap();
}

/// Whoever starts it as somebody else would take the socket away from the PostgreSQL that runs.
#[tokio::test]
async fn what_belongs_to_another_account_is_not_touched() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    folder.start().await.unwrap().stop().await.unwrap();
    for path in ["data", "run"] {
        chown(folder.cluster().join(path), Some(1), Some(1)).unwrap();
    }
    let error = folder.start().await.unwrap_err();
    assert!(matches!(&error, ClusterError::OfOthers { .. }), "{error}");
    assert!(error.to_string().contains("runuser -u daemon"), "{error}");
    assert_eq!(folder.cluster().join("run").metadata().unwrap().uid(), 1);
}

#[tokio::test]
async fn a_server_that_outlived_us_is_adopted_and_can_be_stopped() {
    let folder = Folder::new();
    let first = folder.start().await.unwrap();
    let pid = first.pid();
    assert!(matches!(folder.start().await, Err(ClusterError::InUse { .. })));
    // What a kill -9 of us leaves: the server runs, the kernel has dropped our lock.
    drop(first);
    let second = folder.start().await.unwrap();
    assert!(second.is_adopted());
    assert_eq!(second.pid(), pid);
    assert_eq!(query(&second, "SELECT 'served'").await, "served");
    second.stop().await.unwrap();
    assert!(Postmaster::find(&Layout { root: folder.cluster() }).is_none());
}

#[tokio::test]
async fn a_server_that_was_killed_while_nobody_looked_is_started_again() {
    let folder = Folder::new();
    let first = folder.start().await.unwrap();
    kill_and_wait(first.pid()).await;
    drop(first);
    // Its pid file is still there.
    assert!(folder.cluster().join("data/postmaster.pid").exists());
    let second = folder.start().await.unwrap();
    assert!(!second.is_adopted());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_that_names_another_process_is_not_believed() {
    let folder = Folder::new();
    let first = folder.start().await.unwrap();
    kill_and_wait(first.pid()).await;
    drop(first);
    let mut other = tokio::process::Command::new("/usr/bin/sleep")
        .arg("600")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let path = folder.cluster().join("data/postmaster.pid");
    let text = fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&path, format!("{}\n{rest}", other.id().unwrap())).unwrap();
    assert!(Postmaster::find(&Layout { root: folder.cluster() }).is_none());
    other.kill().await.unwrap();
    folder.start().await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_is_back_within_seconds_and_requests_fail_fast_meanwhile() {
    let folder = Folder::new();
    let cluster = folder.start().await.unwrap();
    let pool = Pools::new(cluster.connect_options()).own;
    let pid = cluster.pid();
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(cluster.supervise(shutdown.clone()));
    sqlx::query("SELECT 1").execute(&pool).await.unwrap();

    kill_and_wait(pid).await;
    let killed = tokio::time::Instant::now();
    loop {
        let asked = tokio::time::Instant::now();
        let answer = sqlx::query("SELECT 1").execute(&pool).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "an answer took {:?}", asked.elapsed());
        match answer {
            Ok(_) => break,
            Err(error) => assert!(is_unavailable(&error), "{error:?}"),
        }
        assert!(killed.elapsed() < Duration::from_secs(10), "PostgreSQL did not come back");
    }
    println!("back after {:?}", killed.elapsed());

    shutdown.cancel();
    keeper.await.unwrap().unwrap();
    assert!(Postmaster::find(&Layout { root: folder.cluster() }).is_none());
}

#[tokio::test]
async fn a_shared_server_is_left_to_whoever_adopts_it() {
    let folder = Folder::new();
    let mut first = folder.start().await.unwrap();
    first.share();
    let second = folder.start().await.unwrap();
    assert_eq!((second.is_adopted(), second.pid()), (true, first.pid()));
    first.stop().await.unwrap();
    second.connect_options().connect().await.unwrap().close().await.unwrap();
    second.stop().await.unwrap();
    let mut alone = folder.start().await.unwrap();
    assert!(!alone.is_adopted());
    alone.share();
    alone.stop().await.unwrap();
    assert!(Postmaster::find(&Layout { root: folder.cluster() }).is_none());
}

#[tokio::test]
async fn an_adopted_server_is_supervised_too() {
    let folder = Folder::new();
    let first = folder.start().await.unwrap();
    // The test is its parent, so it has to collect it in the place of init.
    let PrivateCluster { postmaster, lock, .. } = first;
    drop(lock);
    let pid = postmaster.pid();
    let mut child = postmaster.into_child().unwrap();
    let cluster = folder.start().await.unwrap();
    assert!(cluster.is_adopted());
    let options = cluster.connect_options();
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(cluster.supervise(shutdown.clone()));

    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    child.wait().await.unwrap();
    let layout = Layout { root: folder.cluster() };
    wait_for(|| Postmaster::find(&layout).is_some_and(|found| found.pid() != pid)).await;
    let (_, mut connection) = crate::database::connect::patiently(&options.into()).await.unwrap();
    connection.ping().await.unwrap();
    drop(connection);

    shutdown.cancel();
    keeper.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_during_a_failing_restart_is_obeyed() {
    let folder = Folder::new();
    let mut cluster = folder.start().await.unwrap();
    cluster.postmaster.stop().await.unwrap();
    fs::remove_file(folder.cluster().join("data/global/pg_control")).unwrap();
    let shutdown = CancellationToken::new();
    let keeper = tokio::spawn(cluster.supervise(shutdown.clone()));
    let log = folder.cluster().join("postgres.log");
    wait_for(|| fs::read_to_string(&log).is_ok_and(|text| text.contains("pg_control"))).await;
    shutdown.cancel();
    keeper.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_killed_initdb_leaves_nothing_that_counts() {
    let folder = Folder::new();
    let starting = tokio::spawn({
        let directory = folder.cluster();
        async move { PrivateCluster::start(&directory, &Settings::default()).await.map(drop) }
    });
    let unfinished = || {
        let entries = fs::read_dir(folder.cluster()).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.path());
        names.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("data.new-"))
    };
    // As far as a folder that already looks like a cluster.
    wait_for(|| unfinished().is_some_and(|path| path.join("PG_VERSION").exists())).await;
    starting.abort();
    assert!(starting.await.unwrap_err().is_cancelled());
    assert!(!folder.cluster().join("data").exists());

    let cluster = folder.start().await.unwrap();
    assert!(unfinished().is_none());
    assert_eq!(query(&cluster, "SELECT 'whole'").await, "whole");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_of_another_version_is_left_alone() {
    let folder = Folder::new();
    fs::create_dir_all(folder.cluster().join("data")).unwrap();
    fs::write(folder.cluster().join("data/PG_VERSION"), "9\n").unwrap();
    let error = folder.start().await.unwrap_err();
    assert!(matches!(&error, ClusterError::WrongVersion { made_by, .. } if made_by == "9"), "{error}");
    assert_eq!(fs::read_dir(folder.cluster().join("data")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_the_account_cannot_enter_is_named() {
    let folder = Folder::new();
    let closed = folder.root.join("home");
    layout::make_directory(&closed, 0o700).unwrap();
    let inside = closed.join("cumulo");
    let answer = PrivateCluster::start(&inside, &Settings::default()).await;
    if !nix::unistd::geteuid().is_root() {
        // Without a change of account there is nobody to be kept out.
        return answer.unwrap().stop().await.unwrap();
    }
    let error = answer.unwrap_err();
    assert!(
        matches!(&error, ClusterError::Unsearchable { directory, .. } if *directory == closed),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("may not enter {closed}")), "{error}");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let folder = Folder::new();
    let directory = folder.root.join("x".repeat(100));
    let error = PrivateCluster::start(&directory, &Settings::default()).await.unwrap_err();
    assert!(matches!(error, ClusterError::SocketPathTooLong { .. }), "{error}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

#[tokio::test]
async fn why_postgres_does_not_start_is_in_the_error() {
    let folder = Folder::new();
    folder.start().await.unwrap().stop().await.unwrap();
    fs::remove_file(folder.cluster().join("data/global/pg_control")).unwrap();
    let error = folder.start().await.unwrap_err();
    assert!(
        matches!(&error, ClusterError::Exited { output, .. } if output.contains("pg_control")),
        "{error}"
    );
}

#[test]
fn the_log_stays_bounded() {
    let folder = Folder::new();
    let layout = Layout { root: folder.root.clone() };
    let log = layout.open_log().unwrap();
    log.set_len(3 << 20).unwrap();
    layout.trim_log();
    assert_eq!(layout.log_len(), 3 << 20);
    log.set_len(5 << 20).unwrap();
    layout.trim_log();
    assert_eq!(layout.log_len(), 0);
    // PostgreSQL keeps its descriptor and appends to what is there now.
    std::io::Write::write_all(&mut &log, b"one more line\n").unwrap();
    assert_eq!(layout.log_after(0), "one more line");
}
