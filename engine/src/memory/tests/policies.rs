//! Each policy against a plain model of itself: the same requests, the same part of hits.

use rand::Rng;

use super::{super::*, models::model, support::*};

pub const KEYS: usize = 20_000;
pub const CAPACITY: usize = KEYS / 10;
const REQUESTS: usize = 200_000;
/// By how much the parts of hits may differ.
const TOLERANCE: f64 = 0.005;

/// Keys drawn by Zipf's law with exponent 0.99, in no order.
pub fn requests(seed: u64) -> Vec<u64> {
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
            (weights.partition_point(|weight| *weight < drawn) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                >> 20
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

fn compare(policy: Policy) {
    let (requests, mut model) = (requests(7), model(policy, CAPACITY));
    let expected = requests.iter().filter(|key| model.ask(**key)).count() as f64 / requests.len() as f64;
    for shards in [1, 8] {
        let ratio = ratio_of_tier(policy, shards, &requests);
        println!("{policy:?}, {shards} parts: {ratio:.4}, model {expected:.4}");
        assert!(
            (ratio - expected).abs() < TOLERANCE,
            "{policy:?}, {shards} parts: {ratio:.4}, model {expected:.4}"
        );
    }
}

#[test]
fn lru_is_as_its_model() {
    compare(Policy::Lru);
}

#[test]
fn fifo_is_as_its_model() {
    compare(Policy::Fifo);
}

#[test]
fn lfu_is_as_its_model() {
    compare(Policy::Lfu);
}

#[test]
fn sieve_is_as_its_model() {
    compare(Policy::Sieve);
}

#[test]
fn s3_fifo_is_as_its_model() {
    compare(Policy::S3Fifo);
}
