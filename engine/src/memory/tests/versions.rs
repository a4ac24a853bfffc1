//! No reader sees a version go back, whatever is loaded, fenced, evicted and cleaned up, and in whatever
//! order.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use proptest::prelude::*;
use rand::Rng;

use super::{super::*, support::*};

const ALL: [Policy; 5] = [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::S3Fifo, Policy::Sieve];

fn whole() -> Fixture {
    fixture(Policy::S3Fifo, 2, 8 << 20, pool_config())
}

#[test]
fn an_older_version_is_refused_and_an_equal_one_refreshes() {
    let it = whole();
    assert_eq!(it.put(1, 5, START), PutOutcome::Stored);
    assert_eq!(it.put(1, 4, START), PutOutcome::Fenced(Version(5)));
    assert_eq!(it.put(1, 5, START + 1_000), PutOutcome::Stored);
    assert_eq!(it.get(1, START + 1_000).unwrap().age_ms, 0);
    assert_eq!(it.put(1, 5, START), PutOutcome::Stored, "an older load of it");
    assert_eq!(it.get(1, START + 1_000).unwrap().age_ms, 0, "changes nothing");
    assert_eq!(it.put_absent(1, 6, START), PutOutcome::Stored);
    assert_eq!(it.put(1, 5, START), PutOutcome::Fenced(Version(6)));
    assert_eq!(it.put(1, 7, START), PutOutcome::Stored);
    assert_eq!(it.put_absent(1, 0, START), PutOutcome::Fenced(Version(7)));
}

#[test]
fn a_fence_drops_what_is_older_and_keeps_it_out() {
    let it = whole();
    it.put(1, 5, START);
    it.fence(1, 5, START);
    assert!(it.get(1, START).is_some());
    it.fence(1, 6, START);
    assert!(it.get(1, START).is_none());
    assert_eq!(it.put(1, 5, START + 59_000), PutOutcome::Fenced(Version(6)));
    assert_eq!(
        it.put_loaded(1, 5, fresh(START - 1), START + 70_000),
        PutOutcome::Fenced(Version(6)),
        "a slow load"
    );
    assert_eq!(it.put(1, 6, START + 59_000), PutOutcome::Stored);
}

#[test]
fn fences_beyond_what_is_kept_still_hold_against_loads_from_before() {
    let it = whole();
    (0..20_000).for_each(|n| it.fence(n, 2, START));
    let outcomes: Vec<_> = (0..20_000).map(|n| it.put_loaded(n, 1, fresh(START), START + 100)).collect();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Fenced(_) | PutOutcome::Overtaken)));
    assert!(outcomes.contains(&PutOutcome::Overtaken));
    assert!(
        (0..20_000).all(|n| it.put(n, 2, START + 101) == PutOutcome::Stored),
        "loads from after are taken"
    );
}

#[test]
fn what_was_evicted_is_not_replaced_by_an_older_load() {
    for policy in ALL {
        let it = fixture(policy, 1, 8 << 20, PoolConfig { capacity: 10, ..pool_config() });
        (0..50).for_each(|n| assert_eq!(it.put(n, 2, START + 10 + n), PutOutcome::Stored));
        let gone: Vec<u64> = (0..50).filter(|n| it.tier.peek(it.pool, &key(*n)).is_none()).collect();
        assert_eq!(gone.len(), 40);
        for n in gone {
            assert_eq!(
                it.put_loaded(n, 1, fresh(START + 5), START + 70),
                PutOutcome::Overtaken,
                "{policy:?}"
            );
        }
    }
}

#[test]
fn a_store_that_was_set_back_is_believed_in_the_end() {
    let it = whole();
    it.put(1, 5, START);
    assert_eq!(it.put(1, 3, START + 60_000), PutOutcome::Fenced(Version(5)));
    assert_eq!(it.put(1, 3, START + 60_001), PutOutcome::Stored);
    assert_eq!(it.put_absent(1, 0, START + 121_000), PutOutcome::Stored, "a row that others deleted");
}

/// What may happen to one of a few keys.
#[derive(Clone, Debug)]
enum Step {
    /// A write, and whether its version or only its fence comes to the tier.
    Write {
        n: u64,
        through: bool,
        delete: bool,
    },
    /// The start of a load, which sees the version of now.
    Begin {
        n: u64,
    },
    /// The end of one of the loads that have begun.
    End {
        which: usize,
    },
    Read {
        n: u64,
    },
    Pass {
        ms: u64,
    },
    Clean,
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0u64..8;
    prop_oneof![
        2 => (n(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(n, through, delete)| Step::Write { n, through, delete }),
        3 => n().prop_map(|n| Step::Begin { n }),
        3 => any::<usize>().prop_map(|which| Step::End { which }),
        3 => n().prop_map(|n| Step::Read { n }),
        2 => prop_oneof![Just(1), 1u64..3_000].prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Clean),
        1 => Just(Step::Shrink),
    ]
}

/// The naive model: what the store has, what was seen of it, and the loads under way.
struct World {
    it: Fixture,
    now_ms: u64,
    store: [(u64, bool); 8],
    seen: [u64; 8],
    loads: Vec<(u64, u64, (u64, bool))>,
}

impl World {
    fn put(&mut self, n: u64, (version, deleted): (u64, bool), began_ms: u64) {
        let found = match deleted {
            false => Lookup::Found(product(n, version)),
            true if version == 0 => Lookup::Missing,
            true => Lookup::Deleted(Version(version)),
        };
        let outcome = self.it.tier.put(self.it.pool, &key(n), &found, fresh(began_ms), self.now_ms);
        let seen = &mut self.seen[n as usize];
        match outcome {
            PutOutcome::Stored => {
                assert!(version >= *seen, "key {n}: took {version} after {seen}");
                *seen = version;
                let held = self.it.tier.peek(self.it.pool, &key(n));
                assert!(
                    held.is_none_or(|held| held == Version(version)),
                    "key {n}: {held:?} is held instead of {version}"
                );
            }
            PutOutcome::Fenced(by) => {
                assert!(Version(version) < by && by.0 <= *seen, "key {n}: {by} fenced {version}")
            }
            PutOutcome::Overtaken => {}
            PutOutcome::Refused => panic!("key {n}: refused"),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { n, through, delete } => {
                let (version, _) = self.store[n as usize];
                self.store[n as usize] = (version + 1, delete);
                if through {
                    self.put(n, (version + 1, delete), self.now_ms);
                }
                self.it.fence(n, version + 1, self.now_ms);
                self.seen[n as usize] = version + 1;
            }
            Step::Begin { n } => self.loads.push((n, self.now_ms, self.store[n as usize])),
            Step::End { which } => {
                if !self.loads.is_empty() {
                    let (n, began_ms, found) = self.loads.swap_remove(which % self.loads.len());
                    self.put(n, found, began_ms);
                }
            }
            Step::Read { n } => {
                let Some(hit) = self.it.get(n, self.now_ms) else { return };
                let version = hit.cached.version().0;
                assert!(
                    version >= self.seen[n as usize],
                    "key {n}: {version} after {}",
                    self.seen[n as usize]
                );
                assert!(version <= self.store[n as usize].0, "key {n}: {version} is not written yet");
                if let Cached::Present(entry) = hit.cached {
                    let record =
                        crate::flyweight::codec::decode(&intrinsic_schema(), &entry.to_body()).unwrap();
                    assert_eq!(record, product(n, version));
                }
            }
            Step::Pass { ms } => self.now_ms += ms,
            Step::Clean => _ = self.it.tier.remove_idle(self.it.pool, Some(500), self.now_ms),
            Step::Shrink => {
                self.it.tier.configure(self.it.pool, PoolConfig { capacity: 2, ..pool_config() });
                self.it.tier.configure(self.it.pool, PoolConfig { capacity: 4, ..pool_config() });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn versions_never_go_back(
        policy in prop::sample::select(&ALL[..]),
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let it = fixture(policy, 2, 8 << 20, PoolConfig { capacity: 4, ..pool_config() });
        let mut world = World { it, now_ms: START, store: [(0, true); 8], seen: [0; 8], loads: Vec::new() };
        steps.into_iter().for_each(|step| world.step(step));
        prop_assert_eq!(world.it.tier.bytes(), world.it.tier.count_bytes());
    }
}

#[test]
fn versions_never_go_back_under_threads() {
    const KEYS: u64 = 40;
    for (round, policy) in ALL.into_iter().enumerate() {
        let it = fixture(policy, 2, 8 << 20, PoolConfig { capacity: KEYS / 2, ..pool_config() });
        let store: Vec<Mutex<u64>> = (0..KEYS).map(|_| Mutex::new(1)).collect();
        let floor: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        let start = Instant::now();
        let now = || START + start.elapsed().as_millis() as u64;
        let act = |thread: u64| {
            let mut random = random(100 * round as u64 + thread);
            for _ in 0..3_000 {
                let n = random.random_range(0..KEYS);
                let (key, seen) = (key(n), floor[n as usize].load(Ordering::SeqCst));
                if random.random_bool(0.3) {
                    let mut version = store[n as usize].lock().unwrap();
                    *version += 1;
                    let written = *version;
                    drop(version);
                    if random.random_bool(0.5) {
                        it.put(n, written, now());
                    }
                    it.tier.fence(it.pool, &key, Version(written), now());
                    floor[n as usize].fetch_max(written, Ordering::SeqCst);
                } else if let Some(hit) = it.tier.get(it.pool, &key, now()) {
                    let version = hit.cached.version().0;
                    assert!(version >= seen, "{policy:?}, key {n}: {version} after {seen}");
                    let Cached::Present(entry) = hit.cached else { panic!("nothing was deleted") };
                    let body = String::from_utf8(entry.to_body()).unwrap();
                    assert!(
                        body.contains(&format!("\"stock\":{version},"))
                            || body.contains(&format!("\"stock\":{version}}}"))
                    );
                    floor[n as usize].fetch_max(version, Ordering::SeqCst);
                } else {
                    let began_ms = now();
                    let version = *store[n as usize].lock().unwrap();
                    (0..random.random_range(0..3)).for_each(|_| std::thread::yield_now());
                    if it.put_loaded(n, version, fresh(began_ms), now()) == PutOutcome::Stored {
                        assert!(version >= seen, "{policy:?}, key {n}: loaded {version} after {seen}");
                        floor[n as usize].fetch_max(version, Ordering::SeqCst);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || act(thread));
            }
        });
        assert_eq!(it.tier.bytes(), it.tier.count_bytes(), "{policy:?}");
        assert!(it.stats().entities <= KEYS / 2);
    }
}
