//! `cargo bench --bench engine`: memory per product and the cost of a hit, as tables. Each row is measured in a process of its own.
//!
//! The data: products of 951 bytes of JSON with UUIDs as keys and 1,000 distinct states of everything but key, version, times, price and stock.

use std::{
    collections::HashMap,
    env,
    hint::black_box,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use dataplane::{
    cache::{
        Cached,
        memory::{Lifetime, Load, MemoryConfig, MemoryTier, Policy, PoolConfig, PoolId},
    },
    domain::{
        product,
        record::{Key, Lookup, Record, Row, Version},
        schema::{Role, Schema},
        value::{Json, Timestamp, Value},
    },
};
use rust_decimal::Decimal;
use uuid::Uuid;

const STATES: u64 = 1_000;
const BODY: usize = 951;
const NOW_MS: u64 = 1_760_000_000_000;
const GETS: u64 = 2_000_000;

/// One kind of store of products.
trait Shelf {
    fn put(&mut self, record: Record);

    /// The body of a product in two pieces, as a server would send it. Gives its length.
    fn get(&self, key: &Key) -> Option<usize>;

    /// What it says that it takes, where it says something.
    fn counted(&self) -> Option<u64> {
        None
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, shelf, entities] = args.as_slice()
        && flag == "--row"
    {
        return measure(shelf, entities.parse()?);
    }
    let million = 1_000_000;
    println!("\n{STATES} distinct states, {BODY} bytes of JSON each, UUID keys, one thread\n");
    println!(
        "| kept in | products | resident bytes each | counted bytes each | ns per get, any key | ns per get, Zipf 0.99 |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let rows = [("hashmap-string", million), ("hashmap-bytes", million), ("auto", million)];
    let sizes = [10_000, 100_000, million, 5 * million].map(|entities| ("declared", entities));
    for (shelf, entities) in rows.into_iter().chain(sizes) {
        let row = Command::new(env::current_exe()?).args(["--row", shelf, &entities.to_string()]).output()?;
        if !row.status.success() {
            bail!("{shelf}: {}", String::from_utf8_lossy(&row.stderr));
        }
        print!("{}", String::from_utf8_lossy(&row.stdout));
    }
    Ok(())
}

fn measure(shelf: &str, entities: u64) -> Result<()> {
    let before = resident()?;
    let (name, mut kept): (_, Box<dyn Shelf>) = match shelf {
        "hashmap-string" => ("HashMap of JSON strings", Box::new(Strings::default())),
        "hashmap-bytes" => ("HashMap of JSON `Bytes`", Box::new(Texts::default())),
        "declared" => ("memory tier, roles declared", Box::new(Flyweights::new(true)?)),
        "auto" => ("memory tier, roles measured", Box::new(Flyweights::new(false)?)),
        other => bail!("no shelf {other}"),
    };
    for n in 0..entities {
        kept.put(record(n)?);
    }
    let each = (resident()? - before) as f64 / entities as f64;
    let counted = kept.counted().map_or("–".to_owned(), |bytes| format!("{:.1}", bytes as f64 / entities as f64));
    let uniform = time_of_gets(kept.as_ref(), entities, |random| random % entities)?;
    let zipf = time_of_gets(kept.as_ref(), entities, |random| zipf(random, entities))?;
    println!("| {name} | {entities} | {each:.1} | {counted} | {uniform:.0} | {zipf:.0} |");
    Ok(())
}

fn time_of_gets(shelf: &dyn Shelf, entities: u64, choose: impl Fn(u64) -> u64) -> Result<f64> {
    let mut random = 1u64;
    let mut spent = Duration::ZERO;
    for _ in 0..GETS / 1_000 {
        let mut keys = Vec::with_capacity(1_000);
        for _ in 0..1_000 {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            keys.push(key(choose(mix(random)) % entities)?);
        }
        let start = Instant::now();
        let lens: usize = keys.iter().map(|key| black_box(shelf.get(key)).unwrap_or(0)).sum();
        spent += start.elapsed();
        if lens != keys.len() * BODY {
            bail!("{lens} bytes were served instead of {}", keys.len() * BODY);
        }
    }
    Ok(spent.as_nanos() as f64 / GETS as f64)
}

/// A rank by Zipf's law with exponent 0.99, by the inverse of its continuous distribution, at a place that has nothing to do with its rank.
fn zipf(random: u64, entities: u64) -> u64 {
    let drawn = (random >> 11) as f64 / (1u64 << 53) as f64;
    let rank = ((entities as f64 + 1.0).powf(0.01) - 1.0).mul_add(drawn, 1.0).powf(100.0);
    mix(rank as u64) % entities
}

/// The finaliser of SplitMix64.
fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn key(n: u64) -> Result<Key> {
    let random = u128::from(mix(n + 1)) << 64 | u128::from(mix(n + 7));
    Uuid::from_u128(random).to_string().parse().map_err(anyhow::Error::msg)
}

/// The n-th product: 951 bytes as JSON.
fn record(n: u64) -> Result<Record> {
    let state = mix(n) % STATES;
    let name = format!("Wireless headphones, model {state:04}");
    let attributes = format!(r#"{{"colour":"black","driver":"40 mm","model":"{state:04}","weight":"250 g"}}"#);
    let created_at = Timestamp(NOW_MS as i64 - (mix(n + 3) % 30_000_000_000) as i64);
    let mut record = Record {
        key: key(n)?,
        version: Version(1 + mix(n + 4) % 6),
        created_at,
        updated_at: Timestamp(created_at.0 + (mix(n + 5) % 3_000_000_000) as i64),
        values: Row(vec![
            Value::Text(name),
            Value::Text(String::new()),
            Value::Decimal(Decimal::new(1_000 + (mix(n + 6) % 9_000) as i64, 2)),
            Value::Text("EUR".to_owned()),
            Value::Text(format!("category-{:02}", state % 40)),
            Value::Text(format!("brand-{:03}", state % 100)),
            Value::Int((100 + mix(n + 8) % 900) as i64),
            Value::Json(Json::parse(&attributes)?),
        ]),
    };
    let rest = BODY - record.to_json(&product::schema()).len();
    let words = "Closed, over the ear, with a case, a cable and a spare pair of cushions. ";
    let description: String = words.chars().cycle().take(rest).collect();
    record.values.0[1] = Value::Text(description);
    Ok(record)
}

fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    Ok(statm.split_whitespace().nth(1).context("statm has no second figure")?.parse::<u64>()? * 4096)
}

#[derive(Default)]
struct Strings(HashMap<String, String>, Option<Schema>);

impl Shelf for Strings {
    fn put(&mut self, record: Record) {
        let schema = self.1.get_or_insert_with(product::schema);
        self.0.insert(record.key.to_string(), record.to_json(schema));
    }

    fn get(&self, key: &Key) -> Option<usize> {
        self.0.get(key.as_str()).map(|body| black_box(body.clone()).len())
    }
}

#[derive(Default)]
struct Texts(HashMap<Uuid, Bytes>, Option<Schema>);

impl Shelf for Texts {
    fn put(&mut self, record: Record) {
        let schema = self.1.get_or_insert_with(product::schema);
        if let Ok(key) = Uuid::try_parse(record.key.as_str()) {
            self.0.insert(key, Bytes::from(record.to_json(schema).into_bytes()));
        }
    }

    fn get(&self, key: &Key) -> Option<usize> {
        let key = Uuid::try_parse(key.as_str()).ok()?;
        self.0.get(&key).map(|body| black_box(body.clone()).len())
    }
}

struct Flyweights(MemoryTier, PoolId);

impl Flyweights {
    fn new(declared: bool) -> Result<Self> {
        let mut schema = product::schema();
        for field in schema.fields.iter_mut().filter(|_| declared) {
            let own = ["price", "stock"].contains(&field.name.as_str());
            field.role = if own { Role::Extrinsic } else { Role::Intrinsic };
        }
        let tier = MemoryTier::new(MemoryConfig { max_bytes: 1 << 30, policy: Policy::S3Fifo, shards: 0, seed: 1 });
        let lifetime = Lifetime { ttl_ms: 3_600_000, negative_ttl_ms: 2_000, jitter_percent: 10, stale_ms: 0 };
        let config = PoolConfig { capacity: 100_000_000, idle_after_ms: 1_800_000, lifetime };
        let pool = tier.register(Arc::new(schema), config)?;
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
