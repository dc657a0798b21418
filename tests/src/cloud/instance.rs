//! One instance and what a user does with it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Answer, Project};
use crate::wait;

#[derive(Clone)]
pub struct Instance {
    pub project: Project,
    pub id: String,
    pub name: String,
}

impl Instance {
    pub fn path(&self, rest: &str) -> String {
        self.project.path(&format!("/instances/{}{rest}", self.id))
    }

    pub async fn get(&self) -> Result<Value> {
        self.project.cloud.get(&self.path("")).await?.success()
    }

    pub async fn action(&self, verb: &str, body: Value) -> Result<Value> {
        self.project.cloud.post(&self.path(&format!("/{verb}")), body).await?.success()
    }

    pub async fn start(&self) -> Result<Value> {
        self.action("start", json!({})).await
    }

    pub async fn stop(&self) -> Result<Value> {
        self.action("stop", json!({})).await
    }

    pub async fn delete(&self) -> Result<Answer> {
        self.project.cloud.delete(&self.path("")).await
    }

    /// Waits for a state. `error` ends the wait at once, unless it is what is waited for.
    pub async fn wait_for_state(&self, state: &str, limit: Duration) -> Result<Value> {
        let mut failed = None;
        let reached = wait::eventually(format!("{} to be {state}", self.name), limit, async || {
            // Held by the server until something settles; a dying API is waited out.
            let instance = self.project.cloud.get(&self.path("?wait=10")).await?.success()?;
            if instance["state"] == "error" && state != "error" {
                failed = Some(instance);
                return Ok(Value::Null);
            }
            let [now, reason, detail] = ["state", "state_reason", "state_detail"].map(|key| &instance[key]);
            ensure!(now == state, "it is {now}: {reason}, {detail}");
            Ok(instance)
        })
        .await?;
        match failed {
            Some(instance) => bail!("{} is in error instead of {state}: {instance}", self.name),
            None => Ok(reached),
        }
    }

    /// Waits until the instance is not found any more.
    pub async fn wait_gone(&self, limit: Duration) -> Result<()> {
        wait::eventually(format!("{} to be gone", self.name), limit, async || {
            let answer = self.project.cloud.get(&self.path("?wait=10")).await?;
            ensure!(answer.status == 404, "it answers {}: {}", answer.status, answer.body["state"]);
            Ok(())
        })
        .await
    }

    /// The serial console's log.
    pub async fn serial(&self) -> Result<String> {
        let answer = self.project.cloud.get(&self.path("/serial")).await?;
        ensure!(answer.status == 200, "{} answers {}: {}", answer.asked, answer.status, answer.text);
        Ok(answer.text)
    }

    /// Waits until the serial console shows `text`; returns all of it.
    pub async fn wait_for_serial(&self, text: &str, limit: Duration) -> Result<String> {
        self.wait_for_serial_times(text, 1, limit).await
    }

    /// Waits until the serial console shows `text` so many times: its log goes on over a stop and a start.
    pub async fn wait_for_serial_times(&self, text: &str, times: usize, limit: Duration) -> Result<String> {
        let mut last = String::new();
        let what = format!("{text:?} on the serial console of {}", self.name);
        let seen = wait::eventually(what, limit, async || {
            last = self.serial().await?;
            let found = last.matches(text).count();
            ensure!(found >= times, "it is there {found} times, not {times}");
            Ok(())
        });
        let seen = seen.await;
        seen.with_context(|| format!("the console says at its end:\n{}", tail(&last, 30)))?;
        Ok(last)
    }

    /// Waits until an operation ends; returns it.
    pub async fn wait_operation(&self, operation: &str, limit: Duration) -> Result<Value> {
        let path = self.project.path(&format!("/operations/{operation}?wait=10"));
        wait::eventually(format!("operation {operation}"), limit, async || {
            let operation = self.project.cloud.get(&path).await?.success()?;
            let ended =
                ["succeeded", "failed", "cancelled"].iter().any(|status| operation["status"] == *status);
            ensure!(ended, "it is {}", operation["status"]);
            Ok(operation)
        })
        .await
    }
}

fn tail(text: &str, lines: usize) -> &str {
    let start = text.rmatch_indices('\n').nth(lines).map_or(0, |(at, _)| at + 1);
    &text[start..]
}
