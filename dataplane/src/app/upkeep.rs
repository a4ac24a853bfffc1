//! Lets each store drop from time to time what is older than its retention.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use store::{RecordStore, StoreError};

/// How often a store drops what is old, shortened at random by up to a half, so that replicas do not come
/// together.
pub const INTERVAL: Duration = Duration::from_secs(3_600);
/// How long one step may take, and the pause before the next, so that readers and writers hardly notice.
const STEP_DEADLINE: Duration = Duration::from_secs(30);
const STEP_PAUSE: Duration = Duration::from_millis(100);

/// Prunes a store until the process ends.
pub async fn prune_for_ever(
    name: String,
    store: Arc<dyn RecordStore>,
    interval: Duration,
    audit_retention: impl Fn() -> Option<Duration>,
) {
    loop {
        sleep(interval.mul_f64(rand::random_range(0.5..1.0))).await;
        let removed = prune(&name, || store.prune()).await;
        if removed > 0 {
            info!(store = name, removed, "versions of records deleted long ago were dropped");
        }
        if let Some(retention) = audit_retention() {
            let removed = prune(&name, || store.prune_audit(retention)).await;
            if removed > 0 {
                info!(store = name, removed, "entries of the audit beyond its retention were dropped");
            }
        }
    }
}

/// Prunes a store until nothing is left to drop. What it cannot drop now, it drops the next time.
async fn prune<F: Future<Output = Result<u64, StoreError>>>(name: &str, step: impl Fn() -> F) -> u64 {
    let mut removed = 0;
    loop {
        match timeout(STEP_DEADLINE, step()).await {
            Ok(Ok(0)) => return removed,
            Ok(Ok(more)) => removed += more,
            Ok(Err(error)) => {
                warn!(store = name, %error, "old versions were not dropped: tried again within the hour");
                return removed;
            }
            Err(_) => return removed,
        }
        sleep(STEP_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use ::testing::until;
    use model::{
        audit::{AuditFound, AuditQuery},
        change::{Collection, Idempotency, UnitOfWork, Written},
        event::Outbox,
        key::Key,
        query::{Page, Query},
        record::Lookup,
    };
    use store::StoreError;

    /// A store with so many old versions, and then so many old entries of its audit, 1,000 of which go at a
    /// time.
    struct Old(AtomicU64, AtomicU64);

    #[async_trait]
    impl RecordStore for Old {
        async fn prepare(&self, _: &[Arc<Collection>]) -> Result<(), StoreError> {
            Ok(())
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
            let left = self.0.load(SeqCst);
            self.0.store(left.saturating_sub(1_000), SeqCst);
            if left == 500 { Err(StoreError::Unavailable("away".to_owned())) } else { Ok(left.min(1_000)) }
        }
        async fn prune_audit(&self, retention: Duration) -> Result<u64, StoreError> {
            assert_eq!(retention, KEPT);
            let left = self.1.load(SeqCst);
            self.1.store(left.saturating_sub(1_000), SeqCst);
            Ok(left.min(1_000))
        }
        async fn ping(&self) -> Result<(), StoreError> {
            Ok(())
        }
        fn outbox(&self) -> Arc<dyn Outbox> {
            unreachable!("nobody relays")
        }
    }

    const KEPT: Duration = Duration::from_secs(7_200);

    /// What is logged meanwhile.
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_audit_goes_only_where_a_retention_says_so_and_that_is_told() {
        let said = Said::default();
        let writer = said.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _log = tracing::subscriber::set_default(log);
        let store = Arc::new(Old(AtomicU64::new(0), AtomicU64::new(2_700)));
        let retention = Arc::new(Mutex::new(None));
        let (pruned, asked) = (store.clone(), retention.clone());
        // on this thread, whose log is looked at
        let upkeep =
            prune_for_ever("main".to_owned(), pruned, Duration::from_millis(10), move || *asked.lock());
        let look = async {
            sleep(Duration::from_millis(300)).await;
            assert_eq!(store.1.load(SeqCst), 2_700, "without a retention all of it stays");
            // it can be said while the process runs
            *retention.lock() = Some(KEPT);
            let told = "entries of the audit beyond its retention were dropped store=\"main\" removed=2700";
            until("that they are gone is told", async || {
                String::from_utf8_lossy(&said.0.lock()).contains(told)
            })
            .await;
            assert_eq!(store.1.load(SeqCst), 0);
        };
        tokio::select! {
            () = upkeep => unreachable!("it goes on for ever"),
            () = look => {}
        }
    }

    #[tokio::test]
    async fn a_store_is_pruned_again_and_again_until_nothing_is_left() {
        let store = Arc::new(Old(AtomicU64::new(2_700), AtomicU64::new(0)));
        let upkeep = tokio::spawn(prune_for_ever(
            "store".to_owned(),
            store.clone(),
            Duration::from_millis(10),
            || None,
        ));
        until("all is gone", async || store.0.load(SeqCst) == 0).await;
        // a store that is away is tried again the next time
        store.0.store(1_500, SeqCst);
        until("all is gone", async || store.0.load(SeqCst) == 0).await;
        upkeep.abort();
    }
}
