//! Documents for hosts that ask at the same time, as all hosts of a project do after a change.

use std::sync::{Mutex, PoisonError};

use protocol::HostId;
use protocol::agent::HostNetwork;
use sqlx::PgPool;
use tokio::sync::oneshot;

use super::host::Rows;
use crate::http::{ApiError, ErrorCode};

/// Hosts that one reading is for.
const TOGETHER: usize = 64;

type Answer = Result<HostNetwork, ApiError>;

/// Reads for one batch of hosts at a time: whoever asks meanwhile is in the next one. Nothing is kept.
#[derive(Default)]
pub struct Documents {
    asked: Mutex<Vec<(HostId, oneshot::Sender<Answer>)>>,
    /// Who has it takes a batch and answers it.
    turn: tokio::sync::Mutex<()>,
}

impl Documents {
    /// The document of this host as of some moment after the call. The reading takes a connection, so the caller should
    /// hold none.
    pub(crate) async fn of(&self, pool: &PgPool, host: HostId) -> Answer {
        loop {
            let (sender, mut answer) = oneshot::channel();
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((host, sender));
            loop {
                tokio::select! {
                    biased;
                    answered = &mut answer => match answered {
                        Ok(answer) => return answer,
                        // Whoever had the turn has gone, and its batch with it.
                        Err(_) => break,
                    },
                    _turn = self.turn.lock() => self.answer_some(pool).await,
                }
            }
        }
    }

    async fn answer_some(&self, pool: &PgPool) {
        let batch: Vec<_> = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let some = asked.len().min(TOGETHER);
            asked.drain(..some).filter(|(_, sender)| !sender.is_closed()).collect()
        };
        if batch.is_empty() {
            return;
        }
        let hosts: Vec<_> = batch.iter().map(|(host, _)| *host).collect();
        match read(pool, &hosts).await {
            Ok(rows) => {
                for (host, sender) in batch {
                    // Nobody may wait any more.
                    drop(sender.send(rows.document(host)));
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                let mut error = Some(error);
                for (_, sender) in batch {
                    let again = || ApiError::new(ErrorCode::DatabaseUnavailable).retry_after(1);
                    drop(sender.send(Err(error.take().unwrap_or_else(again))));
                }
            }
        }
    }
}

async fn read(pool: &PgPool, hosts: &[HostId]) -> Result<Rows, ApiError> {
    let mut tx = crate::database::begin_reading(pool).await?;
    let rows = Rows::read(&mut tx, hosts).await?;
    tx.commit().await?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCloud;

    #[tokio::test]
    async fn whoever_asks_is_answered_although_others_give_up() {
        let cloud = TestCloud::start().await;
        cloud.furnish().await;
        let (documents, pool) = (Documents::default(), &cloud.app.pool);
        let host = cloud.join_host("host-1").await.id;
        let alone = documents.of(pool, host).await.unwrap();
        let turn = documents.turn.lock().await;
        let mut gives_up = Box::pin(documents.of(pool, host));
        assert!(futures_util::poll!(&mut gives_up).is_pending());
        let mut waits: Vec<_> = (0..TOGETHER * 2).map(|_| Box::pin(documents.of(pool, host))).collect();
        for asked in &mut waits {
            assert!(futures_util::poll!(asked).is_pending());
        }
        drop(turn);
        // It has the turn, and goes with the first batch.
        while documents.asked.lock().unwrap().len() > TOGETHER + 1 {
            assert!(futures_util::poll!(&mut gives_up).is_pending());
            tokio::task::yield_now().await;
        }
        drop(gives_up);
        for answer in futures_util::future::join_all(waits).await {
            assert_eq!(answer.unwrap(), alone);
        }
        assert!(documents.asked.lock().unwrap().is_empty());
    }
}
