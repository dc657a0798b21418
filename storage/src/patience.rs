//! Looking at a file system that is gone and may never answer: it is given some seconds, and costs one thread, however often it
//! is asked.

use std::sync::Arc;
use std::time::Duration;

/// How long a file system may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Held by whoever looks at one; one for each.
pub type Turn = Arc<tokio::sync::Mutex<()>>;

/// `None` when it takes too long. It goes on in its thread then, and whoever comes next waits for it.
pub async fn within<T: Send + 'static>(
    patience: Duration,
    turn: Turn,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let worked = async {
        let turn = turn.lock_owned().await;
        let in_turn = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(in_turn).await
    };
    tokio::time::timeout(patience, worked).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_file_system_that_never_answers_costs_some_patience_and_one_thread() {
        let short = Duration::from_millis(20);
        let [hanging, other] = [Turn::default(), Turn::default()];
        let threads = Arc::new(AtomicU32::new(0));
        let (answer, answered) = mpsc::channel::<()>();
        let begun = |threads: &Arc<AtomicU32>| {
            let threads = Arc::clone(threads);
            move || threads.fetch_add(1, Ordering::SeqCst)
        };
        let count = begun(&threads);
        let hang = move || (count(), answered.recv().is_ok());
        assert_eq!(within(short, Arc::clone(&hanging), hang).await, None);
        for _ in 0..3 {
            assert_eq!(within(short, Arc::clone(&hanging), begun(&threads)).await, None);
        }
        assert_eq!(within(PATIENCE, other, || 7).await, Some(7), "no other pool waits");
        assert_eq!(threads.load(Ordering::SeqCst), 1);
        answer.send(()).unwrap();
        assert_eq!(within(PATIENCE, hanging, begun(&threads)).await, Some(1));
    }
}
