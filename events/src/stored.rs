//! The bus of a service without a broker: a log in one of its stores, which every replica reads again and
//! again.
//!
//! What a replica publishes it reads at once; what another does, within [`POLL`]. The log has numbers without
//! gaps and keeps its newest entry, so each page that begins with the last event that was read tells whether
//! the log is still the same one and has all that came after.

pub mod member;
pub mod writer;

mod consumer;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::JoinHandle,
    time::timeout,
};
use xxhash_rust::xxh3::xxh3_64;

use self::{
    consumer::GroupConsumer,
    member::{LEASE, Member, Seat},
    writer::Writer,
};
use crate::{
    BusError, EventBus,
    consumer::Consumer,
    cursor::{Cursor, mark_of},
};
use model::{
    clock::GuardedClock,
    event::Envelope,
    log::{Entry, EventLog, LogError, Numbered, PARTS},
    value::Timestamp,
};
use runtime::supervisor;

/// How often the log is looked at for what others put in.
pub const POLL: Duration = Duration::from_millis(100);
/// Live events that a receiver may lag behind.
const LIVE_CAPACITY: usize = 16_384;
/// Entries that are read at once.
const PAGE: usize = 500;
/// The most bytes of an event: with more its record is left out, as Kafka does.
const EVENT_BYTES_MAX: usize = 900_000;
/// How long the log may be away before that is told: a new one is there once the store is prepared.
const SILENT: Duration = Duration::from_secs(5);

/// Which log carries the events, and how much of it is kept.
#[derive(Clone, Debug)]
pub struct StoredOptions {
    /// The log's name: replicas with the same tell each other.
    pub log: String,
    /// What the names of groups start with: services that share a log do not share their work.
    pub groups: String,
    /// Older events than the newest so many are removed.
    pub events_max: u64,
    /// Events published longer ago are removed.
    pub age_max: Duration,
    /// How often old events are looked for.
    pub prune_interval: Duration,
    /// How long the claims of a group's members last.
    pub lease: Duration,
}

impl StoredOptions {
    /// A log of this name, of the last seven days and a million events at most.
    pub fn new(log: &str, groups: &str) -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            log: log.to_owned(),
            groups: groups.to_owned(),
            events_max: 1_000_000,
            age_max: 7 * day,
            prune_interval: Duration::from_secs(60),
            lease: LEASE,
        }
    }
}

/// The bus in a store.
pub struct StoreBus {
    feed: Arc<Feed>,
    writer: Writer,
    tasks: [JoinHandle<()>; 2],
}

struct Feed {
    log: Arc<dyn EventLog>,
    options: StoredOptions,
    live: broadcast::Sender<Arc<Envelope>>,
    /// The newest event that was sent to live readers; none until the log was found.
    head: watch::Sender<Option<Head>>,
    /// Its number.
    number: watch::Sender<u64>,
    gaps: watch::Sender<u64>,
    /// Something was put in here.
    poke: Arc<Notify>,
    clock: GuardedClock,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Which log it is.
    feed: u32,
    /// The number of the last event; 0 before the first.
    number: u64,
    /// The mark of that event.
    mark: Option<u32>,
}

impl StoreBus {
    /// A bus that follows the log until it is dropped. To be called in a tokio runtime. The store need not be
    /// up yet.
    pub fn start(log: Arc<dyn EventLog>, options: StoredOptions) -> Self {
        let poke = Arc::new(Notify::new());
        let writer = Writer::start(log.clone(), &options.log, poke.clone());
        let feed = Arc::new(Feed {
            log,
            options,
            live: broadcast::channel(LIVE_CAPACITY).0,
            head: watch::channel(None).0,
            number: watch::channel(0).0,
            gaps: watch::channel(0).0,
            poke,
            clock: GuardedClock::default(),
        });
        let (followed, pruned) = (feed.clone(), feed.clone());
        let follower = supervisor::FOLLOWER.spawn(async move { followed.follow().await });
        let pruner = supervisor::FEED_UPKEEP.spawn(move || prune_for_ever(pruned.clone()));
        Self { feed, writer, tasks: [follower, pruner] }
    }
}

impl Drop for StoreBus {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl EventBus for StoreBus {
    /// Events whose ids are in the log already are left out.
    async fn publish(&self, events: &[Envelope]) -> Result<(), BusError> {
        let entries = events.iter().map(entry_of).collect::<Result<Vec<_>, _>>()?;
        Ok(self.writer.append(entries).await?)
    }

    fn live(&self) -> broadcast::Receiver<Arc<Envelope>> {
        self.feed.live.subscribe()
    }

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
        let head = self.feed.joined()?;
        if feed != head.feed || number > head.number {
            return Err(BusError::Expired);
        }
        let at = Head { feed, number, mark };
        let gaps = self.feed.gaps.subscribe();
        let mut replay = Replay {
            feed: self.feed.clone(),
            head: self.feed.head.subscribe(),
            gaps,
            at,
            page: VecDeque::new(),
        };
        if number < head.number || mark.is_some() {
            replay.read().await?;
        }
        Ok(stream::try_unfold(replay, |mut replay| async move {
            let event = replay.next().await?;
            Ok(event.map(|event| (event, replay)))
        })
        .boxed())
    }

    async fn head(&self) -> Result<String, BusError> {
        Ok(self.feed.joined()?.cursor())
    }

    /// Members share out the parts of the log. What came before the group did is read too, as far as it is
    /// kept.
    async fn consume(&self, group: &str, entity: &str) -> Result<Box<dyn Consumer>, BusError> {
        let seat = Seat {
            log: self.feed.options.log.clone(),
            group: format!("{}{group}", self.feed.options.groups),
            lease: self.feed.options.lease,
        };
        let member = Member::join(self.feed.log.clone(), seat, self.feed.number.subscribe());
        Ok(Box::new(GroupConsumer::new(member, entity)))
    }

    async fn oldest(&self) -> Result<String, BusError> {
        let Head { feed, number: head, .. } = self.feed.joined()?;
        let oldest = self.feed.log.oldest(&self.feed.options.log).await?;
        let number = oldest.checked_sub(1).unwrap_or(head);
        Ok(Head { feed, number, mark: None }.cursor())
    }

    async fn ping(&self) -> Result<(), BusError> {
        self.feed.log.newest(&self.feed.options.log).await?;
        Ok(())
    }
}

impl From<LogError> for BusError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full(why) => Self::Full(why),
            LogError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl Head {
    fn cursor(self) -> String {
        let Self { feed, number, mark } = self;
        Cursor::Local { feed, number, mark }.encode()
    }

    /// What follows this place in a page that begins with it; none where the page is not of the same log, or
    /// something between is gone.
    fn followed_by(self, mut page: VecDeque<Numbered>) -> Option<VecDeque<Numbered>> {
        match page.front() {
            Some(first) if first.number == self.number => {
                let same = self.mark.is_none_or(|mark| mark == mark_of(first.entry.id));
                page.pop_front();
                same.then_some(page)
            }
            Some(first) => (first.number == self.number + 1).then_some(page),
            None => (self.number == 0).then_some(page),
        }
    }
}

impl Feed {
    fn joined(&self) -> Result<Head, BusError> {
        (*self.head.borrow()).ok_or_else(|| BusError::Unavailable("the log was not found yet".to_owned()))
    }

    /// Reads what is new, for ever.
    async fn follow(&self) {
        let (mut at, mut away): (Option<Head>, Option<Instant>) = (None, None);
        let mut told = false;
        loop {
            let more = match self.step(&mut at).await {
                Ok(more) => {
                    if std::mem::take(&mut told) {
                        tracing::info!(log = self.options.log, "the feed goes on");
                    }
                    away = None;
                    more
                }
                Err(error) => {
                    // one line for an outage
                    if away.get_or_insert_with(Instant::now).elapsed() > SILENT && !told {
                        tracing::warn!(log = self.options.log, %error, "the feed is interrupted");
                        told = true;
                    }
                    false
                }
            };
            if !more {
                _ = timeout(POLL, self.poke.notified()).await;
            }
        }
    }

    /// Reads a page, or finds the log; whether there may be more.
    async fn step(&self, at: &mut Option<Head>) -> Result<bool, LogError> {
        let log = &self.options.log;
        let Some(head) = at else {
            let newest = self.log.newest(log).await?;
            let feed = xxh3_64(format!("{}/{log}", self.log.identity().await?).as_bytes()) as u32;
            self.clock.begin(newest.map(|newest| newest.at));
            let (number, mark) = newest.map_or((0, None), |newest| (newest.number, Some(mark_of(newest.id))));
            let joined = Head { feed, number, mark };
            *at = Some(joined);
            self.moved_to(joined);
            // what came before was not sent
            self.gaps.send_modify(|gaps| *gaps += 1);
            return Ok(true);
        };
        let page = self.log.page(log, head.number, None, PAGE).await?;
        let Some(entries) = head.followed_by(page.entries.into()) else {
            tracing::warn!(
                log,
                after = head.number,
                "the feed was cut: the log has other events than before"
            );
            *at = None;
            return Ok(true);
        };
        for numbered in entries {
            *head = Head { number: numbered.number, mark: Some(mark_of(numbered.entry.id)), ..*head };
            if let Some(event) = self.event_of(&numbered, head.feed) {
                // nobody listening is fine
                _ = self.live.send(event);
            }
            self.moved_to(*head);
        }
        Ok(page.more)
    }

    fn moved_to(&self, head: Head) {
        self.head.send_replace(Some(head));
        self.number.send_replace(head.number);
    }

    /// The event of an entry, with its cursor; none where it is none.
    fn event_of(&self, Numbered { number, entry }: &Numbered, feed: u32) -> Option<Arc<Envelope>> {
        match serde_json::from_str::<Envelope>(&entry.text) {
            Ok(mut event) => {
                let head = Head { feed, number: *number, mark: Some(mark_of(entry.id)) };
                event.cursor = Some(head.cursor());
                Some(Arc::new(event))
            }
            Err(error) => {
                tracing::error!(log = self.options.log, number, %error, "an entry of the log is no event");
                None
            }
        }
    }

    async fn prune(&self) -> Result<(), LogError> {
        let age_max_ms = i64::try_from(self.options.age_max.as_millis()).unwrap_or(i64::MAX);
        while self.clock.has_begun() {
            let up_to = self.number.borrow().saturating_sub(self.options.events_max);
            // a clock that is days ahead makes nothing old: a log of writes may hold what no store has yet
            let before = Timestamp(self.clock.now().0.saturating_sub(age_max_ms));
            if !self.log.prune(&self.options.log, up_to, before).await? {
                break;
            }
        }
        Ok(())
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

/// A reader of the log at its own pace.
struct Replay {
    feed: Arc<Feed>,
    head: watch::Receiver<Option<Head>>,
    gaps: watch::Receiver<u64>,
    at: Head,
    page: VecDeque<Numbered>,
}

impl Replay {
    /// The next event, once there is one; none when the bus is gone.
    async fn next(&mut self) -> Result<Option<Arc<Envelope>>, BusError> {
        loop {
            while let Some(numbered) = self.page.pop_front() {
                let mark = Some(mark_of(numbered.entry.id));
                self.at = Head { number: numbered.number, mark, ..self.at };
                if let Some(event) = self.feed.event_of(&numbered, self.at.feed) {
                    return Ok(Some(event));
                }
            }
            let number = self.at.number;
            let later = |head: &Option<Head>| head.is_some_and(|head| head.number > number);
            tokio::select! {
                moved = self.head.wait_for(later) => if moved.is_err() { return Ok(None) },
                // another log at the same place: what is read next tells
                changed = self.gaps.changed() => if changed.is_err() { return Ok(None) },
            }
            self.read().await?;
        }
    }

    /// Reads on.
    async fn read(&mut self) -> Result<(), BusError> {
        let page = self.feed.log.page(&self.feed.options.log, self.at.number, None, PAGE).await?;
        self.page = self.at.followed_by(page.entries.into()).ok_or(BusError::Expired)?;
        Ok(())
    }
}

/// An event as it stands in the log.
fn entry_of(event: &Envelope) -> Result<Entry, BusError> {
    let failed = |error: serde_json::Error| BusError::Unavailable(error.to_string());
    let mut event = Envelope { cursor: None, ..event.clone() };
    let mut text = serde_json::to_string(&event).map_err(failed)?;
    if text.len() > EVENT_BYTES_MAX {
        event.data = None;
        text = serde_json::to_string(&event).map_err(failed)?;
    }
    Ok(Entry { id: event.id, part: part_of(&format!("{}/{}", event.entity, event.key)), text })
}

/// The part of what must stay in order.
pub fn part_of(key: &str) -> i64 {
    xxh3_64(key.as_bytes()).cast_signed().rem_euclid(PARTS)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
