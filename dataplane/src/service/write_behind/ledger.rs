//! What the log has decided: the newest state of each key that the store does not have yet, and who waits for
//! a decision.

use std::{
    collections::{HashMap, hash_map},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use super::{Lag, entry::Entry};
use model::key::{Key, Version};
use store::apply::State;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is the first that follows its version: it counts.
    First,
    /// Another one came before.
    TooLate,
}

/// What is known of the log.
pub struct Ledger {
    inner: Mutex<Inner>,
    /// Something may be settled.
    pub news: Notify,
    /// How many keys wait.
    waiting: watch::Sender<u64>,
    settled: AtomicU64,
    coalesced: AtomicU64,
    conflicts: AtomicU64,
    /// Whether all that the log held at the start was read, and whether it is in the store.
    read: AtomicBool,
    caught_up: AtomicBool,
}

#[derive(Default)]
struct Inner {
    known: HashMap<Key, Known>,
    expected: HashMap<Uuid, oneshot::Sender<Decision>>,
    waiting: u64,
}

/// The newest decided state of a key.
struct Known {
    state: State,
    actor: String,
    /// Whether this replica wrote it: then it settles it at once, else only where the writer does not.
    own: bool,
    /// When the first version that is not in the store was decided.
    since: Instant,
    decided: Instant,
    /// When the store had it.
    settled: Option<Instant>,
}

/// A state to be settled.
pub struct Due {
    /// The key.
    pub key: Key,
    /// The state.
    pub state: State,
    /// Who did it.
    pub actor: String,
}

/// How long another replica has for what it wrote.
const OTHERS_TURN: Duration = Duration::from_secs(2);
/// How long a settled version is remembered: far longer than an entry takes into the log, so that one that
/// follows an older version is noticed.
const REMEMBER: Duration = Duration::from_secs(60);
/// Known keys at which those that are settled long ago are swept.
const SWEEP_AT: usize = 4_096;

impl Default for Ledger {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            news: Notify::new(),
            waiting: watch::channel(0).0,
            settled: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            read: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
        }
    }
}

impl Ledger {
    /// Waits for the decision on an entry, from before it is in the log.
    pub fn expect(&self, id: Uuid) -> oneshot::Receiver<Decision> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner.lock();
        inner.expected.retain(|_, waits| !waits.is_closed());
        inner.expected.insert(id, sender);
        receiver
    }

    /// Decides on the next entry of the log.
    pub fn decide(&self, id: Uuid, entry: Entry) {
        let Entry { key, base, state, actor } = entry;
        let mut inner = self.inner.lock();
        let expected = inner.expected.remove(&id);
        let known = inner.known.get(&key).map_or(Version(0), |known| known.state.version());
        if known > base {
            expected.map(|waits| waits.send(Decision::TooLate));
            return;
        }
        let (now, own) = (Instant::now(), expected.is_some());
        let fresh = Known { state, actor, own, since: now, decided: now, settled: None };
        let more = match inner.known.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(fresh);
                true
            }
            hash_map::Entry::Occupied(mut occupied) => {
                let before = occupied.get();
                let waits = before.settled.is_none();
                let since = if waits { before.since } else { now };
                self.coalesced.fetch_add(u64::from(waits), Ordering::Relaxed);
                occupied.insert(Known { since, ..fresh });
                !waits
            }
        };
        inner.waiting += u64::from(more);
        self.waiting.send_replace(inner.waiting);
        // after the state is known here, so that whoever is answered reads it
        expected.map(|waits| waits.send(Decision::First));
        if inner.known.len() >= SWEEP_AT.max(4 * inner.waiting as usize) {
            inner.known.retain(|_, known| known.settled.is_none_or(|at| at.elapsed() < REMEMBER));
        }
        drop(inner);
        self.news.notify_one();
    }

    /// The newest state of a key, where the store does not have it yet.
    pub fn waiting(&self, key: &Key) -> Option<State> {
        self.inner
            .lock()
            .known
            .get(key)
            .filter(|known| known.settled.is_none())
            .map(|known| known.state.clone())
    }

    /// Some of what waits, for one actor, the oldest first: what this replica wrote, and what others should
    /// have settled by now.
    pub fn due(&self, limit: usize) -> Vec<Due> {
        let (inner, at_once) = (self.inner.lock(), !self.caught_up.load(Ordering::Acquire));
        let due = |known: &Known| {
            known.settled.is_none() && (known.own || at_once || known.decided.elapsed() > OTHERS_TURN)
        };
        let mut waiting: Vec<(&Key, &Known)> = inner.known.iter().filter(|(_, known)| due(known)).collect();
        waiting.sort_by_key(|(_, known)| known.since);
        let actor = waiting.first().map(|(_, known)| known.actor.clone()).unwrap_or_default();
        let of_actor = waiting.into_iter().filter(|(_, known)| known.actor == actor).take(limit);
        of_actor
            .map(|(key, known)| Due {
                key: key.clone(),
                state: known.state.clone(),
                actor: known.actor.clone(),
            })
            .collect()
    }

    /// The store has a version of a key, or a newer one where `better` says so.
    pub fn settle(&self, key: &Key, version: Version, better: bool) {
        let mut inner = self.inner.lock();
        let Inner { known: all, waiting, .. } = &mut *inner;
        let Some(known) =
            all.get_mut(key).filter(|known| known.settled.is_none() && known.state.version() == version)
        else {
            return;
        };
        known.settled = Some(Instant::now());
        // what others wrote they mostly settled themselves
        let conflict = better && known.own;
        *waiting -= 1;
        self.waiting.send_replace(*waiting);
        match better {
            true => self.conflicts.fetch_add(u64::from(conflict), Ordering::Relaxed),
            false => self.settled.fetch_add(1, Ordering::Relaxed),
        };
        self.check_caught_up(*waiting);
    }

    /// All that the log held at the start was read.
    pub fn all_read(&self) {
        let inner = self.inner.lock();
        self.read.store(true, Ordering::Release);
        self.check_caught_up(inner.waiting);
        self.news.notify_one();
    }

    fn check_caught_up(&self, waiting: u64) {
        if waiting == 0 && self.read.load(Ordering::Acquire) {
            self.caught_up.store(true, Ordering::Release);
        }
    }

    /// Waits until nothing waits.
    pub async fn settled(&self) {
        _ = self.waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
    }

    /// How far the store is behind.
    pub fn lag(&self) -> Lag {
        let waiting = *self.waiting.borrow();
        let oldest = (waiting > 0).then(|| {
            let inner = self.inner.lock();
            inner
                .known
                .values()
                .filter(|known| known.settled.is_none())
                .map(|known| known.since.elapsed())
                .max()
        });
        Lag {
            waiting,
            oldest_ms: oldest.flatten().map_or(0, |age| age.as_millis() as u64),
            settled: self.settled.load(Ordering::Relaxed),
            coalesced: self.coalesced.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            caught_up: self.caught_up.load(Ordering::Acquire),
        }
    }

    /// Whether all that the log held at the start is in the store.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }
}
