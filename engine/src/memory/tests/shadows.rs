//! What the shadows say that other policies would do is near what these do.

use super::{
    super::*,
    models::model,
    policies::{CAPACITY, requests},
    support::*,
};

/// A sample of one in eight of 2,000 keys is a rough one.
const TOLERANCE: f64 = 0.03;

fn tier(policy: Policy, capacity: usize) -> Fixture {
    let long = Lifetime { ttl_ms: 1_000_000_000, ..pool_config().lifetime };
    fixture(policy, 2, 64 << 20, PoolConfig { capacity: capacity as u64, lifetime: long, ..pool_config() })
}

/// Reads all, putting in what is missing. Gives the part of hits in the second half.
fn read_through(it: &Fixture, requests: &[u64]) -> f64 {
    let found = Lookup::Found(product(1, 1));
    let mut hits = 0;
    for (at, n) in requests.iter().enumerate() {
        let (key, now_ms) = (key(*n), START + at as u64);
        let hit = it.tier.get(it.pool, &key, now_ms).is_some();
        hits += u32::from(hit && at >= requests.len() / 2);
        if !hit {
            it.tier.put(it.pool, &key, &found, fresh(now_ms), now_ms);
        }
    }
    f64::from(hits) / (requests.len() / 2) as f64
}

#[test]
fn each_policy_is_foreseen_from_a_tier_of_another() {
    let requests = requests(17);
    for in_use in [Policy::Fifo, Policy::S3Fifo] {
        let it = tier(in_use, CAPACITY);
        let ratio = read_through(&it, &requests);
        let forecast = it.tier.forecast(it.pool).unwrap();
        assert!(
            forecast.in_use == in_use && (forecast.hit_ratio - ratio).abs() < 0.01,
            "{ratio} {forecast:?}"
        );
        assert!(forecast.keys > 200 && forecast.one_in == 8, "{forecast:?}");
        for estimate in &forecast.policies {
            let mut model = model(estimate.policy, CAPACITY);
            let hits =
                requests.iter().enumerate().filter(|(at, key)| model.ask(**key) && *at >= requests.len() / 2);
            let expected = hits.count() as f64 / (requests.len() / 2) as f64;
            println!(
                "{:?} in a tier of {in_use:?}: {:.4}, model {expected:.4}",
                estimate.policy, estimate.hit_ratio
            );
            assert!((estimate.hit_ratio - expected).abs() < TOLERANCE, "{expected} {estimate:?}");
        }
        assert_eq!(it.tier.bytes(), it.tier.count_bytes());
    }
}

#[test]
fn a_scan_shows_that_another_policy_would_do_better() {
    // Every second read is of a key that never comes again; the others go round 1,500 keys: recency is of no
    // use.
    let requests: Vec<u64> =
        (0..200_000u64).map(|n| if n % 2 == 0 { n / 2 % 1_500 } else { 1_000_000 + n }).collect();
    let it = tier(Policy::Lru, 2_000);
    read_through(&it, &requests);
    let forecast = it.tier.forecast(it.pool).unwrap();
    let of = |policy| forecast.policies.iter().find(|estimate| estimate.policy == policy).unwrap().hit_ratio;
    assert!(of(Policy::S3Fifo) > 0.4 && of(Policy::Lru) < 0.1, "{forecast:?}");
}

#[test]
fn there_is_no_forecast_without_pressure_nor_right_after_a_clear() {
    let it = tier(Policy::Lru, 1_000);
    (0..1_000).for_each(|n| assert_eq!(it.put(n, 1, START), PutOutcome::Stored));
    (0..1_000).for_each(|n| assert!(it.get(n, START).is_some()));
    assert_eq!(it.tier.forecast(it.pool), None, "every policy would have had every hit");
    (1_000..1_010).for_each(|n| assert_eq!(it.put(n, 1, START), PutOutcome::Stored));
    assert_eq!(it.tier.forecast(it.pool), None, "too little was read");
}

#[test]
fn dropped_entries_are_dropped_by_the_shadows_too_and_small_pools_sample_anew() {
    let it = tier(Policy::Sieve, CAPACITY);
    let requests = requests(5);
    read_through(&it, &requests);
    let before = it.tier.bytes();
    requests.iter().for_each(|n| it.fence(*n, 2, START + 300_000));
    assert!(it.tier.bytes() < before && it.tier.bytes() == it.tier.count_bytes());
    it.tier.configure(it.pool, PoolConfig { capacity: 100, ..pool_config() });
    read_through(&it, &requests);
    assert_eq!(it.tier.bytes(), it.tier.count_bytes());
    it.tier.clear(it.pool, START + 600_000);
    assert_eq!(it.tier.bytes(), it.tier.count_bytes());
}
