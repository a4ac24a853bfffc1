//! How long entries are served: fresh, stale while a fresh one is loaded, stale while the store fails, and
//! that there is nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use engine::tiered::{
    TierConfig,
    WriteStrategy::{CacheAside, WriteThrough},
};

use testing::until;

use super::support::{Replica, Store, key, tier};
use engine::{
    Cached,
    clock::Clock,
    memory::PoolConfig,
    tiered::{ReadError, lifetime},
};
use model::key::Version;

fn stale(while_revalidate_s: u64, if_error_s: u64) -> TierConfig {
    TierConfig {
        stale_while_revalidate: Duration::from_secs(while_revalidate_s),
        stale_if_error: Duration::from_secs(if_error_s),
        ..tier("hot", CacheAside)
    }
}

fn replica(settings: &TierConfig) -> (Arc<Store>, Replica, Arc<AtomicU64>) {
    let (store, (clock, ms)) = (Store::with(&key("k"), 1), Clock::manual());
    let replica = Replica::new(&store, &clock, settings, None);
    (store, replica, ms)
}

#[tokio::test]
async fn fresh_from_memory_until_its_time_is_over() {
    let (store, replica, ms) = replica(&tier("hot", CacheAside));
    let first = replica.read(&key("k"), 0).await.unwrap();
    assert_eq!((&*first.tier, first.age_ms, first.stale), ("store", 0, false));
    store.put(&key("k"), 2);
    ms.fetch_add(59_999, SeqCst);
    let second = replica.read(&key("k"), 0).await.unwrap();
    assert_eq!((&*second.tier, second.age_ms, second.stale), ("hot", 59_999, false));
    assert_eq!(second.cached.version(), Version(1));
    ms.fetch_add(1, SeqCst);
    assert_eq!(replica.version(&key("k")).await, 2);
}

#[tokio::test]
async fn stale_while_one_fresh_load_is_under_way() {
    let (store, replica, ms) = replica(&stale(10, 0));
    assert_eq!(replica.version(&key("k")).await, 1);
    store.put(&key("k"), 2);
    ms.fetch_add(60_001, SeqCst);
    let gate = store.hold();
    for _ in 0..10 {
        let served = replica.read(&key("k"), 0).await.unwrap();
        assert_eq!((served.cached.version(), served.stale), (Version(1), true));
    }
    gate.reached().await;
    gate.let_one_go();
    until("the fresh one is there", async || replica.version(&key("k")).await == 2).await;
    assert!(!replica.read(&key("k"), 0).await.unwrap().stale);
    assert_eq!(store.loads(), 2);
    ms.fetch_add(70_001, SeqCst);
    store.pass();
    assert!(!replica.read(&key("k"), 0).await.unwrap().stale, "served beyond the stale time");
}

#[tokio::test]
async fn stale_and_marked_while_the_store_fails() {
    let (store, replica, ms) = replica(&stale(0, 30));
    assert_eq!(replica.version(&key("k")).await, 1);
    ms.fetch_add(60_001, SeqCst);
    store.failing.store(true, SeqCst);
    let served = replica.read(&key("k"), 0).await.unwrap();
    assert_eq!((served.cached.version(), served.stale, &*served.tier), (Version(1), true, "hot"));
    let newer = replica.read(&key("k"), 2).await;
    assert!(matches!(newer, Err(ReadError::Load(_))), "an older version than asked for: {newer:?}");
    ms.fetch_add(30_000, SeqCst);
    let late = replica.read(&key("k"), 0).await;
    assert!(matches!(late, Err(ReadError::Load(_))), "{late:?}");
    store.failing.store(false, SeqCst);
    assert!(!replica.read(&key("k"), 0).await.unwrap().stale);
    assert_eq!(replica.tiered.stats().tiers[0].stale_served, 1);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_waited_for_when_there_is_a_stale_entry() {
    let (store, replica, ms) = replica(&stale(0, 30));
    assert_eq!(replica.version(&key("k")).await, 1);
    store.put(&key("k"), 2);
    ms.fetch_add(60_001, SeqCst);
    let gate = store.hold();
    let served = replica.read(&key("k"), 0).await.unwrap();
    assert_eq!((served.cached.version(), served.stale), (Version(1), true));
    gate.let_one_go();
    store.pass();
    until("the late answer counts", async || replica.version(&key("k")).await == 2).await;
}

#[tokio::test]
async fn that_there_is_nothing_is_remembered_for_a_while() {
    let (store, replica, ms) = replica(&stale(10, 10));
    for _ in 0..3 {
        let served = replica.read(&key("none"), 0).await.unwrap();
        assert_eq!((served.cached, served.stale), (Cached::Absent(Version(0)), false));
    }
    assert_eq!(store.loads(), 1);
    ms.fetch_add(2_000, SeqCst);
    assert!(!replica.read(&key("none"), 0).await.unwrap().stale, "absence is never served as stale");
    assert_eq!(store.loads(), 2);
    let created = store.put(&key("none"), 1);
    replica.tiered.after_commit(&key("none"), &created).await;
    assert_eq!(replica.version(&key("none")).await, 1);
}

#[tokio::test]
async fn a_write_through_tier_needs_no_load_after_a_write() {
    let (store, replica, _ms) = replica(&tier("hot", WriteThrough));
    assert_eq!(replica.version(&key("k")).await, 1);
    let (version, state) = store.next(&key("k"));
    replica.tiered.after_commit(&key("k"), &state).await;
    let served = replica.read(&key("k"), version).await.unwrap();
    assert_eq!((&*served.tier, served.cached.version().0), ("hot", version));
    assert_eq!(store.loads(), 1);
}

#[tokio::test]
async fn settings_change_while_running_but_not_the_tiers() {
    let (store, replica, ms) = replica(&stale(0, 0));
    assert_eq!(replica.version(&key("k")).await, 1);
    let longer = stale(100, 0);
    let pool = PoolConfig { capacity: 10, idle_after_ms: 1 << 40, lifetime: lifetime(&longer) };
    replica.memory.configure(replica.pool, pool);
    replica.tiered.apply(std::slice::from_ref(&longer)).unwrap();
    ms.fetch_add(60_001, SeqCst);
    assert!(replica.read(&key("k"), 0).await.unwrap().stale);
    assert!(replica.tiered.apply(&[]).is_err());
    assert!(replica.tiered.apply(&[tier("other", CacheAside)]).is_err());
    until("the refresh ends", async || store.loads() == 2).await;
}
