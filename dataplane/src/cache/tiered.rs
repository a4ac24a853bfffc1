//! The tiers of one pool, in order, before a store: a read takes the first fresh answer, and never an older version than before.
//!
//! What keeps versions from going back:
//! - a load that a write or an event overtakes fills no tier (`flight`);
//! - each tier refuses what is older than what it has, and drops what is older than it is told of;
//! - the *floor* of a key that was written lately is remembered, so that a shared tier that was not told yet, or lost what it was
//!   told, and a store that lags, are not believed below it;
//! - where the memory of floors ends (too many, a gap in the feed, a Redis that is another than before), a *horizon* in time
//!   takes their place: what was loaded before it is loaded again.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use crds::settings::{TierKind, TierSettings};
use futures::future::{BoxFuture, join_all};

use self::{
    fetch::Fetch,
    frame::Framer,
    layers::{Floors, KEEP_MIN_MS, MemoryLayer, SharedLayer},
    rules::{Rules, Worth},
    stats::{PoolCounters, TierCounters, TieredStats},
    teller::Teller,
};
use super::{
    Cached,
    clock::Clock,
    flight::{Boarding, Flights},
    memory::{MemoryTier, PoolId},
    shared::SharedCache,
};
use crate::{
    domain::{
        record::{Key, Lookup, Version},
        schema::Schema,
        seal::Sealer,
    },
    flyweight::codec::{Split, encode},
};

mod fetch;
mod frame;
mod layers;
mod rules;
pub mod stats;
mod teller;
#[cfg(test)]
mod tests;

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
    pub tiers: Vec<(TierSettings, Backing)>,
    /// Seals encrypted fields in shared tiers; without it, records that have any stay out of them.
    pub sealer: Option<Arc<dyn Sealer>>,
    /// The time.
    pub clock: Clock,
    /// How long a load from the store may take.
    pub load_deadline: Duration,
    /// How long a read waits for the version that it asks for.
    pub not_yet_deadline: Duration,
}

/// What keeps the entries of a tier.
pub enum Backing {
    /// This process, which knows the pool by a number.
    Memory(Arc<MemoryTier>, PoolId),
    /// A cache that replicas share.
    Shared(Arc<dyn SharedCache>),
}

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
    /// The store does not have the version asked for, or that was seen before, within the deadline. The same read may succeed later.
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
    /// The store did not answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The load ended without an answer: a defect.
    #[error("the load came to no end")]
    Lost,
}

/// Times before which entries are not believed.
#[derive(Debug, Default)]
struct Horizon {
    memory_ms: AtomicU64,
    shared_ms: AtomicU64,
}

struct Inner {
    pool: String,
    schema: Arc<Schema>,
    split: Split,
    memories: Vec<MemoryLayer>,
    shareds: Vec<SharedLayer>,
    flights: Arc<Flights<Outcome>>,
    horizon: Arc<Horizon>,
    counters: PoolCounters,
    clock: Clock,
    store_name: Arc<str>,
    load_deadline: Duration,
    not_yet_deadline: Duration,
}

/// What a load brings to those who wait for it.
type Outcome = Result<Landed, ReadError>;

#[derive(Clone, Debug)]
struct Landed {
    served: Served,
    /// What a tier has seen of the key meanwhile: an older answer is not to be given out.
    floor: Version,
    /// A tier has seen more than it remembers: the answer is not to be given out.
    doubtful: bool,
}

/// What the tiers in memory have for a read.
enum Look {
    Fresh(Served),
    Revalidate(Served),
    /// Nothing but, perhaps, an entry for when the store fails.
    Miss(Option<Served>),
}

/// How long a writer waits for the shared tiers to take its version; they are told in any case.
const TELL_DEADLINE: Duration = Duration::from_millis(50);
/// How far the clocks of replicas may be apart when a horizon is compared with another replica's times.
const CLOCK_SKEW_MS: u64 = 1_000;
/// The wait before the store is asked again for a version that it does not have yet, doubled up to the longest.
const NOT_YET_FIRST: Duration = Duration::from_millis(5);
const NOT_YET_MAX: Duration = Duration::from_millis(80);

impl Tiered {
    /// The tiers of a pool. To be called in a tokio runtime: it tells shared tiers of commits in the background.
    pub fn new(config: TieredConfig) -> Self {
        let TieredConfig { pool, schema, tiers, sealer, clock, load_deadline, not_yet_deadline } = config;
        let flights = Arc::new(Flights::new());
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
                    let ledger =
                        Floors { flights: Arc::downgrade(&flights), clock: clock.clone(), horizon: horizon.clone() };
                    let teller = Teller::new(cache.clone(), counters.clone(), Box::new(ledger));
                    let key_prefix = match &settings.kind {
                        TierKind::Redis { key_prefix, .. } => key_prefix.as_str(),
                        TierKind::Memory { .. } => "",
                    };
                    let prefix = format!("{key_prefix}{pool}:");
                    let framer = framer.clone();
                    shareds.push(SharedLayer { name, rules, counters, cache, teller, framer, prefix });
                }
            }
        }
        let (store_name, counters) = ("store".into(), PoolCounters::default());
        let shared = Arc::new(Inner {
            pool,
            split: Split::declared(&schema),
            schema,
            memories,
            shareds,
            flights,
            horizon,
            counters,
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
    pub fn apply(&self, tiers: &[TierSettings]) -> Result<(), String> {
        let inner = &self.shared;
        let mine = inner.memories.iter().map(|tier| (&tier.name, &tier.rules, true));
        let mine: Vec<_> = mine.chain(inner.shareds.iter().map(|tier| (&tier.name, &tier.rules, false))).collect();
        let is_memory = |settings: &TierSettings| matches!(settings.kind, TierKind::Memory { .. });
        let mut given: Vec<&TierSettings> = tiers.iter().collect();
        given.sort_by_key(|settings| !is_memory(settings));
        let same = |((name, _, memory), settings): (&(&Arc<str>, _, bool), &&TierSettings)| {
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

    /// The record of a key from the first tier that has it fresh, else from the store; not older than `at_least`.
    ///
    /// # Errors
    /// The store failed and no tier may serve a stale entry for it, or it does not have the version.
    pub async fn get_or_load(&self, key: &Key, at_least: Version, load: &Loader) -> Result<Served, ReadError> {
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

    /// The records of some keys, in their order: one pass over memory, one call to each shared tier and one load for all the rest.
    pub async fn get_many(&self, keys: &[Key], load: &Loader) -> Vec<Result<Served, ReadError>> {
        let inner = &self.shared;
        let (mut answers, mut flights, mut tickets) = (vec![None; keys.len()], Vec::new(), Vec::new());
        for (at, key) in keys.iter().enumerate() {
            match inner.look(key, Version(0)) {
                Look::Fresh(served) => answers[at] = Some(Ok(served)),
                Look::Revalidate(served) => {
                    Fetch::refresh(inner, key, load, false);
                    answers[at] = Some(Ok(served));
                }
                Look::Miss(fallback) => match inner.board(key, Version(0)) {
                    Boarding::Hit(served) => answers[at] = Some(Ok(served)),
                    Boarding::Join(flight) => {
                        inner.counters.coalesced.inc();
                        flights.push((at, flight, fallback));
                    }
                    Boarding::Lead(ticket) => {
                        flights.push((at, ticket.flight().clone(), fallback));
                        tickets.push(ticket);
                    }
                },
            }
        }
        Fetch::spawn(inner, tickets, load, false);
        for (at, flight, fallback) in flights {
            let outcome = flight.wait().await.unwrap_or(Err(ReadError::Lost));
            answers[at] = Some(match outcome.map(|landed| landed.judge(flight.floor())) {
                Ok(Err((required, _))) => inner.through_flights(flight.key(), required, fallback, load).await,
                Ok(Ok(served)) => inner.or_fallback(Ok(served), fallback, flight.floor()),
                Err(error) => inner.or_fallback(Err(error), fallback, flight.floor()),
            });
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(ReadError::Lost))).collect()
    }

    /// Tells the tiers of a commit by this replica: each drops the key or takes the new state, as its write strategy says. Memory has
    /// done so when this returns; a shared tier that does not answer at once is told again until it does.
    pub async fn after_commit(&self, key: &Key, state: &Lookup) {
        let receipts = self.shared.advance(key, version_of(state), Some(state));
        // in time or not: until it is told, answers of a shared tier are not believed below this version
        _ = tokio::time::timeout(TELL_DEADLINE, join_all(receipts)).await;
    }

    /// Tells the tiers of a version that an event brought. Cheap when it is not news.
    pub fn invalidate(&self, key: &Key, version: Version) {
        _ = self.shared.advance(key, version, None);
    }

    /// Events may have been missed: whatever is in a tier now is loaded again before it is served, but for when the store fails.
    pub fn invalidate_all(&self) {
        let inner = &self.shared;
        let now_ms = inner.clock.now_ms();
        inner.horizon.memory_ms.fetch_max(now_ms, Ordering::AcqRel);
        inner.horizon.distrust_shared(now_ms);
        inner.flights.overtake_all();
    }

    /// What the tiers did so far.
    pub fn stats(&self) -> TieredStats {
        let inner = &self.shared;
        let memories = inner.memories.iter().map(|tier| tier.counters.snapshot(&tier.name, 0, None));
        let shareds = inner.shareds.iter().map(|tier| {
            let (owed, status) = (tier.teller.owed(), tier.cache.status());
            tier.counters.snapshot(&tier.name, owed, Some(status))
        });
        inner.counters.snapshot(memories.chain(shareds).collect())
    }
}

impl fmt::Debug for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("pool", &self.shared.pool).finish_non_exhaustive()
    }
}

impl Inner {
    /// What the tiers in memory have for a key, counted.
    fn look(&self, key: &Key, at_least: Version) -> Look {
        let (now_ms, trusted_ms) = (self.clock.now_ms(), self.horizon.memory_ms.load(Ordering::Acquire));
        let mut fallback: Option<Served> = None;
        for layer in &self.memories {
            let found = layer.look(key, now_ms, trusted_ms).filter(|(hit, _)| hit.cached.version() >= at_least);
            let Some((hit, worth)) = found else {
                layer.counters.misses.inc();
                continue;
            };
            let stale = worth != Worth::Fresh;
            let served = Served { cached: hit.cached, tier: layer.name.clone(), age_ms: hit.age_ms, stale };
            match worth {
                Worth::Fresh => {
                    layer.counters.hits.inc();
                    return Look::Fresh(served);
                }
                Worth::Revalidate => {
                    layer.counters.hits.inc();
                    layer.counters.stale_served.inc();
                    return Look::Revalidate(served);
                }
                Worth::IfError => fallback = newer(fallback, Some(served)),
                Worth::Nothing => {}
            }
            layer.counters.misses.inc();
        }
        Look::Miss(fallback)
    }

    /// Joins or starts the load of a key, unless memory has it by now.
    fn board(&self, key: &Key, at_least: Version) -> Boarding<Outcome, Served> {
        self.flights.board(key, at_least, self.clock.now_ms(), || self.fresh(key, at_least))
    }

    /// A fresh entry in memory, not counted.
    fn fresh(&self, key: &Key, at_least: Version) -> Option<Served> {
        let (now_ms, trusted_ms) = (self.clock.now_ms(), self.horizon.memory_ms.load(Ordering::Acquire));
        self.memories.iter().find_map(|layer| {
            let (hit, worth) = layer.look(key, now_ms, trusted_ms)?;
            let serve = worth == Worth::Fresh && hit.cached.version() >= at_least;
            let tier = layer.name.clone();
            serve.then_some(Served { cached: hit.cached, tier, age_ms: hit.age_ms, stale: false })
        })
    }

    /// Joins or leads loads until one brings a version that is new enough.
    async fn through_flights(
        self: &Arc<Self>,
        key: &Key,
        at_least: Version,
        fallback: Option<Served>,
        load: &Loader,
    ) -> Result<Served, ReadError> {
        let deadline = tokio::time::Instant::now() + self.not_yet_deadline;
        let mut wait = NOT_YET_FIRST;
        loop {
            let (flight, led) = match self.board(key, at_least) {
                Boarding::Hit(served) => return Ok(served),
                Boarding::Join(flight) => {
                    self.counters.coalesced.inc();
                    (flight, false)
                }
                Boarding::Lead(ticket) => {
                    let flight = ticket.flight().clone();
                    Fetch::spawn(self, vec![ticket], load, false);
                    (flight, true)
                }
            };
            let floor = flight.floor().max(at_least);
            let outcome = flight.wait().await.unwrap_or(Err(ReadError::Lost));
            let (required, found) = match outcome.map(|landed| landed.judge(floor)) {
                Ok(Err(behind)) => behind,
                Ok(Ok(served)) => return self.or_fallback(Ok(served), fallback, floor),
                Err(error) => return self.or_fallback(Err(error), fallback, floor),
            };
            if tokio::time::Instant::now() >= deadline {
                self.counters.not_yet.inc();
                return Err(ReadError::NotYet { required, found });
            }
            // another reader's load may have been content with less; an own one means that the store is behind
            if led {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(NOT_YET_MAX);
            }
        }
    }

    /// Where the store failed, an entry that may be served for that.
    fn or_fallback(
        &self,
        outcome: Result<Served, ReadError>,
        fallback: Option<Served>,
        required: Version,
    ) -> Result<Served, ReadError> {
        let error = match outcome {
            Ok(served) if !served.stale => return Ok(served),
            Ok(served) => return Ok(newer(fallback, Some(served.clone())).unwrap_or(served)),
            Err(error) => error,
        };
        let served = fallback.filter(|served| served.cached.version() >= required).ok_or(error)?;
        if let Some(layer) = self.memories.iter().find(|layer| layer.name == served.tier) {
            layer.counters.stale_served.inc();
        }
        Ok(served)
    }

    /// A version was committed, here (then the new state is known) or elsewhere. The receivers hear when shared tiers took it.
    fn advance(&self, key: &Key, version: Version, state: Option<&Lookup>) -> Vec<tokio::sync::oneshot::Receiver<()>> {
        let now_ms = self.clock.now_ms();
        let keep_ms = self.shareds.iter().map(SharedLayer::keep_ms).fold(KEEP_MIN_MS, u64::max);
        let mut newest = false;
        let news = self.flights.overtake(key, version, now_ms.saturating_add(keep_ms), now_ms, |is_newest| {
            newest = is_newest;
            for layer in &self.memories {
                match state.filter(|_| newest && layer.rules.load().write_through) {
                    Some(state) => _ = layer.fill(key, state, now_ms, u64::MAX, now_ms),
                    None => layer.fence(key, version, now_ms),
                }
                layer.counters.fenced.inc();
            }
        });
        // an event of a version that is known says nothing new, the state that this replica committed does
        if !news && (state.is_none() || !newest) {
            return Vec::new();
        }
        let order = |layer: &SharedLayer| {
            let put =
                state.filter(|_| layer.rules.load().write_through).and_then(|state| layer.put(key, state, now_ms));
            put.unwrap_or_else(|| layer.fence(key, version, now_ms))
        };
        self.shareds.iter().map(|layer| layer.teller.owe(key, order(layer))).collect()
    }

    /// The record as it is sent.
    fn encode(&self, found: &Lookup) -> Cached {
        match found {
            Lookup::Found(record) => Cached::Present(encode(&self.schema, record, self.split)),
            Lookup::Deleted(version) => Cached::Absent(*version),
            Lookup::Missing => Cached::Absent(Version(0)),
        }
    }

    /// What was loaded before this time is not believed in a shared tier (ms).
    fn shared_trusted_ms(&self, layer: &SharedLayer) -> u64 {
        let own_ms = self.horizon.shared_ms.load(Ordering::Acquire).max(self.flights.floors_lost_ms());
        match own_ms.max(layer.cache.trusted_since_ms()) {
            0 => 0,
            horizon_ms => horizon_ms.saturating_add(CLOCK_SKEW_MS),
        }
    }
}

impl Landed {
    /// The answer, or the version that is required and the one that was found.
    fn judge(self, floor: Version) -> Result<Served, (Version, Version)> {
        let Self { served, floor: seen, doubtful } = self;
        let (required, found) = (floor.max(seen), served.cached.version());
        if found < required || doubtful { Err((required, found)) } else { Ok(served) }
    }
}

impl Horizon {
    fn distrust_shared(&self, now_ms: u64) {
        self.shared_ms.fetch_max(now_ms, Ordering::AcqRel);
    }
}

/// The one of the higher version; the first where they are equal.
fn newer(first: Option<Served>, second: Option<Served>) -> Option<Served> {
    match (first, second) {
        (Some(first), Some(second)) if second.cached.version() > first.cached.version() => Some(second),
        (Some(first), _) => Some(first),
        (None, second) => second,
    }
}

/// The version that a lookup speaks of: 0 where there never was a record.
fn version_of(found: &Lookup) -> Version {
    match found {
        Lookup::Found(record) => record.version,
        Lookup::Deleted(version) => *version,
        Lookup::Missing => Version(0),
    }
}
