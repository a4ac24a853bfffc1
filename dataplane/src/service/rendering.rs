//! Templates are filled in on threads of their own, a few at once: whatever one asks for, nothing else waits
//! for it.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

/// Texts that are filled in at once.
const AT_ONCE: usize = 2;
/// How long one may take, with its wait.
const DEADLINE: Duration = Duration::from_secs(2);

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));

/// Does a piece of work on such a thread. None where it is not done in time; it keeps its place until it is.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    within(&PLACES, DEADLINE, work).await
}

async fn within<T: Send + 'static>(
    places: &Arc<Semaphore>,
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let until = Instant::now() + deadline;
    let place = timeout_at(until, places.clone().acquire_owned()).await.ok()?.ok()?;
    let work = spawn_blocking(move || {
        let _place = place;
        work()
    });
    timeout_at(until, work).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// On one thread, which a work that does not end would hold for ever.
    #[tokio::test]
    async fn work_that_does_not_end_keeps_its_own_place_only() {
        let (places, short) = (Arc::new(Semaphore::new(1)), Duration::from_millis(20));
        let (end, ended) = mpsc::channel::<()>();
        assert_eq!(within(&places, short, move || ended.recv()).await, None, "it is not waited for");
        assert_eq!(within(&places, short, || 1).await, None, "it still has its place");
        drop(end);
        assert_eq!(within(&places, DEADLINE, || 2).await, Some(2));
    }
}
