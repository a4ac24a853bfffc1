//! What products are kept in, to be compared.

use std::{collections::HashMap, hint::black_box, sync::Arc};

use anyhow::{Result, bail};
use bytes::Bytes;
use engine::{
    Cached,
    memory::{Lifetime, Load, MemoryConfig, MemoryTier, Policy, PoolConfig, PoolId},
};
use model::{
    key::Key,
    record::{Lookup, Record},
    schema::Schema,
};
use uuid::Uuid;

use super::products::{NOW_MS, schema};

/// One kind of store of products.
pub trait Shelf {
    /// Keeps a product.
    fn put(&mut self, record: Record);

    /// The body of a product, in one piece or two, as a server would send it. Gives its length.
    fn get(&self, key: &Key) -> Option<usize>;

    /// What it says that it takes, where it says something.
    fn counted(&self) -> Option<u64> {
        None
    }
}

/// The shelf whose products have keys of 16 bytes, not UUIDs.
pub const SHORT_KEYS: &str = "declared-16";

/// A shelf by its name, and what the table calls it.
pub fn shelf(name: &str) -> Result<(&'static str, Box<dyn Shelf>)> {
    Ok(match name {
        "hashmap-string" => ("HashMap of JSON strings", Box::new(Strings::default())),
        "hashmap-bytes" => ("HashMap of JSON `Bytes`", Box::new(Texts::<HashMap<Uuid, Bytes>>::default())),
        "moka" => ("moka of JSON `Bytes`", Box::new(Texts(moka::sync::Cache::new(u64::MAX), schema(false)))),
        "quick_cache" => {
            ("quick_cache of JSON `Bytes`", Box::new(Texts(QuickCache::new(1_100_000), schema(false))))
        }
        "declared" => ("**Flyweight's memory tier**, roles declared", Box::new(Flyweights::new(true)?)),
        SHORT_KEYS => (
            "**Flyweight's memory tier**, roles declared, keys of 16 bytes",
            Box::new(Flyweights::new(true)?),
        ),
        "auto" => ("**Flyweight's memory tier**, roles measured", Box::new(Flyweights::new(false)?)),
        other => bail!("no shelf {other}"),
    })
}

type QuickCache = quick_cache::sync::Cache<Uuid, Bytes>;

#[derive(Default)]
struct Strings(HashMap<String, String>, Option<Schema>);

impl Shelf for Strings {
    fn put(&mut self, record: Record) {
        let schema = self.1.get_or_insert_with(|| schema(false));
        self.0.insert(record.key.to_string(), record.to_json(schema));
    }

    fn get(&self, key: &Key) -> Option<usize> {
        self.0.get(key.as_str()).map(|body| black_box(body.clone()).len())
    }
}

/// A map from keys to bodies.
trait Bodies {
    fn keep(&mut self, key: Uuid, body: Bytes);
    fn body(&self, key: &Uuid) -> Option<Bytes>;
}

impl Bodies for HashMap<Uuid, Bytes> {
    fn keep(&mut self, key: Uuid, body: Bytes) {
        self.insert(key, body);
    }

    fn body(&self, key: &Uuid) -> Option<Bytes> {
        self.get(key).cloned()
    }
}

impl Bodies for moka::sync::Cache<Uuid, Bytes> {
    fn keep(&mut self, key: Uuid, body: Bytes) {
        self.insert(key, body);
    }

    fn body(&self, key: &Uuid) -> Option<Bytes> {
        self.get(key)
    }
}

impl Bodies for QuickCache {
    fn keep(&mut self, key: Uuid, body: Bytes) {
        self.insert(key, body);
    }

    fn body(&self, key: &Uuid) -> Option<Bytes> {
        self.get(key)
    }
}

struct Texts<M>(M, Schema);

impl Default for Texts<HashMap<Uuid, Bytes>> {
    fn default() -> Self {
        Self(HashMap::new(), schema(false))
    }
}

impl<M: Bodies> Shelf for Texts<M> {
    fn put(&mut self, record: Record) {
        if let Ok(key) = Uuid::try_parse(record.key.as_str()) {
            self.0.keep(key, Bytes::from(record.to_json(&self.1).into_boxed_str().into_boxed_bytes()));
        }
    }

    fn get(&self, key: &Key) -> Option<usize> {
        let key = Uuid::try_parse(key.as_str()).ok()?;
        self.0.body(&key).map(|body| black_box(body).len())
    }
}

struct Flyweights(MemoryTier, PoolId);

impl Flyweights {
    fn new(declared: bool) -> Result<Self> {
        let tier =
            MemoryTier::new(MemoryConfig { max_bytes: 1 << 30, policy: Policy::S3Fifo, shards: 0, seed: 1 });
        let lifetime =
            Lifetime { ttl_ms: 3_600_000, negative_ttl_ms: 2_000, jitter_percent: 10, stale_ms: 0 };
        let config = PoolConfig { capacity: 100_000_000, idle_after_ms: 1_800_000, lifetime };
        let pool = tier.register(Arc::new(schema(declared)), config)?;
        Ok(Self(tier, pool))
    }
}

impl Shelf for Flyweights {
    fn put(&mut self, record: Record) {
        let (key, load) = (record.key.clone(), Load { began_ms: NOW_MS, age_ms: 0 });
        self.0.put(self.1, &key, &Lookup::Found(record), load, NOW_MS);
    }

    fn get(&self, key: &Key) -> Option<usize> {
        match self.0.get(self.1, key, NOW_MS)?.cached {
            Cached::Present(entry) => Some(black_box(entry).body_len()),
            Cached::Absent(_) => None,
        }
    }

    fn counted(&self) -> Option<u64> {
        Some(self.0.bytes())
    }
}
