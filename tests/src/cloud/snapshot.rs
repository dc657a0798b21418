//! One snapshot and what a user does with it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Answer, Project};
use crate::wait;

#[derive(Clone)]
pub struct Snapshot {
    pub project: Project,
    pub id: String,
    pub name: String,
}

impl Snapshot {
    pub fn path(&self, rest: &str) -> String {
        self.project.path(&format!("/snapshots/{}{rest}", self.id))
    }

    pub async fn get(&self) -> Result<Value> {
        self.project.cloud.get(&self.path("")).await?.success()
    }

    pub async fn restore(&self) -> Result<Answer> {
        self.restore_with(json!({})).await
    }

    pub async fn restore_with(&self, body: Value) -> Result<Answer> {
        self.project.cloud.post(&self.path("/restore"), body).await
    }

    /// Waits until it is there or has failed, and says which.
    pub async fn wait_for_end(&self, limit: Duration) -> Result<Value> {
        wait::eventually(format!("{} to be taken or not", self.name), limit, async || {
            let snapshot = self.get().await?;
            ensure!(snapshot["state"] != "creating", "it is {snapshot}");
            Ok(snapshot)
        })
        .await
    }

    pub async fn delete(&self) -> Result<Answer> {
        self.project.cloud.delete(&self.path("")).await
    }

    pub async fn wait_for_state(&self, state: &str, limit: Duration) -> Result<Value> {
        wait::eventually(format!("{} to be {state}", self.name), limit, async || {
            let snapshot = self.get().await?;
            ensure!(snapshot["state"] == state, "it is {snapshot}");
            Ok(snapshot)
        })
        .await
    }

    /// Waits until the snapshot is not found any more.
    pub async fn wait_gone(&self, limit: Duration) -> Result<()> {
        wait::eventually(format!("{} to be gone", self.name), limit, async || {
            let answer = self.project.cloud.get(&self.path("")).await?;
            ensure!(answer.status == 404, "it answers {}: {}", answer.status, answer.body["state"]);
            Ok(())
        })
        .await
    }
}
