//! Where things are, and what the user may change by environment variables.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;

pub(crate) struct Settings {
    pub state: Utf8PathBuf,
    /// REST.
    pub listen: SocketAddr,
    /// Agents of other machines would dial here.
    pub agent_listen: SocketAddr,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self> {
        Ok(Self {
            state: std::env::var("CUMULO_STATE_DIR").unwrap_or_else(|_| "/var/lib/cumulo".to_owned()).into(),
            listen: address("CUMULO_LISTEN", "127.0.0.1:8080")?,
            agent_listen: address("CUMULO_AGENT_LISTEN", "127.0.0.1:8443")?,
        })
    }

    pub(crate) fn url(&self) -> String {
        // Loopback speaks plain HTTP; every other address needs TLS.
        let scheme = if self.listen.ip().is_loopback() { "http" } else { "https" };
        format!("{scheme}://{}", self.listen)
    }

    pub(crate) fn agent_url(&self) -> String {
        format!("https://{}", self.agent_listen)
    }

    pub(crate) fn credentials(&self) -> Utf8PathBuf {
        self.state.join("credentials.json")
    }

    pub(crate) fn api_data(&self) -> Utf8PathBuf {
        self.state.join("api")
    }

    pub(crate) fn agent_state(&self) -> Utf8PathBuf {
        self.state.join("agent")
    }

    pub(crate) fn log(&self, service: &str) -> Utf8PathBuf {
        self.state.join("logs").join(format!("{service}.log"))
    }

    /// Makes the folders. PostgreSQL and QEMU run as other users, so the way to their files is open.
    pub(crate) fn make_folders(&self) -> Result<()> {
        for dir in [self.state.clone(), self.state.join("logs")] {
            std::fs::create_dir_all(&dir).with_context(|| format!("make {dir}"))?;
        }
        Ok(())
    }
}

fn address(variable: &str, default: &str) -> Result<SocketAddr> {
    let text = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    text.parse().with_context(|| format!("{variable}={text} is not an address like {default}"))
}
