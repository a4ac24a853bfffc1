//! How long entries live, and what is served of them.

use std::sync::Arc;

use rand::Rng;

use super::{super::*, support::*};
use crate::flyweight::{
    codec::decode,
    sample::{Product, schema},
};
use model::{
    record::Record,
    value::{Json, Value},
};

fn whole(max_bytes: u64) -> Fixture {
    fixture(Policy::S3Fifo, 4, max_bytes, pool_config())
}

#[test]
fn a_hit_is_the_record_and_its_shared_state_is_not_copied() {
    let it = whole(64 << 20);
    for n in 0..500 {
        assert_eq!(it.put(n, 1 + n, START), PutOutcome::Stored);
    }
    let body = |n| match it.get(n, START).unwrap().cached {
        Cached::Present(entry) => entry,
        Cached::Absent(_) => panic!("product {n} is there"),
    };
    for n in 0..500 {
        let entry = body(n);
        assert_eq!(entry.version, Version(1 + n));
        assert_eq!(decode(&intrinsic_schema(), &entry.to_body()).unwrap(), product(n, 1 + n));
    }
    assert_eq!(body(7).shared.as_ptr(), body(107).shared.as_ptr(), "one copy for all that share it");
    let stats = it.stats();
    assert_eq!((stats.entities, stats.distinct, stats.shared, stats.unshared), (500, 100, 500, 0));
    assert!(stats.bytes_saved > 400 * 500, "{stats:?}");
}

#[test]
fn freshness_staleness_and_age() {
    let it = whole(8 << 20);
    it.put_loaded(1, 1, Load { began_ms: START - 200, age_ms: 800 }, START);
    let hit = it.get(1, START).unwrap();
    assert_eq!((hit.age_ms, hit.expires_in_ms), (1_000, 59_000));
    let hit = it.get(1, START + 60_000).unwrap();
    assert_eq!((hit.age_ms, hit.expires_in_ms), (61_000, -1_000));
    assert!(it.get(1, START + 68_999).is_some());
    assert!(it.get(1, START + 69_000).is_none());
    assert_eq!((it.stats().hits, it.stats().misses), (1, 3));
    it.put(1, 1, START + 69_000);
    assert_eq!(it.get(1, START + 69_000).unwrap().expires_in_ms, 60_000, "a refresh of the same version");
}

#[test]
fn absence_is_kept_for_its_own_time() {
    let it = whole(8 << 20);
    it.put_absent(1, 0, START);
    it.put_absent(2, 5, START);
    assert_eq!(it.get(1, START).unwrap().cached, Cached::Absent(Version(0)));
    assert_eq!(it.get(2, START).unwrap().cached, Cached::Absent(Version(5)));
    assert_eq!(it.get(2, START + 1_000).unwrap().expires_in_ms, 1_000);
    assert!(it.get(2, START + 12_000).is_none());
    let none = Lifetime { negative_ttl_ms: 0, ..pool_config().lifetime };
    it.tier.configure(it.pool, PoolConfig { lifetime: none, ..pool_config() });
    assert_eq!(it.put_absent(3, 4, START), PutOutcome::Refused);
    assert!(it.get(3, START).is_none());
    assert_eq!(it.put(3, 3, START), PutOutcome::Fenced(Version(4)), "what is not kept is remembered");
}

#[test]
fn jitter_shortens_by_up_to_its_part_and_is_the_same_at_each_look() {
    let jitter = Lifetime { jitter_percent: 20, ..pool_config().lifetime };
    let it = fixture(Policy::Lru, 1, 8 << 20, PoolConfig { lifetime: jitter, ..pool_config() });
    (0..1_000).for_each(|n| assert_eq!(it.put(n, 1, START), PutOutcome::Stored));
    let left: Vec<i64> = (0..1_000).map(|n| it.get(n, START).unwrap().expires_in_ms).collect();
    let again: Vec<i64> = (0..1_000).map(|n| it.get(n, START + 100).unwrap().expires_in_ms + 100).collect();
    assert_eq!(left, again);
    let (least, most) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!((48_000..48_500).contains(least) && (59_500..=60_000).contains(most), "{least} {most}");
}

#[test]
fn what_is_idle_or_stale_is_cleaned_up() {
    let long = Lifetime { ttl_ms: 10_000_000, ..pool_config().lifetime };
    let it = fixture(Policy::Sieve, 4, 64 << 20, PoolConfig { lifetime: long, ..pool_config() });
    (0..5_000).for_each(|n| assert_eq!(it.put(n, 1, START), PutOutcome::Stored));
    (0..1_000).for_each(|n| assert!(it.get(n, START + 1_000_000).is_some()));
    assert_eq!(it.tier.remove_idle(it.pool, None, START + 1_790_000), 0);
    assert_eq!(it.tier.remove_idle(it.pool, None, START + 1_810_000), 4_000);
    assert_eq!(it.stats().entities, 1_000);
    assert_eq!(it.tier.remove_idle(it.pool, Some(600_000), START + 1_810_000), 1_000);
    let stats = it.stats();
    assert_eq!((stats.entities, stats.distinct, stats.bytes_saved), (0, 0, 0));
    assert_eq!((stats.expired, stats.last_cleanup_ms), (5_000, START + 1_810_000));
    it.put_absent(1, 3, START + 2_000_000);
    assert_eq!(it.tier.remove_idle(it.pool, None, START + 2_011_999), 0);
    assert_eq!(it.tier.remove_idle(it.pool, None, START + 2_012_000), 1, "no longer given out");
}

#[test]
fn pools_of_a_tier_are_apart() {
    let it = whole(8 << 20);
    let other = it.tier.register(Arc::new(intrinsic_schema()), pool_config()).unwrap();
    it.put(1, 1, START);
    assert!(it.tier.get(other, &key(1), START).is_none());
    it.tier.put(other, &key(1), &Lookup::Deleted(Version(9)), fresh(START), START);
    assert_eq!(it.get(1, START).unwrap().cached.version(), Version(1));
    it.tier.clear(it.pool, START);
    assert!(it.get(1, START).is_none());
    assert_eq!(it.tier.peek(other, &key(1)), Some(Version(9)));
    assert_eq!(it.put(1, 1, START), PutOutcome::Overtaken, "it may have been loaded before");
    assert_eq!(it.put(1, 1, START + 1), PutOutcome::Stored);
}

#[test]
fn capacity_bounds_the_entities_and_may_change() {
    let it = fixture(Policy::Lru, 4, 64 << 20, PoolConfig { capacity: 1_000, ..pool_config() });
    for n in 0..3_000 {
        it.put(n, 1, START + n);
        assert!(it.stats().entities <= 1_000);
    }
    assert_eq!(it.stats().evictions, 2_000);
    it.tier.configure(it.pool, PoolConfig { capacity: 100, ..pool_config() });
    assert_eq!(it.stats().entities, 100);
}

#[test]
fn the_most_recent_keys() {
    let it = fixture(Policy::Lru, 1, 64 << 20, pool_config());
    (0..100).for_each(|n| assert_eq!(it.put(n, 1, START), PutOutcome::Stored));
    it.get(17, START);
    assert_eq!(it.tier.recent(it.pool, 3), [key(17), key(99), key(98)]);
}

#[test]
fn records_of_all_sizes_change_in_place() {
    let it = whole(256 << 20);
    let mut random = random(3);
    let tier = &it.tier;
    let pool = tier.register(Arc::new(schema()), pool_config()).unwrap();
    let sized = |n: u64, version: u64, len: usize| -> Record {
        let mut record = Product { version, ..Product::unique(n) }.record();
        record.values.0[7] = Value::Json(Json::from_value(&serde_json::json!("x".repeat(len))));
        record
    };
    let mut lens = vec![0; 300];
    for version in 1..20 {
        for n in 0..300 {
            lens[n as usize] = 1 << random.random_range(0..15);
            let record = sized(n, version, lens[n as usize]);
            assert_eq!(
                tier.put(pool, &key(n), &Lookup::Found(record), fresh(START), START),
                PutOutcome::Stored
            );
        }
        for n in 0..300 {
            let Some(Hit { cached: Cached::Present(entry), .. }) = tier.get(pool, &key(n), START) else {
                panic!("product {n} is there")
            };
            assert_eq!(decode(&schema(), &entry.to_body()).unwrap(), sized(n, version, lens[n as usize]));
        }
    }
    assert_eq!(tier.bytes(), tier.count_bytes());
}

#[test]
fn measured_roles_begin_to_share_and_old_entries_are_served_on() {
    let it = whole(256 << 20);
    let pool = it.tier.register(Arc::new(schema()), pool_config()).unwrap();
    let put = |n: u64, at| it.tier.put(pool, &key(n), &Lookup::Found(product(n, 1 + n % 7)), fresh(at), at);
    (0..5_000).for_each(|n| assert_eq!(put(n, START), PutOutcome::Stored));
    let stats = it.tier.stats(pool);
    assert!(stats.unshared > 0 && stats.shared > 4_000, "{stats:?}");
    let explained = it.tier.explain(pool).unwrap();
    assert!(explained.bytes_per_entity < explained.bytes_per_entity_unshared, "{explained:?}");
    let all_served = || {
        for n in 0..5_000 {
            let Some(Hit { cached: Cached::Present(entry), .. }) = it.tier.get(pool, &key(n), START) else {
                panic!("product {n} is there")
            };
            assert_eq!(decode(&schema(), &entry.to_body()).unwrap(), product(n, 1 + n % 7));
        }
    };
    all_served();
    (0..5_000).for_each(|n| assert_eq!(put(n, START + 1), PutOutcome::Stored));
    all_served();
    let stats = it.tier.stats(pool);
    assert_eq!((stats.shared, stats.distinct), (5_000, 100), "{:?}", it.tier.explain(pool));
}
