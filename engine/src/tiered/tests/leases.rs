//! One load across replicas: who has the lease loads, the others wait, and nothing depends on it.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use engine::tiered::{TierConfig, TierPlace, WriteStrategy::CacheAside};
use tokio::task::JoinHandle;

use testing::until;

use super::support::{Flaky, Replica, Store, key, tier};
use engine::clock::Clock;
use model::key::Version;

struct World {
    store: Arc<Store>,
    shared: Arc<Flaky>,
    replicas: Vec<Replica>,
}

fn world(replicas: usize) -> World {
    let (store, clock) = (Store::with(&key("k"), 1), Clock::system());
    let shared = Flaky::new(&clock);
    let place = TierPlace::Shared { key_prefix: String::new() };
    let settings = TierConfig { place, ttl: Duration::from_secs(600), ..tier("shared", CacheAside) };
    let replica = || Replica::new(&store, &clock, &tier("hot", CacheAside), Some((&settings, &shared)));
    let replicas = (0..replicas).map(|_| replica()).collect();
    World { store, shared, replicas }
}

fn read(replica: &Replica) -> JoinHandle<u64> {
    let replica = replica.clone();
    tokio::spawn(async move { replica.version(&key("k")).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_misses_on_four_replicas_are_one_load() {
    let world = world(4);
    let gate = world.store.hold();
    let readers: Vec<_> = (0..1_000).map(|n| read(&world.replicas[n % 4])).collect();
    gate.reached().await;
    let coalesced = || world.replicas.iter().map(|replica| replica.tiered.stats().coalesced).sum::<u64>();
    until("all others wait", async || coalesced() == 996).await;
    gate.let_one_go();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 1);
    }
    assert_eq!(world.store.loads(), 1);
    assert_eq!(world.replicas.iter().map(|replica| replica.tiered.stats().awaited).sum::<u64>(), 3);
}

#[tokio::test]
async fn a_lease_that_comes_after_the_load_is_no_second_load() {
    let world = world(2);
    let loads = world.store.hold();
    let first = read(&world.replicas[0]);
    loads.reached().await;
    let second = read(&world.replicas[1]);
    // The second that asks for it from here on has looked in the tier in vain and waited: the first may be
    // its first question of all.
    let leases = world.shared.hold_leases();
    leases.reached().await;
    leases.let_one_go();
    leases.reached().await;
    loads.let_one_go();
    assert_eq!(first.await.unwrap(), 1);
    until("the lease to be given back", async || world.shared.released.load(SeqCst) == 1).await;
    leases.let_one_go();
    assert_eq!(second.await.unwrap(), 1);
    assert_eq!(world.store.loads(), 1);
}

#[tokio::test]
async fn many_keys_are_shared_out() {
    let world = world(2);
    let keys: Vec<_> = (0..50).map(|n| key(&format!("k{n}"))).collect();
    keys.iter().for_each(|key| _ = world.store.put(key, 1));
    let many = world.replicas.iter().map(|replica| {
        let (replica, keys) = (replica.clone(), keys.clone());
        tokio::spawn(async move { replica.tiered.get_many(&keys, &replica.load).await })
    });
    for answers in futures::future::join_all(many.collect::<Vec<_>>()).await {
        assert!(
            answers.unwrap().iter().all(|answer| answer.as_ref().unwrap().cached.version() == Version(1))
        );
    }
    assert_eq!(world.store.loads(), 50);
}

#[tokio::test]
async fn a_shared_tier_that_fails_delays_nobody() {
    let world = world(2);
    world.shared.failing.store(true, SeqCst);
    let gate = world.store.hold();
    let readers = [read(&world.replicas[0]), read(&world.replicas[1])];
    gate.reached().await;
    gate.reached().await;
    gate.let_one_go();
    gate.let_one_go();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_replica_that_hangs_with_the_lease_is_waited_for_only_so_long() {
    let world = world(2);
    let gate = world.store.hold();
    let hanging = read(&world.replicas[0]);
    gate.reached().await;
    world.store.pass();
    let begin = Instant::now();
    assert_eq!(read(&world.replicas[1]).await.unwrap(), 1);
    let waited = begin.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    gate.let_one_go();
    assert_eq!(hanging.await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_read_most_is_told_to_later_replicas() {
    let world = world(2);
    assert!(world.replicas[1].tiered.hot().await.is_empty());
    world.replicas[0].tiered.tell_hot().await;
    assert!(world.replicas[1].tiered.hot().await.is_empty(), "nothing was read yet");
    assert_eq!(world.replicas[0].version(&key("k")).await, 1);
    world.replicas[0].tiered.tell_hot().await;
    assert_eq!(world.replicas[1].tiered.hot().await, [key("k")]);
}
