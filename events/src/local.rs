//! The embedded bus: a log of events in an SQLite file of its own, for a service that runs in one process.
//!
//! The log is the truth: a replay reads pages of it for as long as it likes and only waits for the head to
//! move, so it can neither miss nor repeat an event. Numbers of events are given by one writer at a time, in
//! the order in which the events are then sent to live readers.

pub mod log;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{Mutex, broadcast, watch},
    task::JoinHandle,
};

use self::log::{Appended, Log};
use super::{
    BusError, EventBus,
    cursor::{Cursor, mark_of},
};
use model::{clock::GuardedClock, durability::Setting, event::Envelope, value::Timestamp};
use runtime::supervisor;

/// Live events that a receiver may lag behind.
const LIVE_CAPACITY: usize = 16_384;
/// Events that a replay reads at once.
const PAGE: u32 = 500;

/// How much the log keeps.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Older events than the newest so many are removed.
    pub events_max: u64,
    /// Events published longer ago are removed.
    pub age_max: Duration,
    /// How often old events are looked for.
    pub prune_interval: Duration,
}

impl Default for LocalOptions {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { events_max: 1_000_000, age_max: 7 * day, prune_interval: Duration::from_secs(60) }
    }
}

/// The embedded bus.
pub struct LocalBus {
    feed: Arc<Feed>,
    pruner: JoinHandle<()>,
}

struct Feed {
    log: Log,
    options: LocalOptions,
    /// Held while events are appended and sent, so that both happen in one order. True after a failure that
    /// may have left events in the log that were not sent.
    unsent: Mutex<bool>,
    live: broadcast::Sender<Arc<Envelope>>,
    /// The number of the newest event that was sent.
    head: watch::Sender<u64>,
    /// Events up to this number may be removed already.
    floor: AtomicU64,
    gaps: watch::Sender<u64>,
    clock: GuardedClock,
}

impl LocalBus {
    /// Opens or makes the log in `folder`, and removes old events from time to time until the bus is dropped.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be opened.
    pub async fn open(folder: &Path, options: LocalOptions) -> Result<Self, BusError> {
        let (log, bounds) = Log::open(&folder.join("feed.db")).await?;
        let feed = Arc::new(Feed {
            log,
            unsent: Mutex::new(false),
            live: broadcast::channel(LIVE_CAPACITY).0,
            head: watch::channel(bounds.head).0,
            floor: AtomicU64::new(bounds.floor),
            gaps: watch::channel(0).0,
            clock: GuardedClock::default(),
            options,
        });
        feed.clock.begin(bounds.newest);
        let pruned = feed.clone();
        let pruner = supervisor::FEED_UPKEEP.spawn(move || prune_for_ever(pruned.clone()));
        Ok(Self { feed, pruner })
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        self.pruner.abort();
    }
}

#[async_trait]
impl EventBus for LocalBus {
    /// Events whose ids are in the log already are left out.
    async fn publish(&self, events: &[Envelope]) -> Result<(), BusError> {
        if events.is_empty() {
            return Ok(());
        }
        // on a task of its own: a caller that gives up must not stop between the commit and the sending
        let published = tokio::spawn(publish(self.feed.clone(), events.to_vec()));
        published.await.map_err(|error| BusError::Unavailable(error.to_string()))?
    }

    fn live(&self) -> broadcast::Receiver<Arc<Envelope>> {
        self.feed.live.subscribe()
    }

    /// It has none: every event goes through this process.
    fn gaps(&self) -> watch::Receiver<u64> {
        self.feed.gaps.subscribe()
    }

    async fn replay(
        &self,
        since: &str,
    ) -> Result<BoxStream<'static, Result<Arc<Envelope>, BusError>>, BusError> {
        let Cursor::Local { feed, number, mark } = Cursor::decode(since)? else {
            return Err(BusError::Expired);
        };
        let head = *self.feed.head.borrow();
        if feed != self.feed.log.feed() || number > head || number < self.feed.floor.load(Ordering::Acquire) {
            return Err(BusError::Expired);
        }
        // a log that was restored has other events at the numbers that it had once
        if let Some(mark) = mark
            && number > self.feed.floor.load(Ordering::Acquire)
            && self.feed.log.mark_at(number).await? != Some(mark)
            && number > self.feed.floor.load(Ordering::Acquire)
        {
            return Err(BusError::Expired);
        }
        let replay = Replay {
            feed: self.feed.clone(),
            head: self.feed.head.subscribe(),
            last: number,
            page: VecDeque::new(),
        };
        Ok(stream::try_unfold(replay, |mut replay| async move {
            let event = replay.next().await?;
            Ok(event.map(|event| (event, replay)))
        })
        .boxed())
    }

    async fn head(&self) -> Result<String, BusError> {
        let number = *self.feed.head.borrow();
        let mark = self.feed.log.mark_at(number).await?;
        Ok(Cursor::Local { feed: self.feed.log.feed(), number, mark }.encode())
    }

    async fn oldest(&self) -> Result<String, BusError> {
        let number = self.feed.floor.load(Ordering::Acquire);
        Ok(Cursor::Local { feed: self.feed.log.feed(), number, mark: None }.encode())
    }

    async fn settings(&self) -> Result<Vec<Setting>, BusError> {
        self.feed.log.settings().await
    }

    async fn ping(&self) -> Result<(), BusError> {
        self.feed.log.ping().await
    }
}

async fn publish(feed: Arc<Feed>, events: Vec<Envelope>) -> Result<(), BusError> {
    let mut unsent = feed.unsent.lock().await;
    if *unsent {
        // what an unfinished publish left in the log goes first
        loop {
            let head = *feed.head.borrow();
            let page = feed.log.page(head, PAGE).await?;
            if page.is_empty() {
                break;
            }
            feed.send(page);
        }
        *unsent = false;
    }
    match feed.log.append(events, Timestamp::now()).await {
        Ok(appended) => {
            feed.send(appended);
            Ok(())
        }
        Err(error) => {
            *unsent = true;
            Err(error)
        }
    }
}

async fn prune_for_ever(feed: Arc<Feed>) {
    let interval = feed.options.prune_interval;
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = feed.prune().await {
            tracing::warn!(%error, "old events could not be removed from the feed");
        }
    }
}

impl Feed {
    /// Sends events to live readers, in the order of their numbers.
    fn send(&self, appended: Vec<Appended>) {
        for Appended { number, envelope } in appended {
            // nobody listening is fine
            _ = self.live.send(Arc::new(envelope));
            self.head.send_replace(number);
        }
    }

    async fn prune(&self) -> Result<(), BusError> {
        let by_count = self.head.borrow().saturating_sub(self.options.events_max);
        let age_max_ms = i64::try_from(self.options.age_max.as_millis()).unwrap_or(i64::MAX);
        // a clock that is days ahead makes nothing old: a log of writes may hold what no store has yet
        let oldest = Timestamp(self.clock.now().0.saturating_sub(age_max_ms));
        let by_age = self.log.last_before(oldest).await?;
        let floor = by_count.max(by_age);
        // said before it is done: a replay that finds the floor unmoved after a read has read everything
        self.floor.fetch_max(floor, Ordering::AcqRel);
        while self.log.remove_some_up_to(floor).await? {}
        Ok(())
    }
}

/// A reader of the log at its own pace.
struct Replay {
    feed: Arc<Feed>,
    head: watch::Receiver<u64>,
    last: u64,
    page: VecDeque<Appended>,
}

impl Replay {
    /// The next event, once there is one; none when the bus is gone.
    async fn next(&mut self) -> Result<Option<Arc<Envelope>>, BusError> {
        loop {
            if let Some(Appended { number, envelope }) = self.page.pop_front() {
                self.last = number;
                return Ok(Some(Arc::new(envelope)));
            }
            let last = self.last;
            if self.head.wait_for(|head| *head > last).await.is_err() {
                return Ok(None);
            }
            self.page = self.feed.log.page(last, PAGE).await?.into();
            if self.feed.floor.load(Ordering::Acquire) > last {
                return Err(BusError::Expired);
            }
        }
    }
}

#[cfg(test)]
mod tests;
