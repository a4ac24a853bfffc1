//! The data of the benches: products of 951 bytes of JSON with UUIDs as keys, a thousand of which share
//! everything but key, version, times, price and stock; and how keys are drawn.

use anyhow::{Context, Result};
use model::{
    entities::product,
    key::{Key, Version},
    record::Record,
    schema::{Role, Schema},
    value::{Json, Row, Timestamp, Value},
};
use rust_decimal::Decimal;
use uuid::Uuid;

/// Products of one shared state.
pub const OF_A_STATE: u64 = 1_000;
/// The bytes of a product as JSON.
pub const BODY: usize = 951;
/// Where the benches' time begins.
pub const NOW_MS: u64 = 1_760_000_000_000;

/// The products' schema; `declared` says which fields are shared, as a pool can.
pub fn schema(declared: bool) -> Schema {
    let mut schema = product::schema();
    for field in schema.fields.iter_mut().filter(|_| declared) {
        let own = ["price", "stock"].contains(&field.name.as_str());
        field.role = if own { Role::Extrinsic } else { Role::Intrinsic };
    }
    schema
}

/// The n-th key: a random UUID.
pub fn key(n: u64) -> Result<Key> {
    Uuid::from_u128(uuid(n)).to_string().parse().map_err(anyhow::Error::msg)
}

/// The n-th key as a number.
pub fn uuid(n: u64) -> u128 {
    u128::from(mix(n + 1)) << 64 | u128::from(mix(n + 7))
}

/// The n-th key of 16 bytes that is no UUID.
pub fn short_key(n: u64) -> Result<Key> {
    format!("product-{n:08}").parse().map_err(anyhow::Error::msg)
}

/// The n-th of so many products.
pub fn record(n: u64, products: u64) -> Result<Record> {
    record_of(n, products, key(n)?)
}

/// The n-th of so many products, by this key.
pub fn record_of(n: u64, products: u64, key: Key) -> Result<Record> {
    let state = mix(n) % products.div_ceil(OF_A_STATE);
    let name = format!("Wireless headphones, model {state:04}");
    let attributes =
        format!(r#"{{"colour":"black","driver":"40 mm","model":"{state:04}","weight":"250 g"}}"#);
    let created_at = Timestamp(NOW_MS as i64 - (mix(n + 3) % 30_000_000_000) as i64);
    let mut values = vec![
        Value::Text(name),
        Value::Text(String::new()),
        Value::Decimal(Decimal::new(1_000 + (mix(n + 6) % 9_000) as i64, 2)),
        Value::Text("EUR".to_owned()),
        Value::Text(format!("category-{:02}", state % 40)),
        Value::Text(format!("brand-{:03}", state % 100)),
        Value::Int((100 + mix(n + 8) % 900) as i64),
        Value::Json(Json::parse(&attributes)?),
    ];
    let schema = product::schema();
    // Nothing in the fields that no client sees.
    values.resize(schema.fields.len(), Value::Null);
    let mut record = Record {
        key,
        version: Version(1 + mix(n + 4) % 6),
        created_at,
        updated_at: Timestamp(created_at.0 + (mix(n + 5) % 3_000_000_000) as i64),
        values: Row(values),
    };
    let rest = BODY - record.to_json(&schema).len();
    let words = "Closed, over the ear, with a case, a cable and a spare pair of cushions. ";
    let description: String = words.chars().cycle().take(rest).collect();
    record.values.0[1] = Value::Text(description);
    Ok(record)
}

/// The n-th random number: SplitMix64 (Steele and others, 2014).
pub fn random(n: u64) -> u64 {
    mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A rank by Zipf's law with exponent 0.99 from a random number, by the inverse of its continuous
/// distribution. The first is 0.
pub fn zipf_rank(random: u64, entities: u64) -> u64 {
    let drawn = (random >> 11) as f64 / (1u64 << 53) as f64;
    let rank = ((entities as f64 + 1.0).powf(0.01) - 1.0).mul_add(drawn, 1.0).powf(100.0);
    (rank as u64 - 1).min(entities - 1)
}

/// The finaliser of SplitMix64.
pub fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// The resident bytes of a process.
pub fn resident(process: &str) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    Ok(statm.split_whitespace().nth(1).context("statm has no second figure")?.parse::<u64>()? * 4096)
}
