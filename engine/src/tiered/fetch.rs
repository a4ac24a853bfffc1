//! One load of some keys below memory: the shared tiers in order, then the store. Runs by itself, whoever
//! waits or stops waiting.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    LoadError, Loader, ReadError, Served,
    horizon::version_of,
    inner::{Completed, Inner, Outcome, newer},
    layers::{KEEP_MIN_MS, SharedHit, SharedLayer},
    rules::Worth,
};
use crate::{
    flight::{Joined, Leader},
    memory::PutOutcome,
    shared::Order,
};
use model::{
    key::{Key, Version},
    record::Lookup,
};

mod lease;

use lease::Lease;

/// A load under way.
pub struct Fetch {
    pub(super) inner: Arc<Inner>,
    pub(super) leaders: Vec<Leader<Outcome>>,
    pub(super) load: Loader,
    /// When it began, in ms.
    pub(super) began_ms: u64,
    /// Entries of shared tiers that may be served when the store fails.
    pub(super) fallbacks: HashMap<Key, Served>,
    /// The right to load, which other replicas wait for.
    pub(super) lease: Option<Lease>,
}

/// A load that took longer fills no shared tier: it would come too late for the floors that guard against it.
const FILL_MAX_MS: u64 = KEEP_MIN_MS / 2;
/// How long shared tiers may take to be filled with what was given out already.
const FILL_LAG_MS: u64 = 1_000;

/// The wait before the store is asked again for a version that it does not have yet, doubled up to the
/// longest.
const NOT_YET_FIRST: Duration = Duration::from_millis(5);
const NOT_YET_MAX: Duration = Duration::from_millis(80);

impl Fetch {
    /// Loads the keys of some flights in the background, from the store alone where the shared tiers are
    /// known to be stale.
    pub fn spawn(inner: &Arc<Inner>, leaders: Vec<Leader<Outcome>>, load: &Loader, store_only: bool) {
        if leaders.is_empty() {
            return;
        }
        let (inner, load) = (inner.clone(), load.clone());
        let began_ms = inner.clock.now_ms();
        let fetch = Self { inner, leaders, load, began_ms, fallbacks: HashMap::new(), lease: None };
        tokio::spawn(fetch.run(store_only));
    }

    /// Loads a stale key anew, unless it is being loaded.
    pub fn refresh(inner: &Arc<Inner>, key: &Key, load: &Loader, store_only: bool) {
        if let Joined::Lead(leader) = inner.join(key, Version(0)) {
            Self::spawn(inner, vec![leader], load, store_only);
        }
    }

    async fn run(mut self, store_only: bool) {
        let inner = self.inner.clone();
        if !store_only {
            for layer in &inner.shareds {
                self.ask(layer).await;
            }
        }
        match inner.shareds.first() {
            Some(layer) if !store_only => self.load_once(layer).await,
            _ => self.load().await,
        }
    }

    /// Lands what a shared tier has.
    pub(super) async fn ask(&mut self, layer: &SharedLayer) {
        if self.leaders.is_empty() {
            return;
        }
        let keys: Vec<String> =
            self.leaders.iter().map(|leader| layer.shared_key(leader.flight().key())).collect();
        let answers = match layer.cache.get_many(&keys).await {
            Ok(answers) => answers,
            Err(error) => {
                layer.counters.failed(&error, keys.len());
                layer.counters.misses.add(keys.len());
                return;
            }
        };
        let (now_ms, trusted_ms) = (self.inner.clock.now_ms(), self.inner.shared_trusted_ms(layer));
        for (leader, held) in std::mem::take(&mut self.leaders).into_iter().zip(answers) {
            let flight = leader.flight().clone();
            let hit = held.filter(|held| held.version >= flight.need());
            let hit = hit.and_then(|held| layer.read(flight.key(), &held, now_ms, trusted_ms));
            if let Some(leader) = self.take(layer, leader, hit) {
                layer.counters.misses.inc();
                self.leaders.push(leader);
            }
        }
    }

    /// Completes a flight with what a shared tier has, or gives its leader back.
    fn take(
        &mut self,
        layer: &SharedLayer,
        leader: Leader<Outcome>,
        hit: Option<SharedHit>,
    ) -> Option<Leader<Outcome>> {
        let Some(SharedHit { found, worth, age_ms, fresh_ms }) = hit else { return Some(leader) };
        if worth == Worth::Nothing {
            return Some(leader);
        }
        let flight = leader.flight().clone();
        let stale = worth != Worth::Fresh;
        let served = Served { cached: self.inner.encode(&found), tier: layer.name.clone(), age_ms, stale };
        if worth == Worth::IfError {
            let known = self.fallbacks.remove(flight.key());
            self.fallbacks.extend(newer(known, Some(served)).map(|served| (flight.key().clone(), served)));
            return Some(leader);
        }
        layer.counters.hits.inc();
        self.inner.complete(leader, served, |served| match stale {
            true => None,
            false => Some(self.inner.fill_memory(flight.key(), &found, served, self.began_ms, fresh_ms)),
        });
        if stale {
            layer.counters.stale_served.inc();
            Self::refresh(&self.inner, flight.key(), &self.load, true);
        }
        None
    }

    /// Lands what is left with the store's answer, and lets other replicas load.
    pub(super) async fn load(mut self) {
        let lease = self.lease.take();
        if !self.leaders.is_empty() {
            self.load_tickets().await;
        }
        if let Some(lease) = lease {
            lease.give_back().await;
        }
    }

    async fn load_tickets(&mut self) {
        let inner = self.inner.clone();
        let leaders = std::mem::take(&mut self.leaders);
        let keys: Vec<Key> = leaders.iter().map(|leader| leader.flight().key().clone()).collect();
        let count = keys.len();
        inner.counters.loads.add(count);
        // what the store says is as old as the moment it was asked
        let asked_ms = inner.clock.now_ms();
        let loaded = match tokio::time::timeout(inner.load_deadline, (self.load)(keys)).await {
            Ok(Ok(loaded)) if loaded.len() == count => Ok(loaded),
            Ok(Ok(loaded)) => Err(ReadError::Load(wrong_count(loaded.len(), count))),
            Ok(Err(error)) => Err(ReadError::Load(error)),
            Err(_) => Err(ReadError::TimedOut),
        };
        match loaded {
            Ok(loaded) => {
                let filled = leaders
                    .into_iter()
                    .zip(loaded)
                    .filter_map(|(leader, found)| self.complete(leader, found, asked_ms));
                let filled: Vec<(Key, Lookup)> = filled.collect();
                if inner.clock.now_ms().saturating_sub(self.began_ms) <= FILL_MAX_MS {
                    inner.fill_shared(&filled, asked_ms).await;
                }
            }
            Err(error) => {
                inner.counters.load_errors.add(count);
                leaders.into_iter().for_each(|leader| self.fail(leader, &error));
            }
        }
    }

    /// Lands one record of the store. What may go into shared tiers comes back.
    fn complete(&self, leader: Leader<Outcome>, found: Lookup, asked_ms: u64) -> Option<(Key, Lookup)> {
        if let Lookup::Unreadable(unreadable) = found {
            self.inner.counters.load_errors.inc();
            leader.fail(Err(ReadError::Unreadable(Arc::from(unreadable))));
            return None;
        }
        let (inner, flight) = (&self.inner, leader.flight().clone());
        let served =
            Served { cached: inner.encode(&found), tier: inner.store_name.clone(), age_ms: 0, stale: false };
        let mut filled = false;
        inner.complete(leader, served, |served| {
            // a store that lags behind what was committed fills nothing: who waits will judge
            if version_of(&found) < flight.floor() {
                return None;
            }
            let completed = inner.fill_memory(flight.key(), &found, served, asked_ms, u64::MAX);
            filled = completed.clone().judge(flight.floor()).is_ok();
            Some(completed)
        });
        if !filled {
            inner.counters.superseded.inc();
        }
        filled.then(|| (flight.key().clone(), found))
    }

    /// Lands a flight that the store failed.
    fn fail(&mut self, leader: Leader<Outcome>, error: &ReadError) {
        let Some(served) = self.fallbacks.remove(leader.flight().key()) else {
            return leader.fail(Err(error.clone()));
        };
        if let Some(layer) = self.inner.shareds.iter().find(|layer| layer.name == served.tier) {
            layer.counters.stale_served.inc();
        }
        self.inner.complete(leader, served, |_| None);
    }
}

impl Inner {
    /// Joins or leads loads until one brings a version that is new enough.
    pub(super) async fn through_flights(
        self: &Arc<Self>,
        key: &Key,
        at_least: Version,
        fallback: Option<Served>,
        load: &Loader,
    ) -> Result<Served, ReadError> {
        let deadline = tokio::time::Instant::now() + self.not_yet_deadline;
        let mut wait = NOT_YET_FIRST;
        loop {
            let (flight, led) = match self.join(key, at_least) {
                Joined::Hit(served) => return Ok(served),
                Joined::Follow(flight) => {
                    self.counters.coalesced.inc();
                    (flight, false)
                }
                Joined::Lead(leader) => {
                    let flight = leader.flight().clone();
                    Fetch::spawn(self, vec![leader], load, false);
                    (flight, true)
                }
            };
            let floor = flight.floor().max(at_least);
            let outcome = self.wait(&flight, fallback.is_some()).await;
            let (required, found) = match outcome.map(|completed| completed.judge(floor)) {
                Ok(Err(behind)) => behind,
                Ok(Ok(served)) => return self.or_fallback(Ok(served), fallback, floor),
                Err(error) => return self.or_fallback(Err(error), fallback, floor),
            };
            if tokio::time::Instant::now() >= deadline {
                self.counters.not_yet.inc();
                return Err(ReadError::NotYet { required, found });
            }
            // another reader's load may have been content with less; an own one means that the store is
            // behind
            if led {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(NOT_YET_MAX);
            }
        }
    }
}

impl Completed {
    /// An answer that no tier was asked about.
    fn as_is(served: Served) -> Self {
        Self { served, floor: Version(0) }
    }
}

impl Inner {
    /// Gives an answer to those who wait. `fill` is called where no write came in between, and may fill tiers
    /// with it; whatever it does, no tier in memory gives out an older version afterwards.
    fn complete(
        &self,
        leader: Leader<Outcome>,
        served: Served,
        fill: impl FnOnce(Served) -> Option<Completed>,
    ) {
        let (flight, version, now_ms) =
            (leader.flight().clone(), served.cached.version(), self.clock.now_ms());
        // a shared tier is told of what the store gave only after this
        let told_later = !self.shareds.is_empty() && served.tier == self.store_name;
        let keep_ms = move |current| match current {
            true if told_later => FILL_LAG_MS,
            true => 0,
            false => KEEP_MIN_MS,
        };
        leader.complete(
            version,
            |current| now_ms.saturating_add(keep_ms(current)),
            now_ms,
            |current| {
                let completed = if current { fill(served.clone()) } else { None };
                Ok(completed.unwrap_or_else(|| {
                    self.memories.iter().for_each(|layer| layer.fence(flight.key(), version, now_ms));
                    Completed::as_is(served)
                }))
            },
        );
    }

    /// Fills the tiers in memory, which may know better. Only under the lock of the key's flight.
    fn fill_memory(
        &self,
        key: &Key,
        found: &Lookup,
        served: Served,
        began_ms: u64,
        fresh_ms: u64,
    ) -> Completed {
        let mut completed = Completed::as_is(served);
        let now_ms = self.clock.now_ms();
        for layer in &self.memories {
            match layer.fill(key, found, began_ms, fresh_ms, now_ms) {
                // what was forgotten during this load was not put in by another one of the same key: see
                // `flight`
                PutOutcome::Stored | PutOutcome::Refused | PutOutcome::Overtaken => {}
                // a record that another program deleted leaves no version: that it is gone is believed all
                // the same
                PutOutcome::Fenced(_) if *found == Lookup::Missing => {}
                PutOutcome::Fenced(seen) => completed.floor = completed.floor.max(seen),
            }
        }
        completed
    }

    /// Offers records of the store to the shared tiers.
    async fn fill_shared(&self, filled: &[(Key, Lookup)], asked_ms: u64) {
        for layer in &self.shareds {
            let put = |(key, found): &(Key, Lookup)| Some((key.clone(), layer.put(key, found, asked_ms)?));
            let (keys, orders): (Vec<Key>, Vec<Order>) = filled.iter().filter_map(put).unzip();
            if orders.is_empty() {
                continue;
            }
            let answers = layer.cache.tell(&orders).await;
            let now_ms = self.clock.now_ms();
            for ((key, order), answer) in keys.iter().zip(orders).zip(answers) {
                if let Err(error) = answer {
                    layer.counters.failed(&error, 1);
                    // it may have an older one, which was not told of by an event yet
                    self.flights.note(key, order.version, now_ms.saturating_add(KEEP_MIN_MS), now_ms);
                }
                // a write may have gone by between landing and here, and its fence been lost since
                let floor = self.flights.floor(key, now_ms);
                if floor > order.version {
                    layer.invalidations.push(key, layer.fence(key, floor, now_ms));
                }
            }
        }
    }
}

fn wrong_count(found: usize, expected: usize) -> LoadError {
    Arc::new(std::io::Error::other(format!("the store gave {found} answers for {expected} keys")))
}
