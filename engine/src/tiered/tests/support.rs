//! A store that can be held up or fail, a shared cache that can fail or forget, and pools in front of them.

#![allow(
    missing_docs,
    dead_code,
    reason = "the tests that use it are its documentation; another crate that includes it uses a part"
)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use engine::memory::Policy;
use engine::tiered::{TierConfig, TierPlace, WriteStrategy};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use engine::{
    clock::Clock,
    memory::{MemoryConfig, MemoryTier, PoolConfig, PoolId},
    shared::{Held, LocalShared, Order, SharedCache, SharedError, SharedStatus},
    tiered::{Backing, Loader, ReadError, Served, Tiered, TieredConfig, lifetime},
};
use model::{
    key::{Key, Version},
    record::{Lookup, Record},
    schema::{Field, Form, Kind, Schema},
    value::{Row, Timestamp, Value},
};

/// A store whose reads take their answer first and can then be held up.
#[derive(Default)]
pub struct Store {
    records: Mutex<HashMap<Key, Lookup>>,
    pub loads: AtomicUsize,
    pub failing: AtomicBool,
    pub gate: Mutex<Option<Arc<Gate>>>,
}

/// Where loads stop with their answer in hand, or those who ask for a lease.
pub struct Gate {
    pub reached: Semaphore,
    pub open: Semaphore,
}

/// A shared cache that fails or forgets at will.
pub struct Flaky {
    inner: Mutex<Arc<LocalShared>>,
    clock: Clock,
    pub failing: AtomicBool,
    pub trusted_ms: AtomicU64,
    /// How often a lease was given back.
    pub released: AtomicU64,
    lease_gate: Mutex<Option<Arc<Gate>>>,
}

/// One replica's tiers of one pool.
#[derive(Clone)]
pub struct Replica {
    pub tiered: Arc<Tiered>,
    pub memory: Arc<MemoryTier>,
    pub pool: PoolId,
    pub load: Loader,
}

pub fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub fn schema() -> Arc<Schema> {
    let name = Field::new("name", Kind::Text { max: 100, form: Form::Any });
    Arc::new(Schema::new("thing", "things", vec![name]))
}

pub fn found(key: &Key, version: u64) -> Lookup {
    let (created_at, updated_at) = (Timestamp(0), Timestamp(version as i64));
    let values = Row(vec![Value::Text(format!("{key} at {version}"))]);
    Lookup::Found(Record { key: key.clone(), version: Version(version), created_at, updated_at, values })
}

pub fn tier(name: &str, write: WriteStrategy) -> TierConfig {
    TierConfig {
        name: name.to_owned(),
        place: TierPlace::Memory,
        ttl: Duration::from_secs(60),
        jitter_percent: 0,
        negative_ttl: Duration::from_secs(2),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        write,
    }
}

impl Replica {
    pub fn new(
        store: &Arc<Store>,
        clock: &Clock,
        memory: &TierConfig,
        shared: Option<(&TierConfig, &Arc<Flaky>)>,
    ) -> Self {
        let shared = shared.map(|(settings, cache)| (settings, cache.clone() as Arc<dyn SharedCache>));
        Self::with(store, clock, memory, shared)
    }

    pub fn with(
        store: &Arc<Store>,
        clock: &Clock,
        memory: &TierConfig,
        shared: Option<(&TierConfig, Arc<dyn SharedCache>)>,
    ) -> Self {
        let config = MemoryConfig { max_bytes: 64 << 20, policy: Policy::S3Fifo, shards: 0, seed: 1 };
        let tier = Arc::new(MemoryTier::new(config));
        let pool = PoolConfig { capacity: 1_000_000, idle_after_ms: 1 << 40, lifetime: lifetime(memory) };
        let pool = tier.register(schema(), pool).unwrap();
        let mut tiers = vec![(memory.clone(), Backing::Memory(tier.clone(), pool))];
        tiers.extend(shared.map(|(settings, cache)| (settings.clone(), Backing::Shared(cache))));
        let tiered = Arc::new(Tiered::new(TieredConfig {
            pool: "things".to_owned(),
            schema: schema(),
            tiers,
            sealer: None,
            clock: clock.clone(),
            load_deadline: Duration::from_secs(20),
            not_yet_deadline: Duration::from_millis(100),
        }));
        Self { tiered, memory: tier, pool, load: store.loader() }
    }

    pub async fn read(&self, key: &Key, at_least: u64) -> Result<Served, ReadError> {
        self.tiered.get_or_load(key, Version(at_least), &self.load).await
    }

    /// The version that a read gives.
    pub async fn version(&self, key: &Key) -> u64 {
        self.read(key, 0).await.unwrap().cached.version().0
    }

    /// Drops everything from memory, as a full tier would.
    pub fn evict(&self, clock: &Clock) {
        self.memory.remove_idle(self.pool, Some(0), clock.now_ms());
    }
}

impl Store {
    pub fn with(key: &Key, version: u64) -> Arc<Self> {
        let store = Arc::<Self>::default();
        store.put(key, version);
        store
    }

    pub fn put(&self, key: &Key, version: u64) -> Lookup {
        self.set(key, found(key, version))
    }

    pub fn set(&self, key: &Key, state: Lookup) -> Lookup {
        self.records.lock().insert(key.clone(), state.clone());
        state
    }

    /// Commits the next version of a key.
    pub fn next(&self, key: &Key) -> (u64, Lookup) {
        let mut records = self.records.lock();
        let version = match records.get(key) {
            Some(Lookup::Found(record)) => record.version.0 + 1,
            Some(Lookup::Deleted(version)) => version.0 + 1,
            Some(Lookup::Missing | Lookup::Unreadable(_)) | None => 1,
        };
        let state = if version % 7 == 0 { Lookup::Deleted(Version(version)) } else { found(key, version) };
        records.insert(key.clone(), state.clone());
        (version, state)
    }

    pub fn get(&self, key: &Key) -> Lookup {
        self.records.lock().get(key).cloned().unwrap_or(Lookup::Missing)
    }

    pub fn loads(&self) -> usize {
        self.loads.load(SeqCst)
    }

    /// Holds up every load from now on.
    pub fn hold(&self) -> Arc<Gate> {
        let gate = Gate::closed();
        *self.gate.lock() = Some(gate.clone());
        gate
    }

    /// Lets loads through from now on; those that are held up stay so.
    pub fn pass(&self) {
        *self.gate.lock() = None;
    }

    pub fn loader(self: &Arc<Self>) -> Loader {
        let store = self.clone();
        Arc::new(move |keys| {
            let store = store.clone();
            Box::pin(async move {
                store.loads.fetch_add(keys.len(), SeqCst);
                if store.failing.load(SeqCst) {
                    return Err(Arc::new(std::io::Error::other("the store is down")) as _);
                }
                let answers = keys.iter().map(|key| store.get(key)).collect();
                let gate = store.gate.lock().clone();
                if let Some(gate) = gate {
                    gate.pass().await;
                }
                Ok(answers)
            })
        })
    }
}

impl Gate {
    fn closed() -> Arc<Self> {
        Arc::new(Self { reached: Semaphore::new(0), open: Semaphore::new(0) })
    }

    /// Waits for one more to stop here.
    pub async fn reached(&self) {
        self.reached.acquire().await.unwrap().forget();
    }

    /// Lets one go on.
    pub fn let_one_go(&self) {
        self.open.add_permits(1);
    }

    async fn pass(&self) {
        self.reached.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }
}

impl Flaky {
    pub fn new(clock: &Clock) -> Arc<Self> {
        let inner = Mutex::new(Arc::new(LocalShared::new(64 << 20, clock.clone())));
        let (failing, trusted_ms) = (AtomicBool::new(false), AtomicU64::new(0));
        let released = AtomicU64::new(0);
        Arc::new(Self {
            inner,
            clock: clock.clone(),
            failing,
            trusted_ms,
            released,
            lease_gate: Mutex::default(),
        })
    }

    /// Holds up everybody who asks for a lease from now on.
    pub fn hold_leases(&self) -> Arc<Gate> {
        let gate = Gate::closed();
        *self.lease_gate.lock() = Some(gate.clone());
        gate
    }

    /// Forgets everything, fences too.
    pub fn flush(&self) {
        *self.inner.lock() = Arc::new(LocalShared::new(64 << 20, self.clock.clone()));
    }

    pub async fn holds(&self, key: &str) -> Option<u64> {
        let inner = self.inner.lock().clone();
        inner.get_many(&[key.to_owned()]).await.unwrap().remove(0).map(|held| held.version.0)
    }
}

#[async_trait]
impl SharedCache for Flaky {
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Held>>, SharedError> {
        tokio::task::yield_now().await;
        let inner = self.inner.lock().clone();
        if self.failing.load(SeqCst) { Err(SharedError::TimedOut) } else { inner.get_many(keys).await }
    }

    async fn tell(&self, orders: &[Order]) -> Vec<Result<(), SharedError>> {
        tokio::task::yield_now().await;
        let inner = self.inner.lock().clone();
        if self.failing.load(SeqCst) {
            return vec![Err(SharedError::TimedOut); orders.len()];
        }
        inner.tell(orders).await
    }

    async fn take(&self, key: &str) -> Result<Option<Held>, SharedError> {
        let inner = self.inner.lock().clone();
        if self.failing.load(SeqCst) { Err(SharedError::TimedOut) } else { inner.take(key).await }
    }

    async fn lease(&self, keys: &[String], owner: &str, keep_ms: u64) -> Result<Vec<bool>, SharedError> {
        tokio::task::yield_now().await;
        let gate = self.lease_gate.lock().clone();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let inner = self.inner.lock().clone();
        if self.failing.load(SeqCst) {
            Err(SharedError::TimedOut)
        } else {
            inner.lease(keys, owner, keep_ms).await
        }
    }

    async fn release(&self, keys: &[String], owner: &str) {
        let inner = self.inner.lock().clone();
        if !self.failing.load(SeqCst) {
            inner.release(keys, owner).await;
            self.released.fetch_add(1, SeqCst);
        }
    }

    fn trusted_since_ms(&self) -> u64 {
        self.trusted_ms.load(SeqCst)
    }

    fn status(&self) -> SharedStatus {
        self.inner.lock().status()
    }

    async fn ping(&self) -> Result<(), SharedError> {
        if self.failing.load(SeqCst) { Err(SharedError::TimedOut) } else { Ok(()) }
    }
}
