//! Each policy against a plain model of itself: the same requests, the same part of hits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use rand::Rng;

use super::{super::*, support::*};

const KEYS: usize = 20_000;
const CAPACITY: usize = KEYS / 10;
const REQUESTS: usize = 200_000;
/// By how much the parts of hits may differ.
const TOLERANCE: f64 = 0.005;

trait Model {
    /// Asks for a key, which comes in where it was not there. Gives whether it was.
    fn ask(&mut self, key: u64) -> bool;
}

#[derive(Default)]
struct Lru {
    time: u64,
    by_time: BTreeMap<u64, u64>,
    times: HashMap<u64, u64>,
}

impl Model for Lru {
    fn ask(&mut self, key: u64) -> bool {
        self.time += 1;
        let before = self.times.insert(key, self.time);
        before.map(|before| self.by_time.remove(&before));
        self.by_time.insert(self.time, key);
        if self.times.len() > CAPACITY {
            let (_, oldest) = self.by_time.pop_first().unwrap();
            self.times.remove(&oldest);
        }
        before.is_some()
    }
}

#[derive(Default)]
struct Fifo {
    queue: VecDeque<u64>,
    held: HashSet<u64>,
}

impl Model for Fifo {
    fn ask(&mut self, key: u64) -> bool {
        if !self.held.insert(key) {
            return true;
        }
        self.queue.push_back(key);
        if self.queue.len() > CAPACITY {
            self.held.remove(&self.queue.pop_front().unwrap());
        }
        false
    }
}

#[derive(Default)]
struct Lfu {
    time: u64,
    order: BTreeSet<(u64, u64, u64)>,
    held: HashMap<u64, (u64, u64)>,
}

impl Model for Lfu {
    fn ask(&mut self, key: u64) -> bool {
        self.time += 1;
        let before = self.held.get(&key).copied();
        if let Some((count, time)) = before {
            self.order.remove(&(count, time, key));
        } else if self.held.len() == CAPACITY {
            let (_, _, least) = self.order.pop_first().unwrap();
            self.held.remove(&least);
        }
        let count = before.map_or(0, |(count, _)| count + 1);
        self.held.insert(key, (count, self.time));
        self.order.insert((count, self.time, key));
        before.is_some()
    }
}

#[derive(Default)]
struct Sieve {
    time: u64,
    hand: u64,
    queue: BTreeMap<u64, (u64, bool)>,
    held: HashMap<u64, u64>,
}

impl Model for Sieve {
    fn ask(&mut self, key: u64) -> bool {
        if let Some(time) = self.held.get(&key) {
            self.queue.get_mut(time).unwrap().1 = true;
            return true;
        }
        if self.held.len() == CAPACITY {
            loop {
                let at = self.queue.range(self.hand..).next().or(self.queue.iter().next());
                let (time, (key, visited)) = at.map(|(time, node)| (*time, *node)).unwrap();
                self.hand = time + 1;
                if !visited {
                    self.queue.remove(&time);
                    self.held.remove(&key);
                    break;
                }
                self.queue.get_mut(&time).unwrap().1 = false;
            }
        }
        self.time += 1;
        self.queue.insert(self.time, (key, false));
        self.held.insert(key, self.time);
        false
    }
}

#[derive(Default)]
struct S3Fifo {
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghost: VecDeque<u64>,
    reads: HashMap<u64, u8>,
}

impl Model for S3Fifo {
    fn ask(&mut self, key: u64) -> bool {
        if let Some(reads) = self.reads.get_mut(&key) {
            *reads = 3.min(*reads + 1);
            return true;
        }
        while self.reads.len() >= CAPACITY {
            self.evict();
        }
        let ghost = self.ghost.iter().position(|ghost| *ghost == key);
        match ghost {
            Some(at) => {
                self.ghost.remove(at);
                self.main.push_back(key);
            }
            None => self.small.push_back(key),
        }
        self.reads.insert(key, 0);
        false
    }
}

impl S3Fifo {
    fn evict(&mut self) {
        if self.small.len() >= CAPACITY / 10 {
            let key = self.small.pop_front().unwrap();
            if self.reads[&key] > 1 {
                self.reads.insert(key, 0);
                self.main.push_back(key);
            } else {
                self.reads.remove(&key);
                self.ghost.push_back(key);
                if self.ghost.len() > CAPACITY - CAPACITY / 10 {
                    self.ghost.pop_front();
                }
            }
            return;
        }
        let key = self.main.pop_front().unwrap();
        match self.reads[&key] {
            0 => _ = self.reads.remove(&key),
            reads => {
                self.reads.insert(key, reads - 1);
                self.main.push_back(key);
            }
        }
    }
}

/// Keys drawn by Zipf's law with exponent 0.99, in no order.
fn requests(seed: u64) -> Vec<u64> {
    let mut random = random(seed);
    let mut sum = 0.0;
    let weights: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        })
        .collect();
    (0..REQUESTS)
        .map(|_| {
            let drawn = random.random_range(0.0..sum);
            (weights.partition_point(|weight| *weight < drawn) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
        })
        .collect()
}

fn ratio_of_tier(policy: Policy, shards: usize, requests: &[u64]) -> f64 {
    let long = Lifetime { ttl_ms: 1_000_000_000, ..pool_config().lifetime };
    let config = PoolConfig { capacity: CAPACITY as u64, lifetime: long, ..pool_config() };
    let it = fixture(policy, shards, 1 << 30, config);
    // All versions of all keys are one record: only the key matters here.
    let found = Lookup::Found(product(1, 1));
    let mut hits = 0;
    for (at, n) in requests.iter().enumerate() {
        let (key, now_ms) = (key(*n), START + at as u64);
        match it.tier.get(it.pool, &key, now_ms) {
            Some(_) => hits += 1,
            None => assert_eq!(it.tier.put(it.pool, &key, &found, fresh(now_ms), now_ms), PutOutcome::Stored),
        }
    }
    assert_eq!(it.stats().entities, CAPACITY as u64);
    f64::from(hits) / requests.len() as f64
}

fn compare(policy: Policy, mut model: impl Model) {
    let requests = requests(7);
    let expected = requests.iter().filter(|key| model.ask(**key)).count() as f64 / requests.len() as f64;
    for shards in [1, 8] {
        let ratio = ratio_of_tier(policy, shards, &requests);
        println!("{policy:?}, {shards} parts: {ratio:.4}, model {expected:.4}");
        assert!((ratio - expected).abs() < TOLERANCE, "{policy:?}, {shards} parts: {ratio:.4}, model {expected:.4}");
    }
}

#[test]
fn lru_is_as_its_model() {
    compare(Policy::Lru, Lru::default());
}

#[test]
fn fifo_is_as_its_model() {
    compare(Policy::Fifo, Fifo::default());
}

#[test]
fn lfu_is_as_its_model() {
    compare(Policy::Lfu, Lfu::default());
}

#[test]
fn sieve_is_as_its_model() {
    compare(Policy::Sieve, Sieve::default());
}

#[test]
fn s3_fifo_is_as_its_model() {
    compare(Policy::S3Fifo, S3Fifo::default());
}
