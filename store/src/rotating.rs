//! A store whose address, account or certificates change while it is in use: a new one takes over once it is
//! prepared, and calls that are under way end where they began.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{RecordStore, StoreError, confined::PoolFault, identity::Identity, limits::Limits};
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Collection, Idempotency, UnitOfWork, Written},
    durability::Setting,
    event::{Backlog, Claimed, Outbox, OutboxError},
    key::Key,
    log::{Claim, Entry, EventLog, Group, LogError, Newest, Page as LogPage},
    query::{Page, Query},
    record::Lookup,
    value::Timestamp,
};

/// The store that calls go to now.
type Current = ArcSwap<Arc<dyn RecordStore>>;

/// A store that can be replaced.
pub struct RotatingStore {
    current: Arc<Current>,
    /// What the current one is prepared for.
    prepared: Mutex<Vec<Arc<Collection>>>,
}

/// The outbox of whichever store is current. Leases are the owner's, so they go on; events claimed before are
/// confirmed by their ids.
struct RotatingOutbox(Arc<Current>);

/// The logs of whichever store is current.
struct RotatingLog(Arc<Current>);

impl RotatingStore {
    /// Calls go to this store.
    pub fn new(store: Arc<dyn RecordStore>) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(store)), prepared: Mutex::default() }
    }

    /// From now on calls go to `next`, which is first prepared as the current one was; where that fails,
    /// nothing changes. A single collection that cannot be used there keeps no other from taking over:
    /// whoever prepares the store next hears of it.
    ///
    /// # Errors
    /// `next` cannot be reached, or refuses the account.
    pub async fn rotate(&self, next: Arc<dyn RecordStore>) -> Result<(), StoreError> {
        loop {
            let collections = self.prepared.lock().clone();
            next.prepare_each(&collections).await?;
            let prepared = self.prepared.lock();
            // the current one may have been prepared for the first time meanwhile
            if prepared.len() == collections.len() {
                self.current.store(Arc::new(next));
                return Ok(());
            }
        }
    }

    fn now(&self) -> Arc<dyn RecordStore> {
        Arc::clone(&self.current.load())
    }
}

#[async_trait]
impl RecordStore for RotatingStore {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        match self.prepare_each(collections).await?.into_values().next() {
            Some(fault) => Err(StoreError::Unprepared(fault)),
            None => Ok(()),
        }
    }

    async fn prepare_each(
        &self,
        collections: &[Arc<Collection>],
    ) -> Result<BTreeMap<String, PoolFault>, StoreError> {
        loop {
            let store = self.now();
            let faults = store.prepare_each(collections).await?;
            let mut prepared = self.prepared.lock();
            if Arc::ptr_eq(&store, &self.now()) {
                *prepared = collections.to_vec();
                return Ok(faults);
            }
        }
    }

    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        self.now().read(collection, keys).await
    }

    async fn limits(&self, collection: &Collection) -> Result<Arc<Limits>, StoreError> {
        self.now().limits(collection).await
    }

    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        self.now().find(collection, query).await
    }

    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        self.now().commit(work).await
    }

    async fn recall(
        &self,
        collection: &Collection,
        idempotency: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        self.now().recall(collection, idempotency).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        self.now().audit(query).await
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        self.now().identity().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.now().ping().await
    }

    async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        self.now().settings().await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.now().now().await
    }

    async fn prune(&self) -> Result<u64, StoreError> {
        self.now().prune().await
    }

    async fn prune_audit(&self, retention: Duration) -> Result<u64, StoreError> {
        self.now().prune_audit(retention).await
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(RotatingOutbox(self.current.clone()))
    }

    fn event_log(&self) -> Arc<dyn EventLog> {
        Arc::new(RotatingLog(self.current.clone()))
    }
}

impl RotatingOutbox {
    fn now(&self) -> Arc<dyn Outbox> {
        self.0.load().outbox()
    }
}

#[async_trait]
impl Outbox for RotatingOutbox {
    async fn claim(&self, owner: &str, lease: Duration, limit: usize) -> Result<Claimed, OutboxError> {
        self.now().claim(owner, lease, limit).await
    }

    async fn confirm(&self, owner: &str, ids: &[Uuid]) -> Result<(), OutboxError> {
        self.now().confirm(owner, ids).await
    }

    async fn release(&self, owner: &str) -> Result<(), OutboxError> {
        self.now().release(owner).await
    }

    async fn backlog(&self) -> Result<Backlog, OutboxError> {
        self.now().backlog().await
    }
}

impl RotatingLog {
    fn now(&self) -> Arc<dyn EventLog> {
        self.0.load().event_log()
    }
}

#[async_trait]
impl EventLog for RotatingLog {
    async fn identity(&self) -> Result<String, LogError> {
        self.now().identity().await
    }

    async fn append(&self, log: &str, entries: &[Entry]) -> Result<(), LogError> {
        self.now().append(log, entries).await
    }

    async fn page(
        &self,
        log: &str,
        from: u64,
        parts: Option<&[i64]>,
        limit: usize,
    ) -> Result<LogPage, LogError> {
        self.now().page(log, from, parts, limit).await
    }

    async fn newest(&self, log: &str) -> Result<Option<Newest>, LogError> {
        self.now().newest(log).await
    }

    async fn oldest(&self, log: &str) -> Result<u64, LogError> {
        self.now().oldest(log).await
    }

    async fn count(&self, log: &str, after: &[(i64, u64)]) -> Result<u64, LogError> {
        self.now().count(log, after).await
    }

    async fn prune(&self, log: &str, up_to: u64, before: Timestamp) -> Result<bool, LogError> {
        self.now().prune(log, up_to, before).await
    }

    async fn claims(&self, group: Group<'_>) -> Result<Vec<Claim>, LogError> {
        self.now().claims(group).await
    }

    async fn claim(
        &self,
        group: Group<'_>,
        part: i64,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<u64>, LogError> {
        self.now().claim(group, part, owner, lease).await
    }

    async fn keep(
        &self,
        group: Group<'_>,
        owner: &str,
        lease: Duration,
        positions: &[(i64, u64)],
    ) -> Result<Vec<i64>, LogError> {
        self.now().keep(group, owner, lease, positions).await
    }

    async fn release(&self, group: Group<'_>, owner: &str, positions: &[(i64, u64)]) -> Result<(), LogError> {
        self.now().release(group, owner, positions).await
    }
}
