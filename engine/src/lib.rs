//! A cache of records that stores what they share once, in tiers that never go back to an older version.
//!
//! It knows no store, no server and no transport: a program hands in how a record is loaded, tells it what
//! was committed, and gets bytes that are ready to be sent. Redis or anything else can be a tier that
//! replicas share, behind the trait [`shared::SharedCache`].
//!
//! # Flyweights in memory
//!
//! A [`memory::MemoryTier`] holds the records of several pools within one bound of bytes. It measures which
//! fields of a pool repeat, stores each of their combinations once, and says what that saves.
//!
//! ```
//! use std::sync::Arc;
//!
//! use engine::memory::{Lifetime, Load, MemoryConfig, MemoryTier, Policy, PoolConfig};
//! use model::{
//!     key::{Key, Version},
//!     record::{Lookup, Record},
//!     schema::{Field, Kind, Role, Schema},
//!     value::{Row, Timestamp, Value},
//! };
//!
//! // what the records look like: the publisher is shared, the title is a book's own
//! let publisher = Field { role: Role::Intrinsic, ..Field::new("publisher", Kind::text(100)) };
//! let title = Field { role: Role::Extrinsic, ..Field::new("title", Kind::text(100)) };
//! let schema = Arc::new(Schema::new("book", "books", vec![publisher, title]));
//!
//! let config = MemoryConfig { max_bytes: 8 << 20, policy: Policy::S3Fifo, shards: 1, seed: 1 };
//! let tier = MemoryTier::new(config);
//! let lifetime = Lifetime { ttl_ms: 60_000, negative_ttl_ms: 1_000, jitter_percent: 0, stale_ms: 0 };
//! let pool = PoolConfig { capacity: 10_000, idle_after_ms: 3_600_000, lifetime };
//! let books = tier.register(schema, pool).expect("there is room for 256 pools");
//!
//! let now_ms = 1_000;
//! for number in 0..1_000 {
//!     let key: Key = format!("isbn-{number}").parse().unwrap();
//!     let values = Row(vec![Value::Text("Penguin".into()), Value::Text(format!("Book {number}"))]);
//!     let (version, at) = (Version(1), Timestamp(0));
//!     let record = Record { key: key.clone(), version, created_at: at, updated_at: at, values };
//!     tier.put(books, &key, &Lookup::Found(record), Load { began_ms: now_ms, age_ms: 0 }, now_ms);
//! }
//! let stats = tier.stats(books);
//! assert_eq!((stats.entities, stats.distinct), (1_000, 1));
//! assert!(stats.bytes_saved > 0);
//!
//! // an older version is not let in any more once a newer one is known of
//! let key: Key = "isbn-7".parse().unwrap();
//! tier.fence(books, &key, Version(2), now_ms);
//! assert!(tier.get(books, &key, now_ms).is_none());
//! ```
//!
//! # Tiers before a store
//!
//! [`tiered::Tiered`] reads through tiers in order, and calls the loader once per key at a time, however many
//! ask. A commit or an event of it is told by its version, and no load that began before fills a tier with
//! what is older.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use engine::{
//!     Cached,
//!     clock::Clock,
//!     memory::{MemoryConfig, MemoryTier, Policy, PoolConfig},
//!     tiered::{Backing, Loader, TierConfig, TierPlace, Tiered, TieredConfig, WriteStrategy, lifetime},
//! };
//! use model::{
//!     key::{Key, Version},
//!     record::{Lookup, Record},
//!     schema::{Field, Kind, Schema},
//!     value::{Row, Timestamp, Value},
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let schema = Arc::new(Schema::new("book", "books", vec![Field::new("title", Kind::text(100))]));
//! let hot = TierConfig {
//!     name: "hot".to_owned(),
//!     place: TierPlace::Memory,
//!     ttl: Duration::from_secs(60),
//!     jitter_percent: 10,
//!     negative_ttl: Duration::from_secs(2),
//!     stale_while_revalidate: Duration::ZERO,
//!     stale_if_error: Duration::ZERO,
//!     write: WriteStrategy::CacheAside,
//! };
//! let config = MemoryConfig { max_bytes: 8 << 20, policy: Policy::S3Fifo, shards: 0, seed: 1 };
//! let memory = Arc::new(MemoryTier::new(config));
//! let pool = PoolConfig { capacity: 10_000, idle_after_ms: 3_600_000, lifetime: lifetime(&hot) };
//! let pool = memory.register(schema.clone(), pool).expect("there is room for 256 pools");
//! let books = Tiered::new(TieredConfig {
//!     pool: "books".to_owned(),
//!     schema,
//!     tiers: vec![(hot, Backing::Memory(memory, pool))],
//!     sealer: None,
//!     clock: Clock::system(),
//!     load_deadline: Duration::from_secs(5),
//!     not_yet_deadline: Duration::from_millis(100),
//! });
//!
//! // stands for a query of the store
//! let load: Loader = Arc::new(|keys: Vec<Key>| {
//!     Box::pin(async move {
//!         let found = |key: Key| {
//!             let (version, at) = (Version(1), Timestamp(0));
//!             let values = Row(vec![Value::Text("Emma".into())]);
//!             Lookup::Found(Record { key, version, created_at: at, updated_at: at, values })
//!         };
//!         Ok(keys.into_iter().map(found).collect())
//!     })
//! });
//! let key: Key = "isbn-7".parse().unwrap();
//! let loaded = books.get_or_load(&key, Version(0), &load).await.unwrap();
//! assert_eq!(&*loaded.tier, "store");
//! let again = books.get_or_load(&key, Version(0), &load).await.unwrap();
//! assert_eq!(&*again.tier, "hot");
//! let Cached::Present(entry) = again.cached else { panic!("it is there") };
//! assert!(String::from_utf8(entry.to_body()).unwrap().contains(r#""title":"Emma""#));
//! # });
//! ```

#[cfg(test)]
extern crate self as engine;

use bytes::Bytes;

use model::key::Version;

pub mod clock;
pub mod flight;
pub mod flyweight;
pub mod memory;
pub mod shared;
pub mod tiered;

/// What a tier holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The record, ready to be sent.
    Present(Entry),
    /// There is no record: the version of its delete, or 0 where there never was one.
    Absent(Version),
}

/// A record ready to be sent: its body is `own`, then `shared`, then `}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's version.
    pub version: Version,
    /// `{"id":…` and the record's own fields, without a closing brace.
    pub own: Bytes,
    /// `,"field":…` for each shared field, or nothing. Equal shared states have one copy in memory.
    pub shared: Bytes,
}

impl Cached {
    /// The version that this speaks of.
    pub fn version(&self) -> Version {
        match self {
            Self::Present(entry) => entry.version,
            Self::Absent(version) => *version,
        }
    }
}

impl Entry {
    /// The bytes of the whole body.
    pub fn body_len(&self) -> usize {
        self.own.len() + self.shared.len() + 1
    }

    /// The whole body in one piece.
    pub fn to_body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.body_len());
        body.extend_from_slice(&self.own);
        body.extend_from_slice(&self.shared);
        body.push(b'}');
        body
    }
}
