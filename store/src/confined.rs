//! A store that confines the faults of its collections: one that cannot be used takes only its own pool away,
//! and is asked for again until it can.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{RecordStore, StoreError, identity::Identity, limits::Limits, room::Room};
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Collection, Idempotency, UnitOfWork, Written},
    durability::Setting,
    event::Outbox,
    key::Key,
    log::EventLog,
    query::{Page, Query},
    record::Lookup,
    value::Timestamp,
};

/// What keeps a pool's collection from being used: its owner has to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolFault {
    /// One word for programs.
    pub reason: PoolReason,
    /// A sentence for people. It holds no value of a record, and no words of the database.
    pub message: String,
}

/// Why a collection cannot be used, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PoolReason {
    /// The database has no such table, or hides it from the account.
    TableMissing,
    /// The table has no such column.
    ColumnMissing,
    /// A column does not hold what is declared.
    ColumnUnfit,
    /// The account may not do it.
    RightMissing,
    /// Anything else that is the collection's alone.
    PoolUnavailable,
}

/// The pools of one store that are away.
#[derive(Default)]
pub struct Away {
    any: AtomicBool,
    faults: RwLock<BTreeMap<String, PoolFault>>,
    suspected: Notify,
}

/// A store whose pools can be away one by one.
pub struct ConfinedStore {
    store: Arc<dyn RecordStore>,
    away: Arc<Away>,
    room: Arc<Room>,
}

impl PoolFault {
    /// A fault with its reason.
    pub fn new(reason: PoolReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The same of a collection, which the message then names.
    #[must_use]
    pub fn of(self, collection: &Collection) -> Self {
        let name = &collection.name;
        let message = match self.message.contains(name.as_str()) {
            true => self.message,
            false => format!("{name}: {}", self.message),
        };
        Self { message, ..self }
    }
}

impl Away {
    /// Why a pool is away; none where it is not.
    pub fn of(&self, pool: &str) -> Option<PoolFault> {
        self.any.load(Ordering::Acquire).then(|| self.faults.read().get(pool).cloned()).flatten()
    }

    /// All pools that are away, with why.
    pub fn all(&self) -> BTreeMap<String, PoolFault> {
        self.faults.read().clone()
    }

    /// Whether some pool is away.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Something may have changed: the collections are to be looked at again.
    pub fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Waits until something may have changed.
    pub async fn suspected(&self) {
        self.suspected.notified().await;
    }

    fn set(&self, faults: BTreeMap<String, PoolFault>) {
        let mut known = self.faults.write();
        for (pool, PoolFault { reason, message }) in &faults {
            if known.get(pool).is_none_or(|known| known.message != *message) {
                warn!(
                    pool,
                    ?reason,
                    message,
                    "the pool is unavailable: it is tried again until it can be used"
                );
            }
        }
        for pool in known.keys().filter(|pool| !faults.contains_key(*pool)) {
            info!(pool, "the pool is available again");
        }
        self.any.store(!faults.is_empty(), Ordering::Release);
        *known = faults;
    }
}

impl ConfinedStore {
    /// A store around another.
    pub fn new(store: Arc<dyn RecordStore>) -> Self {
        Self { store, away: Arc::default(), room: Arc::default() }
    }

    /// Which of its pools are away.
    pub fn away(&self) -> &Arc<Away> {
        &self.away
    }

    /// Whether it has room.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    fn check(&self, collection: &Collection) -> Result<(), StoreError> {
        match self.away.of(&collection.pool) {
            Some(fault) => Err(StoreError::Unprepared(fault)),
            None => Ok(()),
        }
    }

    /// An answer that tells of a fault of a collection lets the collections be looked at again.
    fn told<T>(&self, collection: &Collection, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.map_err(|error| match error {
            StoreError::Unprepared(fault) => {
                self.away.suspect();
                StoreError::Unprepared(fault.of(collection))
            }
            other => other,
        })
    }
}

#[async_trait]
impl RecordStore for ConfinedStore {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        self.store.prepare(collections).await
    }

    async fn prepare_each(
        &self,
        collections: &[Arc<Collection>],
    ) -> Result<BTreeMap<String, PoolFault>, StoreError> {
        let faults = self.store.prepare_each(collections).await?;
        self.away.set(faults.clone());
        Ok(faults)
    }

    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        self.check(collection)?;
        self.told(collection, self.store.read(collection, keys).await)
    }

    async fn limits(&self, collection: &Collection) -> Result<Arc<Limits>, StoreError> {
        self.check(collection)?;
        self.told(collection, self.store.limits(collection).await)
    }

    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        self.check(collection)?;
        self.told(collection, self.store.find(collection, query).await)
    }

    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        work.changes.iter().try_for_each(|change| self.check(&change.collection))?;
        let Some(first) = work.changes.first().map(|change| change.collection.clone()) else {
            return Ok(Vec::new());
        };
        let written = self.store.commit(work).await;
        self.room.note(&written);
        self.told(&first, written)
    }

    async fn recall(
        &self,
        collection: &Collection,
        idempotency: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        self.check(collection)?;
        self.told(collection, self.store.recall(collection, idempotency).await)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        self.store.audit(query).await
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        self.store.identity().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self.store.ping().await {
            // it answers, and has no room
            full @ Err(StoreError::Full(_)) => {
                self.room.note(&full);
                Ok(())
            }
            answer => answer,
        }
    }

    async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        self.store.settings().await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    async fn prune(&self) -> Result<u64, StoreError> {
        self.store.prune().await
    }

    async fn prune_audit(&self, retention: Duration) -> Result<u64, StoreError> {
        self.store.prune_audit(retention).await
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.store.outbox()
    }

    fn event_log(&self) -> Arc<dyn EventLog> {
        self.store.event_log()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::encryption::FieldSealer;
    use crate::sql::SqlStore;
    use model::entities::product;

    #[tokio::test]
    async fn a_request_that_meets_a_fault_lets_the_pools_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let inner =
            SqlStore::sqlite(&folder.path().join("data.db"), Arc::new(FieldSealer::ephemeral())).unwrap();
        let store = ConfinedStore::new(Arc::new(inner));
        let collection = Collection {
            pool: "products".to_owned(),
            schema: Arc::new(product::schema()),
            name: "goods".to_owned(),
            key_column: "id".to_owned(),
            version_column: None,
            declared: true,
        };
        let waits = async || timeout(Duration::from_millis(100), store.away().suspected()).await.is_err();
        assert!(store.told(&collection, Err::<(), _>(StoreError::NotFound)).is_err() && waits().await);
        let fault = PoolFault::new(PoolReason::TableMissing, "the database has no such table");
        let told = store.told(&collection, Err::<(), _>(StoreError::Unprepared(fault))).unwrap_err();
        assert!(
            matches!(&told, StoreError::Unprepared(fault) if fault.message.starts_with("goods: ")),
            "{told:?}"
        );
        assert!(!waits().await);
    }
}
