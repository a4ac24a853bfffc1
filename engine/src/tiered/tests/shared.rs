//! A shared tier between two replicas: what it saves, and that it never brings an older version back,
//! whatever it loses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use engine::tiered::{
    TierConfig, TierPlace,
    WriteStrategy::{self, CacheAside, WriteThrough},
};

use testing::until;

use super::support::{Flaky, Replica, Store, found, key, tier};
use engine::clock::Clock;
use model::key::Version;

struct World {
    store: Arc<Store>,
    shared: Arc<Flaky>,
    one: Replica,
    two: Replica,
    clock: Clock,
    ms: Arc<AtomicU64>,
}

fn shared_tier(write: WriteStrategy) -> TierConfig {
    let place = TierPlace::Shared { key_prefix: "shop:".to_owned() };
    TierConfig { place, ttl: Duration::from_secs(600), ..tier("shared", write) }
}

impl World {
    fn new(settings: &TierConfig) -> Self {
        let (store, (clock, ms)) = (Store::with(&key("k"), 1), Clock::manual());
        let shared = Flaky::new(&clock);
        let replica = || Replica::new(&store, &clock, &tier("hot", CacheAside), Some((settings, &shared)));
        let (one, two) = (replica(), replica());
        Self { store, shared, one, two, clock, ms }
    }

    async fn holds(&self, version: u64) {
        until("the shared tier holds it", async || self.shared.holds("shop:things:k").await == Some(version))
            .await;
    }
}

#[tokio::test]
async fn one_replica_reads_what_the_other_loaded() {
    let world = World::new(&shared_tier(CacheAside));
    assert_eq!(world.one.version(&key("k")).await, 1);
    world.holds(1).await;
    let served = world.two.read(&key("k"), 0).await.unwrap();
    assert_eq!((&*served.tier, served.cached.version()), ("shared", Version(1)));
    assert_eq!(&*world.two.read(&key("k"), 0).await.unwrap().tier, "hot");
    assert_eq!(world.store.loads(), 1);
    let body = |served: crate::tiered::Served| match served.cached {
        crate::Cached::Present(entry) => String::from_utf8(entry.to_body()).unwrap(),
        crate::Cached::Absent(_) => String::new(),
    };
    assert_eq!(body(served), body(world.one.read(&key("k"), 0).await.unwrap()));
}

#[tokio::test]
async fn memory_does_not_live_longer_than_the_shared_entry_that_filled_it() {
    let world = World::new(&shared_tier(CacheAside));
    assert_eq!(world.one.version(&key("k")).await, 1);
    world.holds(1).await;
    world.store.put(&key("k"), 2);
    world.ms.fetch_add(590_000, SeqCst);
    assert_eq!(world.two.version(&key("k")).await, 1);
    world.ms.fetch_add(9_999, SeqCst);
    assert_eq!(world.two.version(&key("k")).await, 1);
    world.ms.fetch_add(1, SeqCst);
    assert_eq!(world.two.version(&key("k")).await, 2, "older than the longest time to live");
}

#[tokio::test]
async fn a_write_reaches_the_shared_tier_as_its_strategy_says() {
    for (strategy, held) in [(CacheAside, None), (WriteThrough, Some(2))] {
        let world = World::new(&shared_tier(strategy));
        assert_eq!(world.one.version(&key("k")).await, 1);
        world.holds(1).await;
        world.one.tiered.after_commit(&key("k"), &world.store.put(&key("k"), 2)).await;
        assert_eq!(world.shared.holds("shop:things:k").await, held);
        assert_eq!(world.two.version(&key("k")).await, 2);
    }
}

#[tokio::test]
async fn a_shared_tier_that_was_not_told_is_not_believed_and_told_later() {
    let world = World::new(&shared_tier(CacheAside));
    assert_eq!(world.one.version(&key("k")).await, 1);
    world.holds(1).await;
    world.shared.failing.store(true, SeqCst);
    world.one.tiered.after_commit(&key("k"), &world.store.put(&key("k"), 2)).await;
    assert_eq!(world.one.version(&key("k")).await, 2, "a failing shared tier failed a read");
    assert_eq!(world.shared.holds("shop:things:k").await, Some(1));
    world.shared.failing.store(false, SeqCst);
    world.one.evict(&world.clock);
    assert_eq!(world.one.version(&key("k")).await, 2, "it believed a tier that was not told");
    until("the tier is told", async || world.shared.holds("shop:things:k").await != Some(1)).await;
    assert_eq!(world.two.version(&key("k")).await, 2);
    until("nothing is waiting", async || world.one.tiered.stats().tiers[1].waiting == 0).await;
}

#[tokio::test]
async fn a_late_fill_by_another_replica_after_a_flush_is_driven_out() {
    let world = World::new(&shared_tier(CacheAside));
    let gate = world.store.hold();
    let two = world.two.clone();
    let slow = tokio::spawn(async move { two.version(&key("k")).await });
    gate.reached().await;
    world.store.pass();
    world.one.tiered.after_commit(&key("k"), &world.store.put(&key("k"), 2)).await;
    assert_eq!(world.one.version(&key("k")).await, 2);
    // the fence and version 2 are lost, then the slow replica comes with version 1
    world.holds(2).await;
    world.shared.flush();
    gate.let_one_go();
    assert_eq!(slow.await.unwrap(), 1);
    world.holds(1).await;
    world.one.evict(&world.clock);
    assert_eq!(world.one.version(&key("k")).await, 2, "it went back");
    // the event reaches the slow one
    world.two.tiered.invalidate(&key("k"), Version(2));
    until("version 1 is gone", async || world.shared.holds("shop:things:k").await != Some(1)).await;
    assert_eq!(world.two.version(&key("k")).await, 2);
}

#[tokio::test]
async fn what_was_there_before_a_restart_with_older_data_is_not_believed() {
    let world = World::new(&shared_tier(CacheAside));
    assert_eq!(world.one.version(&key("k")).await, 1);
    world.holds(1).await;
    world.store.put(&key("k"), 2);
    world.shared.trusted_ms.store(world.clock.now_ms(), SeqCst);
    assert_eq!(world.two.version(&key("k")).await, 2);
    // nor after a gap in the events
    world.holds(2).await;
    world.store.put(&key("k"), 3);
    world.ms.fetch_add(2_000, SeqCst);
    world.two.tiered.invalidate_all();
    assert_eq!(world.two.version(&key("k")).await, 3);
}

#[tokio::test]
async fn a_stale_shared_entry_is_served_once_more_and_renewed_from_the_store() {
    let settings = TierConfig { stale_while_revalidate: Duration::from_secs(60), ..shared_tier(CacheAside) };
    let world = World::new(&settings);
    assert_eq!(world.one.version(&key("k")).await, 1);
    world.holds(1).await;
    world.store.put(&key("k"), 2);
    world.ms.fetch_add(600_000, SeqCst);
    let served = world.two.read(&key("k"), 0).await.unwrap();
    assert_eq!((served.cached.version(), served.stale, &*served.tier), (Version(1), true, "shared"));
    until("it is renewed", async || world.two.version(&key("k")).await == 2).await;
    world.holds(2).await;
}

#[tokio::test]
async fn a_tier_that_forgets_floors_trusts_nothing_from_before() {
    let world = World::new(&shared_tier(CacheAside));
    assert_eq!(world.one.version(&key("k")).await, 1);
    world.holds(1).await;
    world.shared.failing.store(true, SeqCst);
    world.one.tiered.invalidate(&key("k"), Version(2));
    world.store.put(&key("k"), 2);
    // far more than can be remembered
    for n in 0..150_000 {
        world.one.tiered.invalidate(&key(&format!("n{n}")), Version(1));
    }
    world.shared.failing.store(false, SeqCst);
    assert_eq!(found(&key("k"), 2), world.store.get(&key("k")));
    assert_eq!(world.one.version(&key("k")).await, 2);
}
