//! A store behind a breaker: while it does not answer, calls are refused at once instead of waiting for their
//! deadlines, so that what waits for a frozen store takes no places from what it has no part in.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::timeout;

use super::{RecordStore, StoreError, confined::PoolFault, identity::Identity, limits::Limits};
use model::{
    audit::{AuditFound, AuditQuery},
    breaker::Breaker,
    change::{Collection, Idempotency, UnitOfWork, Written},
    durability::Setting,
    event::Outbox,
    key::Key,
    log::EventLog,
    query::{Page, Query},
    record::Lookup,
    value::Timestamp,
};

/// Calls that were not answered in time, with none in between that was, after which a store is left alone.
const THRESHOLD: u32 = 10;
/// For how long; then one call at a time finds out whether it is back.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// A call that takes longer was not answered in time, also while somebody waits for it: below the deadlines
/// of those who call.
const SLOW: Duration = Duration::from_secs(3);

/// A store that is left alone for a while after failures.
pub struct GuardedStore {
    store: Arc<dyn RecordStore>,
    guard: Guard,
}

struct Guard {
    breaker: Breaker,
    slow: Duration,
    /// Calls that were answered so far.
    answers: AtomicU64,
}

impl GuardedStore {
    /// A guard around a store.
    pub fn new(store: Arc<dyn RecordStore>) -> Self {
        Self { store, guard: Guard::default() }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self { breaker: Breaker::new(THRESHOLD, OPEN_FOR), slow: SLOW, answers: AtomicU64::new(0) }
    }
}

impl Guard {
    async fn call<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let Some(permit) = self.breaker.try_acquire() else {
            return Err(StoreError::Unavailable(
                "it does not answer, and is left alone for a moment".to_owned(),
            ));
        };
        let before = self.answers.load(Ordering::Relaxed);
        let mut work = std::pin::pin!(work);
        let Ok(outcome) = timeout(self.slow, &mut work).await else {
            // a store that has answered others meanwhile is there: this call waits for something else, or for
            // a store that has just come back
            let is_silent = self.answers.load(Ordering::Relaxed) == before;
            if !is_silent {
                drop(permit);
            } else if permit.failure() {
                tracing::debug!("a store does not answer: calls are refused at once for a moment");
            }
            return work.await;
        };
        match &outcome {
            // said soon: it costs nobody a place, and says nothing of those that wait
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => drop(permit),
            // it answered, whatever it said
            Ok(_) | Err(_) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                permit.success();
            }
        }
        outcome
    }
}

#[async_trait]
impl RecordStore for GuardedStore {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        self.store.prepare(collections).await
    }

    async fn prepare_each(
        &self,
        collections: &[Arc<Collection>],
    ) -> Result<BTreeMap<String, PoolFault>, StoreError> {
        self.store.prepare_each(collections).await
    }

    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        self.guard.call(self.store.read(collection, keys)).await
    }

    async fn limits(&self, collection: &Collection) -> Result<Arc<Limits>, StoreError> {
        self.store.limits(collection).await
    }

    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        self.guard.call(self.store.find(collection, query)).await
    }

    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        self.guard.call(self.store.commit(work)).await
    }

    async fn recall(
        &self,
        collection: &Collection,
        idempotency: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        self.guard.call(self.store.recall(collection, idempotency)).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        self.guard.call(self.store.audit(query)).await
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        self.store.identity().await
    }

    // asked to find out whether it answers
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
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
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_left_alone() {
        let slow = Duration::from_millis(10);
        let guard = Guard { slow, ..Guard::default() };
        let asked = AtomicU32::new(0);
        let hangs = async || {
            let call = guard.call(async {
                asked.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<Result<(), StoreError>>().await
            });
            timeout(slow * 2, call).await
        };
        let answers = async || guard.call(async { Err::<(), _>(StoreError::NotFound) }).await;
        assert!(matches!(answers().await, Err(StoreError::NotFound)));
        let all = futures::future::join_all((0..THRESHOLD).map(|_| hangs())).await;
        assert!(all.iter().all(Result::is_err), "their own deadlines end them");
        assert!(matches!(answers().await, Err(StoreError::Unavailable(_))));
        assert_eq!(asked.load(Ordering::Relaxed), THRESHOLD, "it was not asked");
    }

    #[tokio::test]
    async fn one_that_answers_others_meanwhile_is_not() {
        let slow = Duration::from_millis(10);
        let guard = Guard { slow, ..Guard::default() };
        let hangs = || timeout(slow * 4, guard.call(std::future::pending::<Result<(), StoreError>>()));
        let answers = async || guard.call(async { Ok::<_, StoreError>(()) }).await;
        let all = futures::future::join_all((0..THRESHOLD * 2).map(|_| hangs()));
        let (all, ()) = tokio::join!(all, async {
            answers().await.unwrap();
        });
        assert!(all.iter().all(Result::is_err));
        answers().await.unwrap();
    }
}
