//! Bounds what is handled at once, and refuses early: a request that would only wait in a queue that does not
//! get shorter is not let into it. A refused write is told so after a pause, so that clients that ask again
//! at once leave the processor to the writes that are served.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};

use crate::problem::Problem;
use model::budget::Budgets;

/// Writes of one pool that are under way at once: enough that some are prepared while others are committed
/// together, and few enough that each is done in a bounded time.
const WRITES_MAX: usize = 128;
/// Writes of one pool that wait in a burst.
const WAITING_MAX: usize = 1_024;
/// Writes of one pool that wait while there has been a queue for longer than a burst: that is overload, where
/// waiting helps nobody. So many that places are taken again at once when a group commit makes them free.
const STANDING_MAX: usize = 64;
/// How long a write may wait.
const BURST: Duration = Duration::from_millis(500);
/// How long a refusal is held back at least. Told at once, clients that ask again at once would take the
/// processor from the writes that are served.
const PAUSE: Duration = Duration::from_millis(400);
/// The pause for each refusal that is held back already, where that is longer: at most 1,000 a second are
/// told, and asked again, which costs about a twentieth of one processor. With the most that are held back it
/// is eight seconds, less than clients wait for an answer.
const PAUSE_EACH: Duration = Duration::from_millis(1);
/// Refusals that are held back at once; further ones are told at once.
const PAUSED_MAX: usize = 8_192;

/// The places that a request holds: among all, and among the writes of its pool.
pub type Places<'a> = [Option<SemaphorePermit<'a>>; 2];

/// Bounds the requests that are handled at once, over all pools.
pub struct Gate {
    places: Semaphore,
    /// How long the body of a request may take.
    pub deadline: Duration,
    /// What requests and answers may hold, together with those of other gates.
    pub budgets: Budgets,
    out_of_memory: AtomicBool,
}

/// Since when writes have been waiting again and again.
#[derive(Clone, Copy)]
struct Queue {
    since: Instant,
    last: Instant,
}

/// Bounds the writes of one pool.
pub struct WriteGate {
    places: Semaphore,
    waiting: AtomicUsize,
    paused: AtomicUsize,
    queue: Mutex<Queue>,
}

impl Gate {
    /// A gate for so many requests at once, whose bodies arrive within `deadline`.
    pub fn new(requests_max: usize, deadline: Duration, budgets: Budgets) -> Self {
        Self {
            places: Semaphore::new(requests_max),
            deadline,
            budgets,
            out_of_memory: AtomicBool::new(false),
        }
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
            true => Err(Problem::overload("memory", "the process is at its limit of memory: try again")),
            false => Ok(()),
        }
    }
}

impl Default for WriteGate {
    fn default() -> Self {
        Self {
            places: Semaphore::new(WRITES_MAX),
            waiting: AtomicUsize::new(0),
            paused: AtomicUsize::new(0),
            queue: Mutex::new(Queue { since: Instant::now(), last: Instant::now() }),
        }
    }
}

impl WriteGate {
    /// A place for a write, after a short wait at most.
    ///
    /// # Errors
    /// 503: too many wait, which is told after a pause, or it waited for too long.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, Problem> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let most = if self.queue.lock().stands(Instant::now()) { STANDING_MAX } else { WAITING_MAX };
        if let Some(_waiting) = Counted::among(&self.waiting, most) {
            if let Ok(Ok(place)) = timeout(BURST, self.places.acquire()).await {
                return Ok(place);
            }
        } else if let Some(paused) = Counted::among(&self.paused, PAUSED_MAX) {
            sleep(PAUSE.max(PAUSE_EACH * paused.before as u32)).await;
        }
        Err(overloaded("more writes come than can be done: try again"))
    }
}

impl Queue {
    /// Notes that a write has to wait; says whether that has been so for longer than a burst. A queue that
    /// was empty for as long begins anew.
    fn stands(&mut self, now: Instant) -> bool {
        if now.duration_since(self.last) > BURST {
            self.since = now;
        }
        self.last = now;
        now.duration_since(self.since) > BURST
    }
}

/// One of those that are counted.
struct Counted<'a> {
    count: &'a AtomicUsize,
    /// How many there were before.
    before: usize,
}

impl<'a> Counted<'a> {
    /// One more, unless there are so many.
    fn among(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let counted = Self { count, before: count.fetch_add(1, Ordering::AcqRel) };
        (counted.before < most).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

fn overloaded(detail: &str) -> Problem {
    Problem::overload("overloaded", detail)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[test]
    fn a_queue_that_was_empty_begins_anew() {
        let start = Instant::now();
        let mut queue = Queue { since: start, last: start };
        let at = |bursts: f64| start + BURST.mul_f64(bursts);
        assert!(!queue.stands(at(0.9)));
        assert!(queue.stands(at(1.1)));
        assert!(queue.stands(at(2.0)), "an instant without one that waits changes nothing");
        assert!(!queue.stands(at(3.1)));
    }

    #[tokio::test]
    async fn a_burst_waits_and_overload_is_refused_early() {
        let gate = WriteGate::default();
        let work = async |time: Duration| {
            let start = Instant::now();
            match gate.enter().await {
                Ok(_place) => {
                    sleep(time).await;
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
        let late = async |after: Duration| {
            sleep(after).await;
            assert!(!work(Duration::ZERO).await, "no place came free");
        };
        let too_late = async {
            sleep(BURST + Duration::from_millis(50)).await;
            // a queue that stands is joined by few, and the others are told at once
            let waiting: Vec<_> =
                (0..STANDING_MAX).map(|_| Counted::among(&gate.waiting, usize::MAX)).collect();
            let paused: Vec<_> = (0..PAUSED_MAX).map(|_| Counted::among(&gate.paused, PAUSED_MAX)).collect();
            let start = Instant::now();
            assert!(!work(Duration::ZERO).await);
            assert!(
                start.elapsed() < PAUSE,
                "a queue that stands is not joined, and not too many are held back"
            );
            drop(paused);
            let start = Instant::now();
            assert!(!work(Duration::ZERO).await);
            assert!(start.elapsed() >= PAUSE, "a refusal is held back: {:?}", start.elapsed());
            let paused: Vec<_> = (0..1_500).map(|_| Counted::among(&gate.paused, PAUSED_MAX)).collect();
            let start = Instant::now();
            assert!(!work(Duration::ZERO).await);
            assert!(
                start.elapsed() >= 1_500 * PAUSE_EACH,
                "and longer beside many others: {:?}",
                start.elapsed()
            );
            drop(paused);
            drop(waiting);
        };
        tokio::join!(held, late(Duration::from_millis(10)), late(BURST / 2), too_late);
        assert!(work(Duration::ZERO).await, "all is well again at once");
        assert_eq!((gate.waiting.load(Ordering::Relaxed), gate.paused.load(Ordering::Relaxed)), (0, 0));
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
