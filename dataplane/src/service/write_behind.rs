//! Write-behind: a write is acknowledged once it is in a durable log, and reaches the store afterwards, the
//! newest version of each key.
//!
//! ```text
//! write -> rules, on the newest state -> log (durable, one order per key for all replicas)
//!   -> decided -> acknowledged
//!   -> settled in the store, again until it took it
//! ```
//!
//! The log decides: of two entries that follow the same version of a key, the first one in the log counts, on
//! every replica, and who wrote the other tries again or hears that it was stale. Until the store has a
//! version, reads of its key are answered from here. After a start nothing is answered before all that the
//! log holds is in the store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};

use self::{
    entry::{Codec, Entry},
    ledger::{Decision, Ledger},
    log::Appender,
};
use crate::service::records::Wake;
use events::EventBus;
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Change, Collection, Idempotency, UnitOfWork, Written},
    durability::Setting,
    event::Outbox,
    key::Key,
    query::{Page, Query},
    record::Lookup,
    seal::Sealer,
    value::Timestamp,
};
use runtime::supervisor;
use store::{
    RecordStore, StoreError,
    apply::{Applied, State, apply},
    confined::PoolFault,
    limits::Limits,
};

mod entry;
mod ledger;
mod log;
mod settle;
#[cfg(test)]
mod tests;

/// A store of one pool whose writes go through a log first.
pub struct WriteBehind {
    inner: Arc<dyn RecordStore>,
    collection: Arc<Collection>,
    codec: Arc<Codec>,
    ledger: Arc<Ledger>,
    appender: Appender,
    /// Writers of one key one after the other, so that they do not outdo each other in the log.
    turns: Box<[Mutex<()>]>,
    /// The most versions that may wait.
    waiting_max: u64,
}

/// How far the store is behind the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Keys whose newest version is not in the store yet.
    pub waiting: u64,
    /// The age of the oldest of them, in ms.
    pub oldest_ms: u64,
    /// Versions that the store was given.
    pub settled: u64,
    /// Versions that were acknowledged and need no write of their own, because a newer one of their key was
    /// settled.
    pub coalesced: u64,
    /// Versions that the store knew better: another program wrote to the collection.
    pub conflicts: u64,
    /// Whether all that the log held at the start is in the store.
    pub caught_up: bool,
}

/// What a write-behind store is made of.
pub struct WriteBehindConfig {
    /// The store behind.
    pub inner: Arc<dyn RecordStore>,
    /// The pool's collection.
    pub collection: Arc<Collection>,
    /// The log, which all replicas share.
    pub log: Arc<dyn EventBus>,
    /// Seals records that have encrypted fields.
    pub sealer: Arc<dyn Sealer>,
    /// Called when the store has taken something, so that its events are published.
    pub wake: Wake,
    /// The most keys that may wait; beyond, writes are refused.
    pub waiting_max: u64,
}

/// How often a write is tried when others of the same key come first.
const ATTEMPTS_MAX: u32 = 12;
/// How long the log may take to take a write and to show it.
const LOG_DEADLINE: Duration = Duration::from_secs(4);
/// How long a page of records waits for the writes that were acknowledged here.
const PAGE_WAIT: Duration = Duration::from_secs(1);
/// The most bytes of an entry: a larger one may not fit into a message of the log.
const ENTRY_BYTES_MAX: usize = 900_000;
const TURNS: usize = 256;
/// How long a write may wait for the store before others are refused: far less than the log keeps them.
const OLDEST_MS_MAX: u64 = 10 * 60_000;
/// How long an embedded log keeps entries.
pub const LOG_AGE_MAX: Duration = Duration::from_secs(3_600);
/// Keys that may wait.
pub const WAITING_MAX: u64 = 10_000;

impl WriteBehind {
    /// A store behind a log. To be called in a tokio runtime: it follows the log and settles in the
    /// background until it is dropped.
    pub fn new(config: WriteBehindConfig) -> Self {
        let WriteBehindConfig { inner, collection, log, sealer, wake, waiting_max } = config;
        let codec = Arc::new(Codec::new(collection.clone(), sealer));
        let ledger = Arc::new(Ledger::default());
        supervisor::WRITE_BEHIND_LEDGER.spawn(log::follow(
            log.clone(),
            codec.clone(),
            Arc::downgrade(&ledger),
        ));
        supervisor::WRITE_BEHIND_SETTLE.spawn(settle::run(
            inner.clone(),
            collection.clone(),
            Arc::downgrade(&ledger),
            wake,
        ));
        let turns = (0..TURNS).map(|_| Mutex::default()).collect();
        Self { inner, collection, codec, ledger, appender: Appender::start(log), turns, waiting_max }
    }

    /// How far the store is behind.
    pub fn lag(&self) -> Lag {
        self.ledger.lag()
    }

    /// The newest state of a key.
    async fn state(&self, key: &Key) -> Result<State, StoreError> {
        if let Some(state) = self.ledger.waiting(key) {
            return Ok(state);
        }
        let found = self.inner.read(&self.collection, std::slice::from_ref(key)).await?;
        Ok(match found.into_iter().next().unwrap_or(Lookup::Missing) {
            Lookup::Found(record) => State::Present(record),
            Lookup::Deleted(version) => State::Absent(version),
            Lookup::Missing => State::Absent(model::key::Version(0)),
            Lookup::Unreadable(unreadable) => State::Unreadable(unreadable),
        })
    }

    /// One change: tried again while others come first and the change does not mind.
    async fn write(&self, change: &Change, actor: &str) -> Result<Written, StoreError> {
        let _turn = self.turns[xxhash_rust::xxh3::xxh3_64(change.key.as_str().as_bytes()) as usize % TURNS]
            .lock()
            .await;
        let limits = self.inner.limits(&change.collection).await?;
        if let Some(what) = &limits.changed_by {
            return Err(StoreError::Setup(format!(
                "{} has {what}: what they make of a record is not known before the store has it, so it takes no write-behind",
                self.collection.name
            )));
        }
        for _ in 0..ATTEMPTS_MAX {
            let base = self.state(&change.key).await?;
            let Applied { state, written, event: _, before: _ } =
                apply(&base, change, Timestamp::now(), &limits)?;
            let entry =
                Entry { key: change.key.clone(), base: base.version(), state, actor: actor.to_owned() };
            let envelope = self.codec.encode(&entry)?;
            if envelope.data.as_ref().is_some_and(|data| data.get().len() > ENTRY_BYTES_MAX) {
                return Err(StoreError::Unsupported(
                    "the record is too large for a write-behind log".to_owned(),
                ));
            }
            let decision = self.ledger.expect(envelope.id);
            let appended = timeout(LOG_DEADLINE, async {
                self.appender.append(envelope).await?;
                decision.await.map_err(|_| StoreError::Unknown("the log was lost".to_owned()))
            });
            match appended.await {
                Ok(Ok(Decision::First)) => return Ok(written),
                Ok(Ok(Decision::TooLate)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(StoreError::Unknown("the log did not answer in time".to_owned())),
            }
        }
        Err(StoreError::Unavailable("others changed the record again and again".to_owned()))
    }

    /// Refuses writes where the store is too far behind.
    fn has_room(&self, key: &Key) -> Result<(), StoreError> {
        let Lag { waiting, oldest_ms, .. } = self.lag();
        let full = waiting >= self.waiting_max && self.ledger.waiting(key).is_none();
        match full || oldest_ms > OLDEST_MS_MAX {
            true => Err(StoreError::Unavailable(format!(
                "{waiting} keys wait in the write-behind log for the store"
            ))),
            false => Ok(()),
        }
    }

    fn ready(&self) -> Result<(), StoreError> {
        match self.lag().caught_up {
            true => Ok(()),
            false => Err(StoreError::Unavailable(
                "what the write-behind log holds is not in the store yet".to_owned(),
            )),
        }
    }
}

#[async_trait]
impl RecordStore for WriteBehind {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        self.inner.prepare(collections).await
    }

    async fn prepare_each(
        &self,
        collections: &[Arc<Collection>],
    ) -> Result<BTreeMap<String, PoolFault>, StoreError> {
        self.inner.prepare_each(collections).await
    }

    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        self.ready()?;
        // first what waits: a version that leaves it meanwhile is in the store
        let waiting: Vec<Option<State>> = keys.iter().map(|key| self.ledger.waiting(key)).collect();
        let rest: Vec<Key> = keys
            .iter()
            .zip(&waiting)
            .filter(|(_, waiting)| waiting.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        let found = if rest.is_empty() { Vec::new() } else { self.inner.read(collection, &rest).await? };
        let mut found = found.into_iter();
        Ok(waiting
            .into_iter()
            .map(|waiting| waiting.map_or_else(|| found.next().unwrap_or(Lookup::Missing), Lookup::from))
            .collect())
    }

    async fn limits(&self, collection: &Collection) -> Result<Arc<Limits>, StoreError> {
        self.inner.limits(collection).await
    }

    /// Waits a moment for what was acknowledged here; what is not in the store by then is not in the page.
    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        self.ready()?;
        _ = timeout(PAGE_WAIT, self.ledger.settled()).await;
        self.inner.find(collection, query).await
    }

    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        self.ready()?;
        let UnitOfWork { changes, actor, idempotency, deadline: _ } = work;
        if idempotency.is_some() {
            let why =
                "a pool with write-behind keeps no idempotency keys: leave the key out and use If-Match";
            return Err(StoreError::Unsupported(why.to_owned()));
        }
        let [change] = changes.as_slice() else {
            let why = "a pool with write-behind changes one record at a time: send the changes one by one";
            return Err(StoreError::Unsupported(why.to_owned()));
        };
        self.has_room(&change.key)?;
        Ok(vec![self.write(change, &actor).await?])
    }

    async fn recall(
        &self,
        collection: &Collection,
        idempotency: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        self.inner.recall(collection, idempotency).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        self.inner.audit(query).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        self.inner.settings().await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }

    async fn prune(&self) -> Result<u64, StoreError> {
        self.inner.prune().await
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.inner.outbox()
    }
}
