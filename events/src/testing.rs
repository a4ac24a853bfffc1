//! What the tests of this module share: events, folders, outboxes and buses in memory.

#![allow(dead_code, reason = "each crate whose tests include it uses a part")]

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::Instant,
};
use uuid::Uuid;

use events::{BusError, EventBus};
use model::{
    event::{Backlog, Claimed, Envelope, Happening, Outbox, OutboxError},
    key::Version,
    value::Timestamp,
};

/// The event of one version of a product.
pub fn event(key: &str, version: u64) -> Envelope {
    let happening = if version == 1 { Happening::Created } else { Happening::Updated };
    let data = format!(r#"{{"id":"{key}","version":{version}}}"#);
    Envelope::of_change(
        "product",
        happening,
        &key.parse().unwrap(),
        Version(version),
        Timestamp::now(),
        Some(data),
    )
}

/// `versions` events for each of `keys` keys, those of different keys mixed.
pub fn events(keys: usize, versions: u64) -> Vec<Envelope> {
    (1..=versions).flat_map(|version| (0..keys).map(move |key| event(&format!("k{key}"), version))).collect()
}

/// Checks that the versions of each key only grow.
pub fn assert_in_order<'a>(events: impl IntoIterator<Item = &'a Envelope>) {
    let mut versions: HashMap<&str, u64> = HashMap::new();
    for event in events {
        let last = versions.insert(&event.key, event.version).unwrap_or(0);
        assert!(event.version > last, "{} went from {last} to {}", event.key, event.version);
    }
}

/// The first delivery of each event.
pub fn without_repeats(events: &[Envelope]) -> Vec<&Envelope> {
    let mut seen = HashSet::new();
    events.iter().filter(|event| seen.insert(event.id)).collect()
}

/// An outbox in memory that keeps the rules of leases, and whose confirmations can be made to hang.
#[derive(Default)]
pub struct FakeOutbox {
    rows: Mutex<Vec<(Envelope, Option<Claim>)>>,
    pub stuck_at_confirm: AtomicBool,
    pub stuck: Notify,
    /// How long a claim still lasts when it is told of, where not for its whole lease.
    pub left: Mutex<Option<Duration>>,
    /// How long it takes to count the events, and how often they were counted.
    pub counting: Mutex<Duration>,
    pub counted: AtomicUsize,
}

struct Claim {
    owner: String,
    until: Instant,
}

impl FakeOutbox {
    pub fn commit(&self, events: &[Envelope]) {
        self.rows.lock().extend(events.iter().map(|event| (event.clone(), None)));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.lock().is_empty()
    }

    pub fn claimed(&self) -> usize {
        let now = Instant::now();
        self.rows
            .lock()
            .iter()
            .filter(|(_, claim)| claim.as_ref().is_some_and(|claim| claim.until > now))
            .count()
    }
}

#[async_trait]
impl Outbox for FakeOutbox {
    async fn claim(&self, owner: &str, lease: Duration, limit: usize) -> Result<Claimed, OutboxError> {
        let now = Instant::now();
        let mut rows = self.rows.lock();
        let of_others =
            |claim: &Option<Claim>| claim.as_ref().is_some_and(|c| c.owner != owner && c.until > now);
        let mut foreign: HashSet<String> = HashSet::new();
        foreign.extend(rows.iter().filter(|(_, claim)| of_others(claim)).map(|(event, _)| event.key.clone()));
        let free = rows.iter_mut().filter(|(event, _)| !foreign.contains(&event.key)).take(limit);
        let taken = free.map(|(event, claim)| {
            *claim = Some(Claim { owner: owner.to_owned(), until: now + lease });
            event.clone()
        });
        let until = Some((now + self.left.lock().unwrap_or(lease)).into_std());
        Ok(Claimed { events: taken.collect(), blocked: !foreign.is_empty(), until })
    }

    async fn confirm(&self, _owner: &str, ids: &[Uuid]) -> Result<(), OutboxError> {
        if self.stuck_at_confirm.load(Ordering::SeqCst) {
            self.stuck.notify_one();
            std::future::pending::<()>().await;
        }
        let ids: HashSet<_> = ids.iter().collect();
        self.rows.lock().retain(|(event, _)| !ids.contains(&event.id));
        Ok(())
    }

    async fn release(&self, owner: &str) -> Result<(), OutboxError> {
        for (_, claim) in self.rows.lock().iter_mut() {
            if claim.as_ref().is_some_and(|claim| claim.owner == owner) {
                *claim = None;
            }
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, OutboxError> {
        self.counted.fetch_add(1, Ordering::SeqCst);
        let time = *self.counting.lock();
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        Ok(Backlog { events: self.rows.lock().len() as u64, oldest_ms: 0 })
    }
}

/// A bus in memory that can be down. When it is, a part of what is published may get through all the same.
pub struct FakeBus {
    log: Mutex<Vec<Envelope>>,
    pub down: AtomicBool,
    publishes: AtomicUsize,
    live: broadcast::Sender<Arc<Envelope>>,
    gaps: watch::Sender<u64>,
}

impl FakeBus {
    pub fn new() -> Self {
        Self {
            log: Mutex::default(),
            down: AtomicBool::new(false),
            publishes: AtomicUsize::new(0),
            live: broadcast::channel(16).0,
            gaps: watch::channel(0).0,
        }
    }

    pub fn log(&self) -> Vec<Envelope> {
        self.log.lock().clone()
    }

    /// How often something was published.
    pub fn publishes(&self) -> usize {
        self.publishes.load(Ordering::SeqCst)
    }

    pub fn send_live(&self, event: Envelope) {
        _ = self.live.send(Arc::new(event));
    }

    pub fn gap(&self) {
        self.gaps.send_modify(|gaps| *gaps += 1);
    }
}

#[async_trait]
impl EventBus for FakeBus {
    async fn publish(&self, events: &[Envelope]) -> Result<(), BusError> {
        self.publishes.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.down.load(Ordering::SeqCst) {
            self.log.lock().extend(events[..events.len() / 2].iter().cloned());
            return Err(BusError::Unavailable("down".to_owned()));
        }
        self.log.lock().extend(events.iter().cloned());
        Ok(())
    }

    fn live(&self) -> broadcast::Receiver<Arc<Envelope>> {
        self.live.subscribe()
    }

    fn gaps(&self) -> watch::Receiver<u64> {
        self.gaps.subscribe()
    }

    async fn replay(
        &self,
        _since: &str,
    ) -> Result<BoxStream<'static, Result<Arc<Envelope>, BusError>>, BusError> {
        Err(BusError::Expired)
    }

    async fn head(&self) -> Result<String, BusError> {
        Ok(String::new())
    }

    async fn oldest(&self) -> Result<String, BusError> {
        Ok(String::new())
    }

    async fn ping(&self) -> Result<(), BusError> {
        Ok(())
    }
}
