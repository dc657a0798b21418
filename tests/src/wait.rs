//! Waiting for conditions instead of sleeping.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What one look may take at least, however short the wait.
const LONGEST_CHECK: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until `check` returns `Some`; the error names `what` and how long it was waited for.
pub async fn wait_for<T>(
    what: impl std::fmt::Display,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    eventually(what, limit, async || check().await.ok_or_else(|| anyhow::anyhow!("not yet"))).await
}

/// Waits until `check` succeeds; the error holds the last failure. A check that never comes back fails, too.
pub async fn eventually<T>(
    what: impl std::fmt::Display,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let checked = tokio::time::timeout(limit.max(LONGEST_CHECK), check()).await;
        match checked.unwrap_or_else(|_| bail!("a look takes too long")) {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() >= limit => {
                bail!("waited {:.0?} for {what}: {error:#}", started.elapsed());
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_value_or_the_last_reason() {
        let mut calls = 0;
        let found = wait_for("three", Duration::from_secs(5), async || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(found.await.unwrap(), 3);

        let never = eventually("rain", Duration::ZERO, async || -> Result<()> { bail!("blue sky") });
        let reason = never.await.unwrap_err().to_string();
        assert!(reason.contains("rain") && reason.contains("blue sky"), "{reason}");
    }
}
