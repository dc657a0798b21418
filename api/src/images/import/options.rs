//! What the operator allows.

use std::time::Duration;

use camino::Utf8PathBuf;
use ipnet::IpNet;

/// How images are imported.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportOptions {
    /// Networks, separated by commas, that images may be imported from although they are private, like that of a
    /// mirror in the LAN. Everything in them that speaks HTTP can be asked for a file by every tenant.
    #[arg(long, env = "CUMULO_IMPORT_NETWORKS", value_delimiter = ',', value_name = "CIDR,…")]
    pub import_networks: Vec<IpNet>,
    /// Allow plain HTTP too. Whoever is on the way can then exchange a file that is imported without `sha256`.
    #[arg(long, env = "CUMULO_IMPORT_HTTP")]
    pub import_http: bool,
    /// Certificates of further authorities, PEM, that servers of images may have theirs from.
    #[arg(long, env = "CUMULO_IMPORT_CA", value_name = "FILE")]
    pub import_ca: Option<Utf8PathBuf>,
    /// Imports that this server does at the same time; 0 leaves them to others.
    #[arg(long, env = "CUMULO_IMPORTS_AT_ONCE", default_value_t = 4)]
    pub imports_at_once: u16,
    /// The longest import, in minutes.
    #[arg(long, env = "CUMULO_IMPORT_MINUTES", default_value_t = 360,
        value_parser = clap::value_parser!(u32).range(1..=10080))]
    pub import_minutes: u32,
    /// A source that sends nothing, or less than 1 KiB per second, for so many seconds is given up.
    #[arg(long, env = "CUMULO_IMPORT_SILENCE_SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub import_silence_seconds: u32,
}

impl ImportOptions {
    pub(super) fn silence(&self) -> Duration {
        Duration::from_secs(self.import_silence_seconds.into())
    }

    pub(super) fn longest(&self) -> time::Duration {
        time::Duration::minutes(self.import_minutes.into())
    }
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            import_networks: Vec::new(),
            import_http: false,
            import_ca: None,
            imports_at_once: 4,
            import_minutes: 360,
            import_silence_seconds: 60,
        }
    }
}
