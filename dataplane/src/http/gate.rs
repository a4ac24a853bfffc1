//! Bounds what is handled at once, and refuses early: a request that would only wait in a queue that does not get shorter is told so at once.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::error::Problem;

/// Writes of one pool that are under way at once: enough to keep a store busy, and few enough that each is done in a bounded time.
const WRITES_MAX: usize = 64;
/// Writes of one pool that wait.
const WAITING_MAX: usize = 1_024;
/// How long a write may wait in a burst.
const BURST: Duration = Duration::from_millis(500);
/// How long a write may wait while there has been a queue for longer than a burst: that is overload, and waiting helps nobody.
const STANDING: Duration = Duration::from_millis(20);

/// Bounds the requests that are handled at once, over all pools.
pub struct Gate {
    places: Semaphore,
    /// How long the body of a request may take.
    pub deadline: Duration,
    out_of_memory: AtomicBool,
}

/// Bounds the writes of one pool.
pub struct WriteGate {
    places: Semaphore,
    waiting: AtomicUsize,
    /// Since when some write or other has been waiting.
    queue_since: Mutex<Option<Instant>>,
}

impl Gate {
    /// A gate for so many requests at once, whose bodies arrive within `deadline`.
    pub fn new(requests_max: usize, deadline: Duration) -> Self {
        Self { places: Semaphore::new(requests_max), deadline, out_of_memory: AtomicBool::new(false) }
    }

    /// Refuses writes, or lets them in again.
    pub fn set_out_of_memory(&self, out: bool) {
        self.out_of_memory.store(out, Ordering::Relaxed);
    }

    /// A place for a request.
    ///
    /// # Errors
    /// 503: there is none.
    pub fn enter(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.places.try_acquire().map_err(|_| overloaded("too many requests at once: try again"))
    }

    /// Whether there is memory for writes.
    ///
    /// # Errors
    /// 503: there is not.
    pub fn check_memory(&self) -> Result<(), Problem> {
        match self.out_of_memory.load(Ordering::Relaxed) {
            true => Err(Problem::unavailable("memory", "the process is at its limit of memory: try again")),
            false => Ok(()),
        }
    }
}

impl Default for WriteGate {
    fn default() -> Self {
        Self { places: Semaphore::new(WRITES_MAX), waiting: AtomicUsize::new(0), queue_since: Mutex::default() }
    }
}

impl WriteGate {
    /// A place for a write, after a short wait at most.
    ///
    /// # Errors
    /// 503: too many wait, or for too long.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, Problem> {
        if let Ok(place) = self.places.try_acquire() {
            *self.queue_since.lock() = None;
            return Ok(place);
        }
        let since = *self.queue_since.lock().get_or_insert_with(Instant::now);
        let wait = if since.elapsed() > BURST { STANDING } else { BURST };
        let _waiting = Waiting::among(&self.waiting)?;
        match timeout(wait, self.places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(overloaded("more writes come than can be done: try again")),
        }
    }
}

/// One of those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize) -> Result<Self, Problem> {
        let waiting = Self(count);
        match count.fetch_add(1, Ordering::AcqRel) < WAITING_MAX {
            true => Ok(waiting),
            false => Err(overloaded("too many writes wait: try again")),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn overloaded(detail: &str) -> Problem {
    Problem::unavailable("overloaded", detail)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_burst_waits_and_overload_is_refused_early() {
        let gate = WriteGate::default();
        let work = async |time: Duration| {
            let start = Instant::now();
            match gate.enter().await {
                Ok(_place) => {
                    tokio::time::sleep(time).await;
                    true
                }
                Err(_) => {
                    assert!(start.elapsed() < BURST * 4, "refused early: {:?}", start.elapsed());
                    false
                }
            }
        };
        let burst = join_all((0..4 * WRITES_MAX).map(|_| work(Duration::from_millis(20)))).await;
        assert!(burst.into_iter().all(|done| done), "a burst of four rounds is absorbed");

        // writes that take long, and more of them all the time
        let held = join_all((0..WRITES_MAX).map(|_| work(Duration::from_secs(3))));
        let late = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(!work(Duration::ZERO).await, "no place came free");
            let start = Instant::now();
            assert!(!work(Duration::ZERO).await);
            assert!(start.elapsed() < BURST, "a queue that stands is not joined: {:?}", start.elapsed());
        };
        tokio::join!(held, late);
        assert!(work(Duration::ZERO).await, "all is well again at once");
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn those_that_wait_are_bounded() {
        let gate = WriteGate::default();
        let held = gate.places.try_acquire_many(WRITES_MAX as u32).unwrap();
        let answers = join_all((0..WAITING_MAX + 10).map(|_| gate.enter())).await;
        assert!(answers.iter().all(Result::is_err));
        drop(held);
        assert!(gate.enter().await.is_ok());
    }
}
