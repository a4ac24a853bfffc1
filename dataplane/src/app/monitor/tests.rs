//! Parts that come late, and those that stay away.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use async_trait::async_trait;
use tokio::time::timeout;

use super::*;
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Idempotency, UnitOfWork, Written},
    event::Outbox,
    key::Key,
    query::{Page, Query},
    record::Lookup,
};
use store::confined::{ConfinedStore, PoolFault, PoolReason};

const LONG: Duration = Duration::from_secs(20);

/// A store one of whose pools cannot be used for so many looks.
struct Lacking(AtomicU32);

#[async_trait]
impl RecordStore for Lacking {
    async fn prepare(&self, _: &[Arc<Collection>]) -> Result<(), StoreError> {
        unreachable!("each collection is prepared by itself")
    }
    async fn prepare_each(&self, _: &[Arc<Collection>]) -> Result<BTreeMap<String, PoolFault>, StoreError> {
        let left = self.0.load(SeqCst);
        self.0.store(left.saturating_sub(1), SeqCst);
        let fault = PoolFault::new(PoolReason::TableMissing, "the database has no table things");
        Ok((left > 0).then(|| ("things".to_owned(), fault)).into_iter().collect())
    }
    async fn read(&self, _: &Collection, _: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        unreachable!("nobody reads")
    }
    async fn find(&self, _: &Collection, _: &Query) -> Result<Page, StoreError> {
        unreachable!("nobody reads")
    }
    async fn commit(&self, _: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        unreachable!("nobody writes")
    }
    async fn recall(&self, _: &Collection, _: &Idempotency) -> Result<Option<Vec<Written>>, StoreError> {
        unreachable!("nobody writes")
    }
    async fn audit(&self, _: &AuditQuery) -> Result<AuditFound, StoreError> {
        unreachable!("nobody reads")
    }
    async fn prune(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn outbox(&self) -> Arc<dyn Outbox> {
        unreachable!("nobody relays")
    }
}

#[tokio::test]
async fn a_pool_that_is_away_holds_nobody_up_and_is_tried_until_it_is_back() {
    let lacking = Arc::new(Lacking(AtomicU32::new(2)));
    let store = Arc::new(ConfinedStore::new(lacking.clone()));
    let away = store.away().clone();
    let stores = BTreeMap::from([("mysql".to_owned(), store as Arc<dyn RecordStore>)]);
    let all_away = BTreeMap::from([("mysql".to_owned(), away.clone())]);
    let shutdown = Shutdown::on_signal(Duration::ZERO, Duration::MAX).unwrap();
    let mut readiness = watch_readiness(&stores, &BTreeMap::new(), &all_away, shutdown, async {});
    timeout(LONG, readiness.unready.wait_for(Option::is_none)).await.expect("it is ready").unwrap();
    assert!(*readiness.prepared.borrow());
    assert_eq!(away.of("things").map(|fault| fault.reason), Some(PoolReason::TableMissing));
    let back = async {
        while away.any() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, back).await.expect("it is back");
    // a request that met what it should not: looked at at once, not at the next time
    lacking.0.store(1, SeqCst);
    away.suspect();
    let gone = async {
        while !away.any() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(RECHECK / 2, gone).await.expect("it is looked at");
}
