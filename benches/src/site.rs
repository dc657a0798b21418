//! The running cloud.

use anyhow::{Context, Result, ensure};
use lab::{Cloud, Credentials};

/// Where `make up` keeps it.
pub(crate) struct Site {
    pub state: String,
    pub cloud: Cloud,
}

impl Site {
    pub(crate) async fn find() -> Result<Self> {
        let state = std::env::var("CUMULO_STATE_DIR").unwrap_or_else(|_| "/var/lib/cumulo".to_owned());
        let listen = std::env::var("CUMULO_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
        let credentials = std::fs::read(format!("{state}/credentials.json"))
            .context("there is no cloud on this machine; run `make up` first")?;
        let credentials: Credentials = serde_json::from_slice(&credentials)?;
        let cloud = Cloud::login(&format!("http://{listen}"), credentials)
            .await
            .context("the cloud does not answer; run `make up` first")?;
        Ok(Self { state, cloud })
    }

    /// What asks as often as it can measures nothing when the cloud holds it back.
    pub(crate) async fn require_no_rate_limit(&self) -> Result<()> {
        let answer = self.cloud.get("/v1/projects").await?;
        let limited = answer.headers.contains_key("ratelimit");
        ensure!(!limited, "the cloud limits how often it is asked; run `CUMULO_RATE_LIMIT=0 make up` first");
        answer.success().map(drop)
    }
}
