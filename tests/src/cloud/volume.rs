//! One volume and what a user does with it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Answer, Instance, Project};
use crate::wait;

#[derive(Clone)]
pub struct Volume {
    pub project: Project,
    pub id: String,
    pub name: String,
    /// Guests find it by this.
    pub serial: String,
}

impl Volume {
    pub fn path(&self) -> String {
        self.project.path(&format!("/volumes/{}", self.id))
    }

    pub async fn get(&self) -> Result<Value> {
        self.project.cloud.get(&self.path()).await?.success()
    }

    pub async fn change(&self, patch: Value) -> Result<Value> {
        self.project.cloud.patch(&self.path(), patch).await?.success()
    }

    pub async fn delete(&self) -> Result<Answer> {
        self.project.cloud.delete(&self.path()).await
    }

    /// Asks for it in an instance; returns as soon as that is answered.
    pub async fn attach_to(&self, instance: &Instance) -> Result<Answer> {
        self.project.cloud.post(&instance.path("/attach_volume"), json!({"volume": self.id})).await
    }

    pub async fn detach_from(&self, instance: &Instance) -> Result<Answer> {
        self.project.cloud.post(&instance.path("/detach_volume"), json!({"volume": self.id})).await
    }

    pub async fn wait_for_state(&self, state: &str, limit: Duration) -> Result<Value> {
        wait::eventually(format!("{} to be {state}", self.name), limit, async || {
            let volume = self.get().await?;
            ensure!(volume["state"] == state, "it is {volume}");
            Ok(volume)
        })
        .await
    }

    /// Waits until the volume is not found any more.
    pub async fn wait_gone(&self, limit: Duration) -> Result<()> {
        wait::eventually(format!("{} to be gone", self.name), limit, async || {
            let answer = self.project.cloud.get(&self.path()).await?;
            ensure!(answer.status == 404, "it answers {}: {}", answer.status, answer.body["state"]);
            Ok(())
        })
        .await
    }
}
