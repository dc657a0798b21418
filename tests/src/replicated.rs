//! Two replicas of the API on a PostgreSQL with a standby.

use anyhow::{Result, ensure};

use crate::control::{ControlPlane, Place};
use crate::machines::Machines;
use crate::postgres::Postgres;

const PORTS: [u16; 2] = [5433, 5434];

/// All on one machine.
pub struct Replicated {
    pub replicas: [ControlPlane; 2],
    pub primary: Postgres,
    pub standby: Postgres,
}

/// Runs a test with them. When it fails, the error shows what they said last; when it succeeds, `verify` must find nothing,
/// and they must end without leaving anything.
pub async fn in_replicated_cloud(test: impl AsyncFnOnce(&mut Replicated) -> Result<()>) -> Result<()> {
    let machines = tokio::task::spawn_blocking(|| Machines::start(0)).await??;
    let mut cloud = Replicated::start(&machines).await?;
    let tested = match test(&mut cloud).await {
        Ok(()) => cloud.verify(),
        failed => failed,
    };
    tested.map_err(|error| anyhow::anyhow!("{error:#}\n{}", cloud.log_tails(30)))?;
    drop(cloud);
    machines.finish()
}

impl Replicated {
    async fn start(machines: &Machines) -> Result<Self> {
        let machine = machines.control()?;
        let primary = Postgres::primary(&machine, PORTS[0]).await?;
        let standby = Postgres::standby(&primary, PORTS[1]).await?;
        // The standby first: who is the primary is found out.
        let url = format!("postgres://cumulo@{},{}/cumulo", standby.host(), primary.host());
        let place = |replica| Place { replica, database_url: Some(url.clone()) };
        let first = ControlPlane::start_at(machine.clone(), place(0)).await?;
        let second = ControlPlane::start_at(machine.clone(), place(1)).await?;
        Ok(Self { replicas: [first, second], primary, standby })
    }

    fn verify(&self) -> Result<()> {
        let found = self.replicas[0].findings()?;
        ensure!(found.is_empty(), "{found:#?}");
        Ok(())
    }

    fn log_tails(&self, lines: usize) -> String {
        let servers = [&self.primary, &self.standby].map(|server| server.process.log_tail(lines));
        let replicas = self.replicas.each_ref().map(|replica| replica.api.log_tail(lines));
        servers.concat() + &replicas.concat()
    }
}
