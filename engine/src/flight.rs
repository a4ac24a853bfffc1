//! One load per key at a time, and the lowest version that a load may still bring.
//!
//! A flight is one load with everybody who waits for it. A write or an event *supersedes* it: the flight
//! leaves the table, so that later readers start another, and what it brings is given to those who waited
//! already but goes into no tier. Filling a tier and fencing it happen under the same lock as this table, so
//! the two never pass each other unseen.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use model::key::{Key, Version};

/// The loads under way, and the floors of keys that were written lately. `T` is what a load brings.
pub struct Flights<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    hasher: RandomState,
    /// Floors were given up at this time (ms): nothing that was loaded before can be compared with them any
    /// more.
    floors_lost_ms: AtomicU64,
}

/// One load of one key.
pub struct Flight<T> {
    key: Key,
    floor: Version,
    need: Version,
    outcome: watch::Sender<State<T>>,
}

/// How a reader comes by a value.
pub enum Joined<T, H> {
    /// It is in a tier after all.
    Hit(H),
    /// Another reader's load is under way.
    Follow(Arc<Flight<T>>),
    /// The reader has to load it.
    Lead(Leader<T>),
}

/// Who leads a flight has to complete it. Dropped before (the load panicked), it ends without an outcome.
pub struct Leader<T> {
    flights: Arc<Flights<T>>,
    flight: Arc<Flight<T>>,
    completed: bool,
}

enum State<T> {
    Loading,
    Completed(T),
    Lost,
}

struct Shard<T> {
    flights: HashMap<Key, Arc<Flight<T>>>,
    floors: HashMap<Key, Floor>,
    /// The number of floors at which those that are over are swept.
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Floor {
    version: Version,
    until_ms: u64,
}

const SHARDS: usize = 32;
/// Floors kept in one shard: about 130,000 in all, each about 100 B.
const FLOORS_MAX: usize = 4096;

impl<T> Default for Flights<T> {
    /// No loads and no floors.
    fn default() -> Self {
        let shard = || Mutex::new(Shard { flights: HashMap::new(), floors: HashMap::new(), sweep_at: 64 });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            floors_lost_ms: AtomicU64::new(0),
        }
    }
}

impl<T> Flights<T> {
    /// Joins the load of a key, or starts one. `recheck` looks into the tiers once more before that: a load
    /// may just have ended.
    pub fn join<H>(
        self: &Arc<Self>,
        key: &Key,
        at_least: Version,
        now_ms: u64,
        recheck: impl FnOnce() -> Option<H>,
    ) -> Joined<T, H> {
        let mut shard = self.shard(key).lock();
        if let Some(flight) = shard.flights.get(key) {
            return Joined::Follow(flight.clone());
        }
        if let Some(hit) = recheck() {
            return Joined::Hit(hit);
        }
        let floor = shard.floor(key, now_ms);
        let need = floor.max(at_least);
        let flight =
            Arc::new(Flight { key: key.clone(), floor, need, outcome: watch::Sender::new(State::Loading) });
        shard.flights.insert(key.clone(), flight.clone());
        Joined::Lead(Leader { flights: self.clone(), flight, completed: false })
    }

    /// A version was committed: no load that began before may fill a tier. `apply` does to the tiers what
    /// must not be passed by a fill; it is told whether this is the newest version known. Says whether it was
    /// news.
    pub fn supersede(
        &self,
        key: &Key,
        version: Version,
        until_ms: u64,
        now_ms: u64,
        apply: impl FnOnce(bool),
    ) -> bool {
        let mut shard = self.shard(key).lock();
        let known = shard.floor(key, now_ms);
        self.raise(&mut shard, key, version, until_ms, now_ms);
        apply(version >= known);
        version > known
    }

    /// Every load under way is superseded.
    pub fn supersede_all(&self) {
        for shard in &self.shards {
            shard.lock().flights.clear();
        }
    }

    /// Notes a version that readers have seen, as `supersede` does.
    pub fn note(&self, key: &Key, version: Version, until_ms: u64, now_ms: u64) {
        self.raise(&mut self.shard(key).lock(), key, version, until_ms, now_ms);
    }

    /// Calls `fill` with the floor of a key that nobody loads just now, under the lock that loads end under.
    pub fn while_idle<R>(&self, key: &Key, now_ms: u64, fill: impl FnOnce(Version) -> R) -> Option<R> {
        let shard = self.shard(key).lock();
        (!shard.flights.contains_key(key)).then(|| fill(shard.floor(key, now_ms)))
    }

    /// The floor of a key may be forgotten after some time, unless it was raised since.
    pub fn settle(&self, key: &Key, version: Version, until_ms: u64) {
        if let Entry::Occupied(mut floor) = self.shard(key).lock().floors.entry(key.clone())
            && floor.get().version <= version
        {
            floor.get_mut().until_ms = until_ms;
        }
    }

    /// The lowest version of a key that is to be believed.
    pub fn floor(&self, key: &Key, now_ms: u64) -> Version {
        self.shard(key).lock().floor(key, now_ms)
    }

    /// When floors were last given up for want of space, in ms; 0: never.
    pub fn floors_lost_ms(&self) -> u64 {
        self.floors_lost_ms.load(Ordering::Acquire)
    }

    /// Raises the floor of a key; a load that began below it is superseded.
    fn raise(&self, shard: &mut Shard<T>, key: &Key, version: Version, until_ms: u64, now_ms: u64) {
        if shard.flights.get(key).is_some_and(|flight| flight.floor < version) {
            shard.flights.remove(key);
        }
        if let Some(floor) = shard.floors.get_mut(key) {
            if floor.version < version || floor.until_ms <= now_ms {
                *floor = Floor { version, until_ms };
            } else if floor.version == version {
                floor.until_ms = until_ms.max(floor.until_ms);
            }
            return;
        }
        if shard.floors.len() >= shard.sweep_at {
            shard.floors.retain(|_, floor| floor.until_ms > now_ms);
            if shard.floors.len() >= FLOORS_MAX {
                shard.floors.clear();
                self.floors_lost_ms.fetch_max(now_ms, Ordering::AcqRel);
            }
            shard.sweep_at = (2 * shard.floors.len()).clamp(64, FLOORS_MAX);
        }
        if version > Version(0) {
            shard.floors.insert(key.clone(), Floor { version, until_ms });
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard<T>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Takes a flight out of the table, if it is still there.
    fn remove(shard: &mut Shard<T>, flight: &Arc<Flight<T>>) -> bool {
        let current = shard.flights.get(&flight.key).is_some_and(|current| Arc::ptr_eq(current, flight));
        if current {
            shard.flights.remove(&flight.key);
        }
        current
    }
}

impl<T: Clone> Flight<T> {
    /// Older versions are no use to who leads this, nor to who joins it now.
    pub fn need(&self) -> Version {
        self.need
    }

    /// Older versions were superseded before this began.
    pub fn floor(&self) -> Version {
        self.floor
    }

    /// The key that is loaded.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What the load brings; nothing where it came to no end.
    pub async fn wait(&self) -> Option<T> {
        let mut outcome = self.outcome.subscribe();
        match &*outcome.wait_for(|state| !matches!(state, State::Loading)).await.ok()? {
            State::Completed(value) => Some(value.clone()),
            State::Loading | State::Lost => None,
        }
    }
}

impl<T> Leader<T> {
    /// The flight.
    pub fn flight(&self) -> &Arc<Flight<T>> {
        &self.flight
    }

    /// Ends the flight with a value that is given out. `fill` may put it into tiers where it was not
    /// superseded, which it is told. Its version is the key's floor until a time that depends on that, for
    /// its readers must not see an older one next.
    pub fn complete(
        mut self,
        version: Version,
        until_ms: impl FnOnce(bool) -> u64,
        now_ms: u64,
        fill: impl FnOnce(bool) -> T,
    ) {
        self.completed = true;
        let (flights, flight) = (&self.flights, &self.flight);
        let outcome = {
            let mut shard = flights.shard(&flight.key).lock();
            let current = Flights::remove(&mut shard, flight);
            let until_ms = until_ms(current);
            if until_ms > now_ms {
                flights.raise(&mut shard, &flight.key, version, until_ms, now_ms);
            }
            fill(current)
        };
        flight.outcome.send_replace(State::Completed(outcome));
    }

    /// Ends the flight without a value.
    pub fn fail(mut self, outcome: T) {
        self.completed = true;
        Flights::remove(&mut self.flights.shard(&self.flight.key).lock(), &self.flight);
        self.flight.outcome.send_replace(State::Completed(outcome));
    }
}

impl<T> Shard<T> {
    fn floor(&self, key: &Key, now_ms: u64) -> Version {
        self.floors.get(key).filter(|floor| floor.until_ms > now_ms).map_or(Version(0), |floor| floor.version)
    }
}

impl<T> Drop for Leader<T> {
    fn drop(&mut self) {
        if !self.completed {
            Flights::remove(&mut self.flights.shard(&self.flight.key).lock(), &self.flight);
            self.flight.outcome.send_replace(State::Lost);
        }
    }
}
