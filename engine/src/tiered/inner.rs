//! How a read goes through the tiers of a pool, and how a committed version does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    ReadError, Served,
    horizon::Horizon,
    layers::{KEEP_MIN_MS, MemoryLayer, SharedLayer},
    rules::Worth,
    stats::PoolCounters,
};
use crate::{
    Cached,
    clock::Clock,
    flight::{Flight, Flights, Joined},
    flyweight::codec::{Split, encode},
};
use model::{
    key::{Key, Version},
    record::Lookup,
    schema::Schema,
};

/// What all handles of a pool's tiers share.
pub(super) struct Inner {
    pub(super) pool: String,
    pub(super) schema: Arc<Schema>,
    pub(super) split: Split,
    pub(super) memories: Vec<MemoryLayer>,
    pub(super) shareds: Vec<SharedLayer>,
    pub(super) flights: Arc<Flights<Outcome>>,
    pub(super) horizon: Arc<Horizon>,
    pub(super) counters: PoolCounters,
    /// Moves on with each change of the collection that this process hears of.
    pub(super) generation: AtomicU64,
    pub(super) clock: Clock,
    pub(super) store_name: Arc<str>,
    pub(super) load_deadline: Duration,
    pub(super) not_yet_deadline: Duration,
}

/// What a load brings to those who wait for it.
pub(super) type Outcome = Result<Completed, ReadError>;

#[derive(Clone, Debug)]
pub(super) struct Completed {
    pub(super) served: Served,
    /// What a tier has seen of the key meanwhile: an older answer is not to be given out.
    pub(super) floor: Version,
}

/// What the tiers in memory have for a read.
pub(super) enum Look {
    Fresh(Served),
    Revalidate(Served),
    /// Nothing but, perhaps, an entry for when the store fails.
    Miss(Option<Served>),
}

/// How far apart replicas may be in what they know of a shared tier's clock, when a horizon is compared with
/// another replica's times.
const CLOCK_SKEW_MS: u64 = 1_000;
/// How long a read waits for a store that does not answer, when a tier has a stale entry for that.
const FALLBACK_WAIT: Duration = Duration::from_millis(250);

impl Inner {
    /// What the tiers in memory have for a key, counted.
    pub(super) fn look(&self, key: &Key, at_least: Version) -> Look {
        let (now_ms, trusted_ms) = (self.clock.now_ms(), self.memory_trusted_ms());
        let mut fallback: Option<Served> = None;
        for layer in &self.memories {
            let found =
                layer.look(key, now_ms, trusted_ms).filter(|(hit, _)| hit.cached.version() >= at_least);
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
    pub(super) fn join(&self, key: &Key, at_least: Version) -> Joined<Outcome, Served> {
        self.flights.join(key, at_least, self.clock.now_ms(), || self.fresh(key, at_least))
    }

    /// A fresh entry in memory, not counted.
    fn fresh(&self, key: &Key, at_least: Version) -> Option<Served> {
        let (now_ms, trusted_ms) = (self.clock.now_ms(), self.memory_trusted_ms());
        self.memories.iter().find_map(|layer| {
            let (hit, worth) = layer.look(key, now_ms, trusted_ms)?;
            let serve = worth == Worth::Fresh && hit.cached.version() >= at_least;
            let tier = layer.name.clone();
            serve.then_some(Served { cached: hit.cached, tier, age_ms: hit.age_ms, stale: false })
        })
    }

    /// Waits for a load: not long where there is something else to serve.
    pub(super) async fn wait(&self, flight: &Flight<Outcome>, has_fallback: bool) -> Outcome {
        let outcome = match has_fallback {
            true => tokio::time::timeout(FALLBACK_WAIT, flight.wait()).await,
            false => Ok(flight.wait().await),
        };
        outcome.map_or(Err(ReadError::TimedOut), |outcome| outcome.unwrap_or(Err(ReadError::Lost)))
    }

    /// Where the store failed, an entry that may be served for that.
    pub(super) fn or_fallback(
        &self,
        outcome: Result<Served, ReadError>,
        fallback: Option<Served>,
        required: Version,
    ) -> Result<Served, ReadError> {
        let error = match outcome {
            Ok(served) if !served.stale => return Ok(served),
            Ok(served) => return Ok(newer(fallback, Some(served.clone())).unwrap_or(served)),
            // the store answered: what a tier still has is not what there is
            Err(error @ ReadError::Unreadable(_)) => return Err(error),
            Err(error) => error,
        };
        let served = fallback.filter(|served| served.cached.version() >= required).ok_or(error)?;
        if let Some(layer) = self.memories.iter().find(|layer| layer.name == served.tier) {
            layer.counters.stale_served.inc();
        }
        Ok(served)
    }

    /// A version was committed, here (then the new state is known) or elsewhere. The receivers hear when
    /// shared tiers took it.
    pub(super) fn advance(
        &self,
        key: &Key,
        version: Version,
        state: Option<&Lookup>,
    ) -> Vec<oneshot::Receiver<()>> {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let now_ms = self.clock.now_ms();
        let keep_ms = self.shareds.iter().map(SharedLayer::keep_ms).fold(KEEP_MIN_MS, u64::max);
        let mut newest = false;
        let news =
            self.flights.supersede(key, version, now_ms.saturating_add(keep_ms), now_ms, |is_newest| {
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
            let put = state
                .filter(|_| layer.rules.load().write_through)
                .and_then(|state| layer.put(key, state, now_ms));
            put.unwrap_or_else(|| layer.fence(key, version, now_ms))
        };
        self.shareds.iter().map(|layer| layer.invalidations.push(key, order(layer))).collect()
    }

    /// The record as it is sent.
    pub(super) fn encode(&self, found: &Lookup) -> Cached {
        match found {
            Lookup::Found(record) => Cached::Present(encode(&self.schema, record, self.split)),
            Lookup::Deleted(version) => Cached::Absent(*version),
            Lookup::Missing => Cached::Absent(Version(0)),
            // given to nobody: who waits for it is told why
            Lookup::Unreadable(unreadable) => Cached::Absent(unreadable.rest.version),
        }
    }

    /// What was loaded before this time is not believed in memory (ms).
    pub(super) fn memory_trusted_ms(&self) -> u64 {
        self.horizon.memory_ms.load(Ordering::Acquire)
    }

    /// What was loaded before this time is not believed in a shared tier (ms).
    pub(super) fn shared_trusted_ms(&self, layer: &SharedLayer) -> u64 {
        let own_ms = self.horizon.shared_ms.load(Ordering::Acquire).max(self.flights.floors_lost_ms());
        match own_ms.max(layer.cache.trusted_since_ms()) {
            0 => 0,
            horizon_ms => horizon_ms.saturating_add(CLOCK_SKEW_MS),
        }
    }
}

impl Completed {
    /// The answer, or the version that is required and the one that was found.
    pub(super) fn judge(self, floor: Version) -> Result<Served, (Version, Version)> {
        let Self { served, floor: seen } = self;
        let (required, found) = (floor.max(seen), served.cached.version());
        if found < required { Err((required, found)) } else { Ok(served) }
    }
}

/// The one of the higher version; the first where they are equal.
pub(super) fn newer(first: Option<Served>, second: Option<Served>) -> Option<Served> {
    match (first, second) {
        (Some(first), Some(second)) if second.cached.version() > first.cached.version() => Some(second),
        (Some(first), _) => Some(first),
        (None, second) => second,
    }
}
