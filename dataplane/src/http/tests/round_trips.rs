//! How often the store is asked: reads of many cost one call, whatever memory has already.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;

use super::*;
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Idempotency, UnitOfWork, Written},
    event::Outbox,
    key::Key,
    query::{Page, Query},
    record::Lookup,
};
use store::StoreError;

/// A store that counts the calls that read, and their keys.
struct Counting {
    store: Arc<dyn RecordStore>,
    calls: AtomicUsize,
    keys: AtomicUsize,
}

impl Counting {
    /// The calls since the last time, and their keys.
    fn take(&self) -> (usize, usize) {
        (self.calls.swap(0, Ordering::SeqCst), self.keys.swap(0, Ordering::SeqCst))
    }

    fn count(&self, keys: usize) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.keys.fetch_add(keys, Ordering::SeqCst);
    }
}

#[async_trait]
impl RecordStore for Counting {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        self.store.prepare(collections).await
    }
    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        self.count(keys.len());
        self.store.read(collection, keys).await
    }
    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        self.count(0);
        self.store.find(collection, query).await
    }
    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        self.store.commit(work).await
    }
    async fn prune(&self) -> Result<u64, StoreError> {
        self.store.prune().await
    }
    async fn recall(
        &self,
        collection: &Collection,
        key: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        self.store.recall(collection, key).await
    }
    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        self.store.audit(query).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
    fn outbox(&self) -> Arc<dyn Outbox> {
        self.store.outbox()
    }
}

#[tokio::test]
async fn a_read_of_many_is_two_calls_of_the_store_and_a_kept_page_is_none() {
    let folder = Folder::new();
    let store: Arc<dyn RecordStore> =
        Arc::new(SqlStore::sqlite(&folder.path().join("data.db"), Arc::new(Plain)).unwrap());
    let collections = [collection_of(Entity::User)];
    store.prepare(&collections).await.unwrap();
    let counting = Arc::new(Counting { store, calls: AtomicUsize::new(0), keys: AtomicUsize::new(0) });
    let store: Arc<dyn RecordStore> = counting.clone();
    let server = Server::over(&store, &collections).await;
    for index in 0..5 {
        let body = format!(r#"{{"id":"u{index}","email":"u{index}@example.org","name":"U"}}"#);
        server.post("/users", &body).await.expect(201);
    }
    let many =
        |from: usize| (from..from + 1_000).map(|index| format!("u{index}")).collect::<Vec<_>>().join(",");
    counting.take();
    assert_eq!(server.get(&format!("/users?ids={}", many(0))).await.expect(200).ids().len(), 5);
    // the first few say how many of the others fit into a page
    assert_eq!(counting.take(), (2, 1_000));
    // those that are in memory, and those that are known not to be there, are not asked for again
    assert_eq!(server.get(&format!("/users?ids={}", many(3))).await.expect(200).ids(), ["u3", "u4"]);
    assert_eq!(counting.take(), (1, 3));
    server.get(&format!("/users?ids={}", many(3))).await.expect(200);
    assert_eq!(counting.take(), (0, 0));
    for calls in [1, 0] {
        assert_eq!(server.get("/users?limit=2").await.expect(200).ids(), ["u0", "u1"]);
        assert_eq!(counting.take().0, calls, "a page is kept until something changes");
    }
}
