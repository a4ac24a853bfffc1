//! The tiers of one pool, in order, before a store: a read takes the first fresh answer, and never an older
//! version than before.
//!
//! What keeps versions from going back:
//! - a load that a write or an event supersedes fills no tier (`flight`);
//! - each tier refuses what is older than what it has, and drops what is older than it is told of;
//! - the *floor* of a key that was written lately is remembered, so that a shared tier that was not told yet,
//!   or lost what it was told, and a store that lags, are not believed below it;
//! - where the memory of floors ends (too many, a gap in the feed, a Redis that is another than before), a
//!   *horizon* in time takes their place: what was loaded before it is loaded again.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, join_all};

use self::{
    fetch::Fetch,
    frame::Framer,
    horizon::{Horizon, version_of},
    inner::{Inner, Look},
    invalidation::InvalidationQueue,
    layers::{Floors, MemoryLayer, SharedLayer},
    rules::Rules,
    stats::{PoolCounters, TierCounters, TieredStats},
};
use super::{
    Cached,
    clock::Clock,
    flight::{Flights, Joined},
    memory::{MemoryTier, PoolId},
    shared::SharedCache,
};
use crate::flyweight::codec::Split;
use model::{
    key::{Key, Version},
    record::{Lookup, Unreadable},
    schema::Schema,
    seal::Sealer,
};

mod fetch;
mod frame;
mod horizon;
mod inner;
mod invalidation;
mod layers;
mod rules;
pub mod served;
pub mod stats;
#[cfg(test)]
pub mod tests;

pub use rules::lifetime;

/// Reads keys from the store: an answer for each, in order. Handed in, so that the cache knows no store.
pub type Loader = Arc<dyn Fn(Vec<Key>) -> BoxFuture<'static, Result<Vec<Lookup>, LoadError>> + Send + Sync>;

/// Why the store did not answer, as the loader said it. Shared by all who waited.
pub type LoadError = Arc<dyn std::error::Error + Send + Sync>;

/// The tiers of one pool. Cheap to share.
pub struct Tiered {
    shared: Arc<Inner>,
}

/// What a pool's tiers are made of.
pub struct TieredConfig {
    /// The pool's name.
    pub pool: String,
    /// What its records look like.
    pub schema: Arc<Schema>,
    /// Its tiers in order, each with what keeps its entries: the ones in memory first.
    pub tiers: Vec<(TierConfig, Backing)>,
    /// Seals encrypted fields in shared tiers; without it, records that have any stay out of them.
    pub sealer: Option<Arc<dyn Sealer>>,
    /// The time.
    pub clock: Clock,
    /// How long a load from the store may take.
    pub load_deadline: Duration,
    /// How long a read waits for the version that it asks for.
    pub not_yet_deadline: Duration,
}

/// How one tier keeps its entries. All but the name and the place can be replaced while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierConfig {
    /// Its name, as answers and figures give it.
    pub name: String,
    /// Where it is.
    pub place: TierPlace,
    /// How long an entry may be served.
    pub ttl: Duration,
    /// The random shortening of the time to live, in percent.
    pub jitter_percent: u32,
    /// How long "there is no such record" may be served.
    pub negative_ttl: Duration,
    /// How long a stale entry may be served while a fresh one is loaded.
    pub stale_while_revalidate: Duration,
    /// How long a stale entry may be served while the store fails.
    pub stale_if_error: Duration,
    /// What a write does to it.
    pub write: WriteStrategy,
}

/// Where a tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierPlace {
    /// In the memory of this process.
    Memory,
    /// In a cache that replicas share.
    Shared {
        /// What every key starts with.
        key_prefix: String,
    },
}

/// What a write does to a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteStrategy {
    /// The entry is dropped; the next read loads it.
    #[default]
    CacheAside,
    /// The new version is put in after the commit.
    WriteThrough,
}

/// What keeps the entries of a tier.
pub enum Backing {
    /// This process, which knows the pool by a number.
    Memory(Arc<MemoryTier>, PoolId),
    /// A cache that replicas share.
    Shared(Arc<dyn SharedCache>),
}

/// What answers where no tier does.
pub const STORE: &str = "store";

/// An answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The record, or that there is none.
    pub cached: Cached,
    /// The tier that answered.
    pub tier: Arc<str>,
    /// How long ago the tier was filled (a shared one: the store was read), in ms.
    pub age_ms: u64,
    /// Whether it is served beyond its time to live: while a fresh one is loaded, or because the store fails.
    pub stale: bool,
}

/// Why a read was not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The store does not have the version asked for, or that was seen before, within the deadline. The same
    /// read may succeed later.
    #[error("version {required} is not yet there: the store has {found}")]
    NotYet {
        /// The version asked for or seen before.
        required: Version,
        /// The version in the store.
        found: Version,
    },
    /// The store failed.
    #[error("the store did not answer: {0}")]
    Load(LoadError),
    /// The record is there, but cannot be read. No tier keeps that.
    #[error("{0}")]
    Unreadable(Arc<Unreadable>),
    /// The store did not answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The load ended without an answer: a defect.
    #[error("the load came to no end")]
    Lost,
}

/// How long a writer waits for the shared tiers to take its version; they are told in any case.
const TELL_DEADLINE: Duration = Duration::from_millis(50);

impl Tiered {
    /// The tiers of a pool. To be called in a tokio runtime: it tells shared tiers of commits in the
    /// background.
    pub fn new(config: TieredConfig) -> Self {
        let TieredConfig { pool, schema, tiers, sealer, clock, load_deadline, not_yet_deadline } = config;
        let flights = Arc::new(Flights::default());
        let horizon = Arc::new(Horizon::default());
        let framer = Arc::new(Framer::new(&schema, sealer));
        let (mut memories, mut shareds) = (Vec::new(), Vec::new());
        for (settings, backing) in tiers {
            let (name, rules) = (settings.name.as_str().into(), ArcSwap::from_pointee(Rules::new(&settings)));
            match backing {
                Backing::Memory(tier, pool) => {
                    memories.push(MemoryLayer { name, rules, counters: TierCounters::default(), tier, pool });
                }
                Backing::Shared(cache) => {
                    let counters = Arc::new(TierCounters::default());
                    let acknowledgements = Floors {
                        flights: Arc::downgrade(&flights),
                        clock: clock.clone(),
                        horizon: horizon.clone(),
                    };
                    let invalidations =
                        InvalidationQueue::new(cache.clone(), counters.clone(), Box::new(acknowledgements));
                    let key_prefix = match &settings.place {
                        TierPlace::Shared { key_prefix } => key_prefix.as_str(),
                        TierPlace::Memory => "",
                    };
                    let prefix = format!("{key_prefix}{pool}:");
                    let framer = framer.clone();
                    shareds.push(SharedLayer { name, rules, counters, cache, invalidations, framer, prefix });
                }
            }
        }
        let (store_name, counters) = (STORE.into(), PoolCounters::default());
        let shared = Arc::new(Inner {
            pool,
            split: Split::declared(&schema),
            schema,
            memories,
            shareds,
            flights,
            horizon,
            counters,
            generation: AtomicU64::new(0),
            clock,
            store_name,
            load_deadline,
            not_yet_deadline,
        });
        Self { shared }
    }

    /// Replaces the settings of the tiers while they run.
    ///
    /// # Errors
    /// The tiers are not the same ones in the same order: that takes a new process.
    pub fn apply(&self, tiers: &[TierConfig]) -> Result<(), String> {
        let inner = &self.shared;
        let mine = inner.memories.iter().map(|tier| (&tier.name, &tier.rules, true));
        let mine: Vec<_> =
            mine.chain(inner.shareds.iter().map(|tier| (&tier.name, &tier.rules, false))).collect();
        let is_memory = |settings: &TierConfig| settings.place == TierPlace::Memory;
        let mut given: Vec<&TierConfig> = tiers.iter().collect();
        given.sort_by_key(|settings| !is_memory(settings));
        let same = |((name, _, memory), settings): (&(&Arc<str>, _, bool), &&TierConfig)| {
            name.as_ref() == settings.name && *memory == is_memory(settings)
        };
        if mine.len() != given.len() || !mine.iter().zip(&given).all(same) {
            return Err(format!("the tiers of pool {} change only with a new process", inner.pool));
        }
        for ((_, rules, _), settings) in mine.iter().zip(given) {
            rules.store(Arc::new(Rules::new(settings)));
        }
        Ok(())
    }

    /// The record of a key from the first tier that has it fresh, else from the store; not older than
    /// `at_least`.
    ///
    /// # Errors
    /// The store failed and no tier may serve a stale entry for it, or it does not have the version.
    pub async fn get_or_load(
        &self,
        key: &Key,
        at_least: Version,
        load: &Loader,
    ) -> Result<Served, ReadError> {
        let inner = &self.shared;
        match inner.look(key, at_least) {
            Look::Fresh(served) => Ok(served),
            Look::Revalidate(served) => {
                Fetch::refresh(inner, key, load, false);
                Ok(served)
            }
            Look::Miss(fallback) => inner.through_flights(key, at_least, fallback, load).await,
        }
    }

    /// The records of some keys, in their order: one pass over memory, one call to each shared tier and one
    /// load for all the rest.
    pub async fn get_many(&self, keys: &[Key], load: &Loader) -> Vec<Result<Served, ReadError>> {
        let inner = &self.shared;
        let (mut answers, mut flights, mut leaders) = (vec![None; keys.len()], Vec::new(), Vec::new());
        for (at, key) in keys.iter().enumerate() {
            match inner.look(key, Version(0)) {
                Look::Fresh(served) => answers[at] = Some(Ok(served)),
                Look::Revalidate(served) => {
                    Fetch::refresh(inner, key, load, false);
                    answers[at] = Some(Ok(served));
                }
                Look::Miss(fallback) => match inner.join(key, Version(0)) {
                    Joined::Hit(served) => answers[at] = Some(Ok(served)),
                    Joined::Follow(flight) => {
                        inner.counters.coalesced.inc();
                        flights.push((at, flight, fallback));
                    }
                    Joined::Lead(leader) => {
                        flights.push((at, leader.flight().clone(), fallback));
                        leaders.push(leader);
                    }
                },
            }
        }
        Fetch::spawn(inner, leaders, load, false);
        for (at, flight, fallback) in flights {
            let outcome = inner.wait(&flight, fallback.is_some()).await;
            answers[at] = Some(match outcome.map(|completed| completed.judge(flight.floor())) {
                Ok(Err((required, _))) => inner.through_flights(flight.key(), required, fallback, load).await,
                Ok(Ok(served)) => inner.or_fallback(Ok(served), fallback, flight.floor()),
                Err(error) => inner.or_fallback(Err(error), fallback, flight.floor()),
            });
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(ReadError::Lost))).collect()
    }

    /// Tells the tiers of a commit by this replica: each drops the key or takes the new state, as its write
    /// strategy says. Memory has done so when this returns; a shared tier that does not answer at once is
    /// told again until it does.
    pub async fn after_commit(&self, key: &Key, state: &Lookup) {
        let receipts = self.shared.advance(key, version_of(state), Some(state));
        // in time or not: until it is told, answers of a shared tier are not believed below this version
        _ = tokio::time::timeout(TELL_DEADLINE, join_all(receipts)).await;
    }

    /// Tells the tiers of a version that an event brought. Cheap when it is not news.
    pub fn invalidate(&self, key: &Key, version: Version) {
        _ = self.shared.advance(key, version, None);
    }

    /// Events may have been missed: whatever is in a tier now is loaded again before it is served, but for
    /// when the store fails.
    pub fn invalidate_all(&self) {
        let inner = &self.shared;
        let now_ms = inner.clock.now_ms();
        inner.horizon.memory_ms.fetch_max(now_ms, Ordering::AcqRel);
        inner.horizon.distrust_shared(now_ms);
        inner.flights.supersede_all();
        inner.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Moves on with every change of the collection: by a commit of this process before it is answered, by an
    /// event when it comes. What was read of the whole collection is true as long as it stays.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether there are no tiers.
    pub fn is_empty(&self) -> bool {
        self.shared.memories.is_empty() && self.shared.shareds.is_empty()
    }

    /// What the tiers did so far.
    pub fn stats(&self) -> TieredStats {
        let inner = &self.shared;
        let memories = inner.memories.iter().map(|tier| tier.counters.snapshot(&tier.name, 0, None));
        let shareds = inner.shareds.iter().map(|tier| {
            let (waiting, status) = (tier.invalidations.waiting(), tier.cache.status());
            tier.counters.snapshot(&tier.name, waiting, Some(status))
        });
        inner.counters.snapshot(memories.chain(shareds).collect())
    }
}

impl fmt::Debug for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("pool", &self.shared.pool).finish_non_exhaustive()
    }
}
