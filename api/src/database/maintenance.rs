//! PostgreSQL's own programs beside a database of ours: `pg_dump` and `pg_restore`.

use camino::Utf8PathBuf;
use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::process::Command;

use super::private_cluster::{ClusterError, PrivateCluster, Settings};
use super::servers::Servers;
use super::{Location, OpenError, connect};

/// Of Debian's package ca-certificates.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The PostgreSQL of a control plane as it is: reaching it changes no schema.
pub(crate) struct Maintenance {
    /// How the control plane connects.
    pub(crate) control_plane: PgConnectOptions,
    /// How to connect as whoever makes and renames databases.
    pub(crate) administrator: PgConnectOptions,
    programs: Utf8PathBuf,
    /// The one that was started for this, or that is kept from others meanwhile.
    cluster: Option<PrivateCluster>,
}

impl Maintenance {
    /// Whether a control plane runs on it or not.
    ///
    /// # Errors
    /// [`OpenError::NoCluster`] when there is none.
    pub(crate) async fn beside(location: &Location) -> Result<Self, OpenError> {
        match Self::alone(location).await {
            Ok(mut reached) => {
                reached.cluster.iter_mut().for_each(PrivateCluster::share);
                Ok(reached)
            }
            Err(OpenError::Cluster(ClusterError::InUse { directory })) => {
                let control_plane = PrivateCluster::options_of(&directory);
                let programs = PrivateCluster::programs_of(&directory)?;
                Ok(Self { administrator: control_plane.clone(), control_plane, programs, cluster: None })
            }
            failed => failed,
        }
    }

    /// The same, but a private one is kept from every control plane meanwhile.
    ///
    /// # Errors
    /// [`ClusterError::InUse`] when a control plane runs on a private one; as [`Self::beside`].
    pub(crate) async fn alone(location: &Location) -> Result<Self, OpenError> {
        if let Some(url) = &location.database_url {
            return Self::server(url).await;
        }
        let cluster = PrivateCluster::start(&location.private()?, &Settings::default()).await?;
        Ok(Self {
            control_plane: cluster.connect_options(),
            administrator: cluster.superuser_options("postgres"),
            programs: cluster.programs(),
            cluster: Some(cluster),
        })
    }

    async fn server(url: &str) -> Result<Self, OpenError> {
        let servers = Servers::parse(url)?;
        let (options, mut connection) = connect::patiently(&servers).await.map_err(OpenError::Connect)?;
        let version = sqlx::query_scalar("SELECT current_setting('server_version_num')::int / 10000");
        let major: i32 = version.fetch_one(&mut connection).await.map_err(OpenError::Connect)?;
        connection.close().await.map_err(OpenError::Connect)?;
        let programs = PrivateCluster::programs_for(major.unsigned_abs())?;
        let administrator = options.clone().database("postgres");
        Ok(Self { control_plane: options, administrator, programs, cluster: None })
    }

    /// Whether no control plane ran on it.
    pub(crate) fn is_started(&self) -> bool {
        self.cluster.is_some()
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        let options = &self.control_plane;
        format!(
            "{} at {}:{}",
            options.get_database().unwrap_or(options.get_username()),
            host(options),
            options.get_port()
        )
    }

    /// A program that connects to `options`. What it needs for that is in its environment, which others cannot read, as they can
    /// read its arguments.
    pub(crate) fn program(&self, name: &str, options: &PgConnectOptions) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").kill_on_drop(true);
        command.envs(environment(options));
        command
    }

    /// Leaves PostgreSQL as it was found: stops it if it was started for this. That it does not stop undoes nothing of what was done.
    pub(crate) async fn leave(self) {
        let started = self.cluster.filter(|cluster| !cluster.is_adopted());
        if let Some(cluster) = started
            && let Err(error) = cluster.stop().await
        {
            tracing::warn!(%error, "PostgreSQL, which was started for this, is left");
        }
    }
}

fn host(options: &PgConnectOptions) -> String {
    options.get_socket().map_or(options.get_host().to_owned(), |path| path.display().to_string())
}

/// (PostgreSQL, 34.15 "Environment Variables")
fn environment(options: &PgConnectOptions) -> Vec<(&'static str, String)> {
    // Only its password and what follows the `?` are asked of the URL, which has no place for each host and name.
    let url = options.clone().host("localhost").username("nobody").to_url_lossy();
    let mut variables = vec![
        ("PGHOST", host(options)),
        ("PGPORT", options.get_port().to_string()),
        ("PGUSER", options.get_username().to_owned()),
        ("PGDATABASE", options.get_database().unwrap_or(options.get_username()).to_owned()),
    ];
    if let Some(password) = url.password() {
        variables.push(("PGPASSWORD", percent_decode_str(password).decode_utf8_lossy().into_owned()));
    }
    for (key, value) in url.query_pairs() {
        let variable = match &*key {
            "sslmode" => "PGSSLMODE",
            "sslrootcert" => "PGSSLROOTCERT",
            "sslcert" => "PGSSLCERT",
            "sslkey" => "PGSSLKEY",
            _ => continue,
        };
        // As sqlx shows a certificate that is in a file.
        variables.push((variable, value.strip_prefix("file: ").unwrap_or(&value).to_owned()));
    }
    // As sqlx, which trusts whom the system trusts; libpq asks for a file.
    let verifies = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    if verifies && !variables.iter().any(|(name, _)| *name == "PGSSLROOTCERT") {
        variables.push(("PGSSLROOTCERT", SYSTEM_ROOTS.to_owned()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_where_to_connect_in_their_environment() {
        let told = |url: &str| environment(&url.parse().unwrap());
        let all = told(
            "postgres://cumulo:a%40%2Fb@db.example.net:6000/cloud?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        );
        let expected = [
            ("PGHOST", "db.example.net"),
            ("PGPORT", "6000"),
            ("PGUSER", "cumulo"),
            ("PGDATABASE", "cloud"),
            ("PGPASSWORD", "a@/b"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/etc/ca.pem"),
        ];
        assert_eq!(all, expected.map(|(name, value)| (name, value.to_owned())));
        let socket = told("postgres://cumulo@localhost/cloud?host=/run/here");
        assert!(socket.contains(&("PGHOST", "/run/here".to_owned())), "{socket:?}");
        let options: PgConnectOptions = "postgres://u:p@localhost/cloud?sslmode=verify-ca".parse().unwrap();
        let told = environment(&options.host("2001:db8::2"));
        for (name, value) in [("PGHOST", "2001:db8::2"), ("PGPASSWORD", "p"), ("PGSSLROOTCERT", SYSTEM_ROOTS)]
        {
            assert!(told.contains(&(name, value.to_owned())), "{told:?}");
        }
    }
}
