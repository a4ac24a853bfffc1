//! What is counted is what is there.

use std::{process::Command, sync::Arc};

use rand::Rng;

use super::{super::*, support::*};
use crate::flyweight::sample::{Product, schema};
use model::value::Value;

#[test]
fn the_parts_add_up_and_the_bound_holds() {
    for policy in [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::S3Fifo, Policy::Sieve] {
        let max_bytes = 1 << 20;
        let it = fixture(policy, 2, max_bytes, pool_config());
        let other = it.tier.register(Arc::new(schema()), pool_config()).unwrap();
        let mut random = random(11);
        for step in 0..60_000u64 {
            let (n, now_ms) = (random.random_range(0..30_000), START + step);
            match random.random_range(0..10) {
                0 => it.fence(n, 2, now_ms),
                1 | 2 => _ = it.get(n, now_ms),
                3 => {
                    let record = Product::unique(n % 3_000).record();
                    it.tier.put(other, &key(n % 3_000), &Lookup::Found(record), fresh(now_ms), now_ms);
                }
                _ => _ = it.put(n, 1 + step / 20_000, now_ms),
            }
            assert!(it.tier.bytes() <= max_bytes, "{policy:?}: {}", it.tier.bytes());
        }
        assert_eq!(it.tier.bytes(), it.tier.count_bytes(), "{policy:?}");
        assert!(it.stats().evictions > 1_000 && it.tier.stats(other).evictions > 100, "{policy:?}");
        assert!(it.tier.bytes() > max_bytes * 95 / 100, "{policy:?}: the room is used: {}", it.tier.bytes());
        it.tier.resize(max_bytes / 2);
        assert!(it.tier.bytes() <= max_bytes / 2);
        it.tier.clear(it.pool, START + 100_000);
        it.tier.clear(other, START + 100_000);
        assert_eq!(it.stats().distinct, 0);
        assert_eq!(it.tier.bytes(), it.tier.count_bytes(), "{policy:?}");
    }
}

/// Fills a tier to its bound with churn, in a process that does nothing else, and compares what it counts
/// with what is resident.
#[test]
fn the_count_is_within_5_percent_of_what_is_resident() {
    for kind in ["shared", "own"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::tests::bytes::fill_and_measure", "--ignored", "--nocapture"])
            .env("FLYWEIGHT_TEST_RECORDS", kind)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        let figure = |name: &str| -> f64 {
            let after = said.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {said}"));
            after.split_whitespace().next().unwrap().parse().unwrap()
        };
        let (counted, resident) = (figure("counted"), figure("resident"));
        println!("{kind}: counted {counted}, resident {resident}");
        assert!((counted / resident - 1.0).abs() < 0.05, "{kind}: counted {counted}, resident {resident}");
    }
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn fill_and_measure() {
    let own = std::env::var("FLYWEIGHT_TEST_RECORDS").is_ok_and(|kind| kind == "own");
    // The threads, buffers and code that a first entry needs are not the tier's.
    let warm = fixture(Policy::S3Fifo, 4, 1 << 20, pool_config());
    (0..2_000).for_each(|n| assert_eq!(warm.put(n, 1, START), PutOutcome::Stored));
    let before = resident();
    let it = fixture(Policy::S3Fifo, 0, 32 << 20, pool_config());
    let pool =
        it.tier.register(Arc::new(if own { schema() } else { intrinsic_schema() }), pool_config()).unwrap();
    let mut random = random(5);
    for n in 0..if own { 120_000 } else { 700_000u64 } {
        let mut record = if own { Product::unique(n).record() } else { product(n, 1 + n % 5) };
        record.values.0[6] = Value::Int(1 << random.random_range(0..30));
        let key = record.key.clone();
        it.tier.put(pool, &key, &Lookup::Found(record), fresh(START + n), START + n);
    }
    assert!(it.tier.stats(pool).evictions > 10_000, "the bound was not reached: {:?}", it.tier.stats(pool));
    println!("counted {} resident {}", it.tier.bytes(), resident() - before);
}

/// Resident bytes that are no file's: the code that is met for the first time is not the tier's.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
