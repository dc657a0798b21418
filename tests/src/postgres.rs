//! A PostgreSQL that an operator runs: a primary, or a standby of one.

use std::time::Duration;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;

use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::wait;

/// The programs from the distribution, in a folder for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// PostgreSQL refuses to run as root.
const AS_POSTGRES: [&str; 6] = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"];
/// Under which name a standby is waited for.
const STANDBY: &str = "standby";
const START: Duration = Duration::from_secs(30);

pub struct Postgres {
    pub process: Daemon,
    machine: Machine,
    data: String,
    port: u16,
}

impl Postgres {
    /// A primary with an empty database `cumulo`, whose owner needs no password, for what runs on the same machine.
    pub(crate) async fn primary(machine: &Machine, port: u16) -> Result<Self> {
        let mut server = Self::at(machine, port)?;
        let arguments =
            ["--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--pgdata", &server.data];
        server.run("initdb", &arguments)?;
        server.start().await?;
        server.sql("CREATE ROLE cumulo LOGIN")?;
        server.sql("CREATE DATABASE cumulo OWNER cumulo")?;
        Ok(server)
    }

    /// A copy that follows the primary, which from now on acknowledges what both have.
    pub(crate) async fn standby(primary: &Self, port: u16) -> Result<Self> {
        let mut server = Self::at(&primary.machine, port)?;
        let from = format!("host=127.0.0.1 port={} user=postgres application_name={STANDBY}", primary.port);
        server.run(
            "pg_basebackup",
            &["--write-recovery-conf", "--checkpoint", "fast", "--dbname", &from, "--pgdata", &server.data],
        )?;
        server.start().await?;
        primary.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"))?;
        primary.sql("SELECT pg_reload_conf()")?;
        wait::eventually("the standby to be waited for", START, async || {
            let state = primary.sql("SELECT sync_state FROM pg_stat_replication")?;
            anyhow::ensure!(state == "sync", "it is {state:?}");
            Ok(())
        })
        .await?;
        Ok(server)
    }

    fn at(machine: &Machine, port: u16) -> Result<Self> {
        let data = format!("/var/lib/cumulo/postgresql-{port}");
        let folder = machine.outside(&data);
        std::fs::create_dir(&folder).with_context(|| format!("make {folder}"))?;
        machine.run("chown", &["postgres:", &data])?;
        machine.run("chmod", &["700", &data])?;
        let (inside, program, of) = (machine.clone(), program("postgres")?, data.clone());
        let log = machine.dir.join(format!("postgresql-{port}.log"));
        let process = Daemon::new("PostgreSQL", log, move || {
            let mut command = inside.command("setpriv");
            command.args(AS_POSTGRES).args([program.as_str(), "-D", &of, "-p", &port.to_string()]);
            // What is killed here is a process, not a machine.
            command.args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=off",
            ]);
            command.args(["-c", "hot_standby=on"]);
            command
        });
        Ok(Self { process, machine: machine.clone(), data, port })
    }

    /// Its part of the address of the database.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub async fn start(&mut self) -> Result<()> {
        self.process.start().await?;
        let answers =
            wait::eventually("PostgreSQL to answer", START, async || self.sql("SELECT 1").map(drop));
        answers.await.with_context(|| self.process.log_tail(20))
    }

    /// Makes the standby the primary, which waits for nobody.
    pub fn promote(&self) -> Result<()> {
        self.sql("ALTER SYSTEM RESET synchronous_standby_names").ok();
        self.sql("SELECT pg_promote()").map(drop)
    }

    fn sql(&self, statement: &str) -> Result<String> {
        let port = self.port.to_string();
        let arguments = ["-h", "127.0.0.1", "-p", &port, "-d", "postgres", "-XAtqc", statement];
        self.run("psql", &arguments).map(|said| said.trim().to_owned())
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let program = program(name)?;
        let all: Vec<&str> =
            AS_POSTGRES.into_iter().chain([program.as_str()]).chain(arguments.iter().copied()).collect();
        self.machine.output("setpriv", &all)
    }
}

fn program(name: &str) -> Result<Utf8PathBuf> {
    let versions =
        camino::Utf8Path::new(VERSIONS).read_dir_utf8().with_context(|| format!("read {VERSIONS}"))?;
    let mut found: Vec<(u32, Utf8PathBuf)> = versions
        .flatten()
        .filter_map(|version| {
            Some((version.file_name().parse().ok()?, version.path().join("bin").join(name)))
        })
        .filter(|(_, program)| program.exists())
        .collect();
    found.sort();
    found.pop().map(|(_, program)| program).with_context(|| format!("no {name} below {VERSIONS}"))
}
