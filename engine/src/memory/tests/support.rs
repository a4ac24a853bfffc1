//! A tier of products for tests.

use std::sync::Arc;

use super::super::*;
use crate::flyweight::sample::{Product, schema};
use model::{record::Record, schema::Role, value::Value};

/// Where the tests' time begins.
pub const START: u64 = 1_700_000_000_000;

pub struct Fixture {
    pub tier: MemoryTier,
    pub pool: PoolId,
}

pub fn pool_config() -> PoolConfig {
    let lifetime = Lifetime { ttl_ms: 60_000, negative_ttl_ms: 2_000, jitter_percent: 0, stale_ms: 10_000 };
    PoolConfig { capacity: 1_000_000, idle_after_ms: 1_800_000, lifetime }
}

pub fn fixture(policy: Policy, shards: usize, max_bytes: u64, config: PoolConfig) -> Fixture {
    let tier = MemoryTier::new(MemoryConfig { max_bytes, policy, shards, seed: 42 });
    let pool = tier.register(Arc::new(intrinsic_schema()), config).unwrap();
    Fixture { tier, pool }
}

/// Products whose fields are declared: all intrinsic but price and stock.
pub fn intrinsic_schema() -> Schema {
    let mut schema = schema();
    for field in &mut schema.fields {
        field.role =
            if ["price", "stock"].contains(&field.name.as_str()) { Role::Extrinsic } else { Role::Intrinsic };
    }
    schema
}

/// The n-th product in one of 100 states, in a version that its stock shows.
pub fn product(n: u64, version: u64) -> Record {
    let mut record = Product { version, ..Product::of_state(n, n % 100) }.record();
    record.values.0[6] = Value::Int(version as i64);
    record
}

pub fn fresh(now_ms: u64) -> Load {
    Load { began_ms: now_ms, age_ms: 0 }
}

impl Fixture {
    pub fn put(&self, n: u64, version: u64, now_ms: u64) -> PutOutcome {
        self.put_loaded(n, version, fresh(now_ms), now_ms)
    }

    pub fn put_loaded(&self, n: u64, version: u64, load: Load, now_ms: u64) -> PutOutcome {
        let record = product(n, version);
        let key = record.key.clone();
        self.tier.put(self.pool, &key, &Lookup::Found(record), load, now_ms)
    }

    pub fn put_absent(&self, n: u64, version: u64, now_ms: u64) -> PutOutcome {
        let found = if version == 0 { Lookup::Missing } else { Lookup::Deleted(Version(version)) };
        self.tier.put(self.pool, &key(n), &found, fresh(now_ms), now_ms)
    }

    pub fn get(&self, n: u64, now_ms: u64) -> Option<Hit> {
        self.tier.get(self.pool, &key(n), now_ms)
    }

    pub fn fence(&self, n: u64, version: u64, now_ms: u64) {
        self.tier.fence(self.pool, &key(n), Version(version), now_ms);
    }

    pub fn stats(&self) -> PoolStats {
        self.tier.stats(self.pool)
    }
}

pub fn key(n: u64) -> Key {
    format!("product-{n}").parse().unwrap()
}

/// A random number generator that says its seed when a test fails: the tests print it.
pub fn random(seed: u64) -> rand::rngs::StdRng {
    println!("seed {seed}");
    rand::SeedableRng::seed_from_u64(seed)
}
