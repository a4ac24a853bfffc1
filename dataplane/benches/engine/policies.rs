//! The part of hits of each policy against a plain model of it: the same requests, and room for a tenth of
//! the keys. Beside it what the tier's shadows say that each policy would do, as seen from a tier of another
//! policy.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use engine::memory::{Lifetime, Load, MemoryConfig, MemoryTier, Policy, PoolConfig, PoolId, PutOutcome};
use model::{key::Key, record::Lookup};

use super::{
    models::model,
    products::{NOW_MS, random, record, schema, zipf_rank},
};

const KEYS: u64 = 1_000_000;
const ROOM: u64 = KEYS / 10;
const REQUESTS: u64 = 5_000_000;
/// By how much the parts of hits may differ.
const TOLERANCE: f64 = 0.005;
const POLICIES: [Policy; 5] = [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::S3Fifo, Policy::Sieve];

/// The part of hits of all reads, and of the second half of them.
#[derive(Clone, Copy)]
struct Ratio {
    all: f64,
    late: f64,
}

/// The table of hit ratios.
pub fn compare() -> Result<()> {
    println!("\n## Hit ratio: {KEYS} keys, Zipf 0.99, room for a tenth of them, {REQUESTS} reads\n");
    println!(
        "| policy | memory tier | plain model | difference, points | second half | foreseen by a tier of S3-FIFO |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let (other, other_pool) = tier(Policy::S3Fifo)?;
    run(&other, other_pool)?;
    let forecast = other.forecast(other_pool).context("no forecast")?;
    let mut apart = Vec::new();
    for policy in POLICIES {
        let mut model = model(policy, ROOM as usize);
        let mut expected = Count::default();
        requests().for_each(|n| expected.add(model.ask(n)));
        let (tier, pool) = tier(policy)?;
        let (ratio, expected) = (run(&tier, pool)?, expected.ratio());
        let difference = ratio.all - expected.all;
        let foreseen = forecast.policies.iter().find(|estimate| estimate.policy == policy);
        println!(
            "| {policy:?} | {:.2} % | {:.2} % | {:+.2} | {:.2} % | {:.2} % |",
            ratio.all * 100.0,
            expected.all * 100.0,
            difference * 100.0,
            ratio.late * 100.0,
            foreseen.map_or(f64::NAN, |estimate| estimate.hit_ratio * 100.0)
        );
        apart.extend((difference.abs() > TOLERANCE).then_some(policy));
    }
    println!("\nThe forecast is from {} sampled keys, one in {}.", forecast.keys, forecast.one_in);
    if apart.is_empty() { Ok(()) } else { bail!("not within {TOLERANCE}: {apart:?}") }
}

#[derive(Default)]
struct Count {
    reads: u64,
    hits: u64,
    late: u64,
}

impl Count {
    fn add(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.late += u64::from(hit && self.reads >= REQUESTS / 2);
        self.reads += 1;
    }

    fn ratio(&self) -> Ratio {
        Ratio { all: self.hits as f64 / REQUESTS as f64, late: self.late as f64 / (REQUESTS / 2) as f64 }
    }
}

fn requests() -> impl Iterator<Item = u64> {
    (0..REQUESTS).map(|n| zipf_rank(random(n), KEYS))
}

fn tier(policy: Policy) -> Result<(MemoryTier, PoolId)> {
    let tier = MemoryTier::new(MemoryConfig { max_bytes: 1 << 30, policy, shards: 0, seed: 42 });
    let lifetime = Lifetime { ttl_ms: 1_000_000_000, negative_ttl_ms: 0, jitter_percent: 0, stale_ms: 0 };
    let config = PoolConfig { capacity: ROOM, idle_after_ms: 1_800_000, lifetime };
    let pool = tier.register(Arc::new(schema(true)), config)?;
    Ok((tier, pool))
}

/// Reads all, putting in what is missing.
fn run(tier: &MemoryTier, pool: PoolId) -> Result<Ratio> {
    // All keys have one record: only the key matters here.
    let found = Lookup::Found(record(1, 1)?);
    let mut count = Count::default();
    for (at, n) in requests().enumerate() {
        let now_ms = NOW_MS + at as u64 / 100;
        let key: Key = format!("product-{n}").parse().map_err(anyhow::Error::msg)?;
        let hit = tier.get(pool, &key, now_ms).is_some();
        count.add(hit);
        let load = Load { began_ms: now_ms + 1, age_ms: 0 };
        if !hit && tier.put(pool, &key, &found, load, now_ms) != PutOutcome::Stored {
            bail!("{key} was not kept");
        }
    }
    Ok(count.ratio())
}
