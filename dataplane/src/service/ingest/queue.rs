//! The way in: bounds how many events wait, and makes them durable before they are accepted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crds::service::messaging::UnknownProducts;
use parking_lot::Mutex;

use events::intake::{Intake, IntakeError};
use model::price_event::PriceEvent;

/// How long a measurement tells how many events wait; after that nobody knows how many came elsewhere.
const MEASURED_FOR: Duration = Duration::from_secs(60);

/// Lets events in while there is room.
pub struct IngestQueue {
    intake: Arc<dyn Intake>,
    waiting: Mutex<Waiting>,
    limit: AtomicU64,
    /// Whether events of unknown products are refused.
    known_only: AtomicBool,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// How many events wait: what was measured, and what is known here of what came and went since then. Never
/// fewer than those of this process: where it is not known whether a measurement has seen a change, what came
/// is added, and what went is not taken away.
#[derive(Default)]
struct Waiting {
    measured: u64,
    /// When that was.
    at: Option<Instant>,
    /// How often it was measured.
    measurements: u64,
    /// What came since the last measurement began.
    came: u64,
    /// What certainly went after the last measurement ended.
    went: u64,
    /// On their way to the log.
    coming: u64,
}

/// The moment before events are taken off the log.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

/// The queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Events that wait to be applied; none where that was not measured within a minute.
    pub waiting: Option<u64>,
    /// Events accepted since the start.
    pub accepted: u64,
    /// Events refused for want of room since the start.
    pub refused: u64,
}

/// Why events were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// So many at once are never accepted.
    #[error("at most {0} events may wait, so no more can be sent at once")]
    TooMany(u64),
    /// Too many wait.
    #[error("{0} events wait to be applied: try again")]
    Full(u64),
    /// The log cannot be reached. The events may be applied all the same.
    #[error(transparent)]
    Log(#[from] IntakeError),
}

/// Room for events that are on their way to the log.
struct Room<'a> {
    queue: &'a IngestQueue,
    events: u64,
    stored: bool,
}

impl IngestQueue {
    /// A queue before this log, for at most `limit` events that wait.
    pub fn new(intake: Arc<dyn Intake>, limit: u64) -> Self {
        Self {
            intake,
            waiting: Mutex::default(),
            limit: AtomicU64::new(limit),
            known_only: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The log.
    pub fn intake(&self) -> &Arc<dyn Intake> {
        &self.intake
    }

    /// From now on at most so many events may wait.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// From now on events of unknown products are treated so.
    pub fn set_unknown(&self, unknown: UnknownProducts) {
        self.known_only.store(unknown == UnknownProducts::Reject, Ordering::Relaxed);
    }

    /// Whether events of unknown products are to be refused.
    pub fn takes_known_only(&self) -> bool {
        self.known_only.load(Ordering::Relaxed)
    }

    /// Accepts all events or none. They are durable when this returns.
    ///
    /// # Errors
    /// There is no room, or the log cannot be reached.
    pub async fn accept(&self, events: Vec<PriceEvent>) -> Result<(), NotAccepted> {
        let count = events.len() as u64;
        let mut room = self.room(count)?;
        self.intake.append(events).await?;
        room.stored = true;
        self.accepted.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    fn room(&self, events: u64) -> Result<Room<'_>, NotAccepted> {
        let limit = self.limit.load(Ordering::Relaxed);
        if events > limit {
            return Err(NotAccepted::TooMany(limit));
        }
        let mut waiting = self.waiting.lock();
        let now = waiting.now();
        if now + events > limit {
            self.refused.fetch_add(events, Ordering::Relaxed);
            return Err(NotAccepted::Full(now));
        }
        waiting.coming += events;
        Ok(Room { queue: self, events, stored: false })
    }

    /// Now, before events that were applied are taken off the log.
    pub fn moment(&self) -> Moment {
        Moment(self.waiting.lock().measurements)
    }

    /// These events were applied by this process, and taken off the log after this moment.
    pub fn applied(&self, events: u64, after: Moment) {
        self.waiting.lock().go(events, after);
    }

    /// Measures how many events wait, over all replicas. An answer that does not come leaves the last one.
    pub async fn measure(&self) {
        let before = self.waiting.lock().came;
        if let Ok(measured) = self.intake.waiting().await {
            self.waiting.lock().set(measured, before);
        }
    }

    /// The figures now.
    pub fn figures(&self) -> QueueFigures {
        let waiting = self.waiting.lock().known();
        let (accepted, refused) =
            (self.accepted.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        QueueFigures { waiting, accepted, refused }
    }
}

impl Waiting {
    fn now(&self) -> u64 {
        (self.measured + self.came).saturating_sub(self.went) + self.coming
    }

    /// The same, but for the time without a measurement: the log may hold more than came here.
    fn known(&self) -> Option<u64> {
        self.at.is_some_and(|at| at.elapsed() < MEASURED_FOR).then(|| self.now())
    }

    /// What was measured; `before` it began, so much had come.
    fn set(&mut self, measured: u64, before: u64) {
        (self.measured, self.went, self.at) = (measured, 0, Some(Instant::now()));
        self.came -= before;
        self.measurements += 1;
    }

    fn go(&mut self, events: u64, after: Moment) {
        // a measurement in between may have found the log without them
        if after.0 == self.measurements {
            self.went += events;
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        waiting.coming -= self.events;
        if self.stored {
            waiting.came += self.events;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_never_said_to_be_gone() {
        let mut waiting = Waiting { came: 1_000, ..Waiting::default() };
        assert_eq!(waiting.known(), None, "nobody knows yet what the log holds");
        // perhaps off the log when it was measured, reported after: not taken away again
        let moment = Moment(waiting.measurements);
        waiting.set(500, 1_000);
        waiting.go(500, moment);
        assert_eq!(waiting.known(), Some(500));
        // taken off the log after it was measured
        waiting.go(100, Moment(waiting.measurements));
        assert_eq!(waiting.now(), 400);
        let before = waiting.came;
        waiting.came += 50;
        waiting.set(400, before);
        assert_eq!(waiting.now(), 450, "what came while it was measured is counted until the next time");
        waiting.set(450, waiting.came);
        waiting.go(450, Moment(waiting.measurements));
        assert_eq!((waiting.now(), waiting.known()), (0, Some(0)));
        waiting.at = Instant::now().checked_sub(MEASURED_FOR);
        assert_eq!(waiting.known(), None, "it was measured long ago");
    }
}
