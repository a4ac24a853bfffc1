//! Waiting for conditions, with a deadline.

use std::time::{Duration, Instant};

/// How soon a condition is looked at again: at first, and at most.
const STEP_MIN: Duration = Duration::from_millis(10);
const STEP_MAX: Duration = Duration::from_millis(250);

/// Waits until the condition gives a value.
///
/// # Panics
/// It did not within the time; the message says what was waited for.
pub async fn until<T>(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let (start, mut step) = (Instant::now(), STEP_MIN);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(step).await;
        step = (step * 2).min(STEP_MAX);
    }
}
