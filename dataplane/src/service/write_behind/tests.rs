//! Write-behind over SQLite and the embedded log: a store that is away, a restart, two replicas, a full log.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use futures::future::join_all;

use super::{WriteBehind, WriteBehindConfig};
use ::testing::until;
use events::{
    EventBus,
    local::{LocalBus, LocalOptions},
};
use model::{
    audit::{AuditFound, AuditQuery},
    budget::Allowance,
    change::{Action, Change, Collection, Guard, Idempotency, UnitOfWork, Written},
    entities,
    event::Outbox,
    key::{Key, Version},
    query::{Filter, Page, Query, Start},
    record::Lookup,
    seal::{SealError, Sealer},
    value::{Json, Row, Value},
};
use store::{RecordStore, StoreError, sql::SqlStore};

struct Plain;

impl Sealer for Plain {
    fn seal(&self, plain: &[u8], _: &str) -> String {
        String::from_utf8_lossy(plain).into_owned()
    }

    fn open(&self, sealed: &str, _: &str) -> Result<Vec<u8>, SealError> {
        Ok(sealed.as_bytes().to_vec())
    }
}

/// A store that can be away for writers.
struct Away {
    store: SqlStore,
    away: AtomicBool,
    commits: AtomicU64,
}

#[async_trait]
impl RecordStore for Away {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        self.store.prepare(collections).await
    }
    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        self.store.read(collection, keys).await
    }
    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        self.store.find(collection, query).await
    }
    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        if self.away.load(SeqCst) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        self.commits.fetch_add(1, SeqCst);
        self.store.commit(work).await
    }
    async fn recall(&self, _: &Collection, _: &Idempotency) -> Result<Option<Vec<Written>>, StoreError> {
        Ok(None)
    }
    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        self.store.audit(query).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
    async fn prune(&self) -> Result<u64, StoreError> {
        self.store.prune().await
    }
    fn outbox(&self) -> Arc<dyn Outbox> {
        self.store.outbox()
    }
}

struct World {
    dir: PathBuf,
    inner: Arc<Away>,
    log: Arc<dyn EventBus>,
    collection: Arc<Collection>,
}

impl World {
    async fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("flyweight-behind-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&dir).unwrap();
        let schema = Arc::new(entities::builtin(crds::pool::Entity::Configuration).unwrap());
        let name = schema.collection.clone();
        let collection = Arc::new(Collection {
            pool: "settings".to_owned(),
            schema,
            name,
            key_column: "id".to_owned(),
            version_column: Some("version".to_owned()),
            declared: false,
        });
        let store = SqlStore::sqlite(&dir.join("data.db"), Arc::new(Plain)).unwrap();
        store.prepare(std::slice::from_ref(&collection)).await.unwrap();
        let log = Arc::new(LocalBus::open(&dir, LocalOptions::default()).await.unwrap());
        let inner = Arc::new(Away { store, away: AtomicBool::new(false), commits: AtomicU64::new(0) });
        Self { dir, inner, log, collection }
    }

    /// A replica that has caught up.
    async fn replica(&self, waiting_max: u64) -> Arc<WriteBehind> {
        let behind = self.starting(waiting_max);
        until("it has caught up", async || behind.lag().caught_up).await;
        behind
    }

    fn starting(&self, waiting_max: u64) -> Arc<WriteBehind> {
        Arc::new(WriteBehind::new(WriteBehindConfig {
            inner: self.inner.clone(),
            collection: self.collection.clone(),
            log: self.log.clone(),
            sealer: Arc::new(Plain),
            wake: Arc::new(|| {}),
            waiting_max,
        }))
    }

    fn row(&self, text: &str) -> Row {
        let value = |name: &str| match name {
            "value" => Value::Json(Json::parse(&format!("{text:?}")).unwrap()),
            _ => Value::Null,
        };
        Row(self.collection.schema.fields.iter().map(|field| value(&field.name)).collect())
    }

    async fn write(&self, behind: &WriteBehind, key: &str, action: Action) -> Result<Written, StoreError> {
        let change = Change { collection: self.collection.clone(), key: key.parse().unwrap(), action };
        let written = behind
            .commit(UnitOfWork {
                changes: vec![change],
                actor: "me".to_owned(),
                idempotency: None,
                deadline: None,
            })
            .await?;
        Ok(written.into_iter().next().unwrap())
    }

    async fn put(
        &self,
        behind: &WriteBehind,
        key: &str,
        guard: Guard,
        text: &str,
    ) -> Result<u64, StoreError> {
        let written = self.write(behind, key, Action::Upsert { guard, values: self.row(text) }).await?;
        Ok(written.version.0)
    }

    async fn read(&self, store: &dyn RecordStore, key: &str) -> Lookup {
        store.read(&self.collection, &[key.parse().unwrap()]).await.unwrap().remove(0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test]
async fn acknowledged_writes_are_read_while_the_store_is_away_and_settled_as_one() {
    let world = World::new().await;
    let behind = world.replica(100).await;
    world.inner.away.store(true, SeqCst);
    for version in 1..=6 {
        assert_eq!(world.put(&behind, "k", Guard::Any, &format!("at {version}")).await.unwrap(), version);
    }
    let newest = world.read(&*behind, "k").await;
    assert!(matches!(&newest, Lookup::Found(record) if record.version == Version(6)), "{newest:?}");
    let stale = world.put(&behind, "k", Guard::Exactly(Version(5)), "late").await;
    assert!(matches!(stale, Err(StoreError::Stale { current: Version(6) })), "{stale:?}");
    let exists = world.write(&behind, "k", Action::Create { values: world.row("x"), fresh_key: false }).await;
    assert!(matches!(exists, Err(StoreError::Exists)), "{exists:?}");
    world.put(&behind, "gone", Guard::Any, "x").await.unwrap();
    world.write(&behind, "gone", Action::Delete { guard: Guard::Any }).await.unwrap();
    assert_eq!(world.read(&*behind, "gone").await, Lookup::Deleted(Version(2)));
    assert_eq!(world.read(&*world.inner, "k").await, Lookup::Missing);
    let lag = behind.lag();
    assert_eq!((lag.waiting, lag.settled, lag.coalesced), (2, 0, 6), "{lag:?}");

    world.inner.away.store(false, SeqCst);
    until("the store has all", async || behind.lag().waiting == 0).await;
    assert_eq!(world.read(&*world.inner, "k").await, newest);
    assert_eq!(world.read(&*world.inner, "gone").await, Lookup::Deleted(Version(2)));
    assert_eq!(world.inner.commits.load(SeqCst), 1, "both keys in one transaction");
    let lag = behind.lag();
    assert_eq!((lag.settled, lag.conflicts), (2, 0), "{lag:?}");
    // and on it goes from there
    assert_eq!(world.put(&behind, "k", Guard::Exactly(Version(6)), "next").await.unwrap(), 7);
    let query = Query {
        filter: Filter::All,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 10,
        count: false,
        allowance: Allowance::default(),
    };
    let page = behind.find(&world.collection, &query).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.version.0).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_process() {
    let world = World::new().await;
    let behind = world.replica(100).await;
    world.put(&behind, "settled", Guard::Any, "before").await.unwrap();
    until("the store has it", async || behind.lag().waiting == 0).await;
    world.inner.away.store(true, SeqCst);
    for n in 0..20 {
        world.put(&behind, &format!("k{n}"), Guard::Any, "x").await.unwrap();
        world.put(&behind, &format!("k{n}"), Guard::Any, "y").await.unwrap();
    }
    drop(behind);
    let again = world.starting(100);
    until("the log is read", async || again.lag().waiting == 20).await;
    let early = again.read(&world.collection, &["k1".parse().unwrap()]).await;
    assert!(
        matches!(early, Err(StoreError::Unavailable(_))),
        "it answered before it has caught up: {early:?}"
    );
    world.inner.away.store(false, SeqCst);
    until("it has caught up", async || again.lag().caught_up).await;
    for n in 0..20 {
        let found = world.read(&*world.inner, &format!("k{n}")).await;
        assert!(matches!(&found, Lookup::Found(record) if record.version == Version(2)), "{found:?}");
    }
    assert_eq!(again.lag().conflicts, 0);
    assert_eq!(world.put(&again, "settled", Guard::Exactly(Version(1)), "after").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_never_acknowledge_one_version_twice() {
    let world = Arc::new(World::new().await);
    let replicas = [world.replica(100).await, world.replica(100).await];
    let writers = (0..8).map(|number| {
        let (world, behind) = (world.clone(), replicas[number % 2].clone());
        tokio::spawn(async move {
            let mut versions = Vec::new();
            while versions.len() < 15 {
                match world.put(&behind, "k", Guard::Any, &format!("{number}")).await {
                    Ok(version) => versions.push(version),
                    Err(StoreError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            versions
        })
    });
    let acknowledged = join_all(writers.collect::<Vec<_>>()).await;
    let mut versions: Vec<u64> = acknowledged.into_iter().flat_map(Result::unwrap).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=120).collect::<Vec<u64>>());
    until("all is settled", async || replicas.iter().all(|replica| replica.lag().waiting == 0)).await;
    let found = world.read(&*world.inner, "k").await;
    assert!(matches!(&found, Lookup::Found(record) if record.version == Version(120)), "{found:?}");
    assert_eq!(replicas.iter().map(|replica| replica.lag().conflicts).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_full_log_refuses_new_keys_only() {
    let world = World::new().await;
    let behind = world.replica(3).await;
    world.inner.away.store(true, SeqCst);
    for key in ["a", "b", "c"] {
        world.put(&behind, key, Guard::Any, "x").await.unwrap();
    }
    let refused = world.put(&behind, "d", Guard::Any, "x").await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(world.put(&behind, "a", Guard::Any, "y").await.unwrap(), 2);
    let change = |key: &str| Change {
        collection: world.collection.clone(),
        key: key.parse().unwrap(),
        action: Action::Delete { guard: Guard::Any },
    };
    let two = UnitOfWork {
        changes: vec![change("a"), change("b")],
        actor: String::new(),
        idempotency: None,
        deadline: None,
    };
    assert!(matches!(behind.commit(two).await, Err(StoreError::Unsupported(_))));
    world.inner.away.store(false, SeqCst);
    until("there is room again", async || world.put(&behind, "d", Guard::Any, "x").await.is_ok()).await;
}
