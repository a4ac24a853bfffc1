//! Interleavings of loads, writes and readers, one step after the other.

use std::sync::Arc;

use engine::tiered::WriteStrategy::{CacheAside, WriteThrough};

use testing::until;

use super::support::{Replica, Store, found, key, tier};
use engine::{
    clock::Clock,
    tiered::{Loader, ReadError},
};
use model::{
    key::Version,
    record::{Lookup, Oddity, Unreadable},
    schema::FieldRef,
};

fn replica(store: &Arc<Store>) -> Arc<Replica> {
    Arc::new(Replica::new(store, &Clock::system(), &tier("hot", CacheAside), None))
}

fn read(replica: &Arc<Replica>, at_least: u64) -> tokio::task::JoinHandle<Result<u64, ReadError>> {
    let replica = replica.clone();
    tokio::spawn(async move { Ok(replica.read(&key("k"), at_least).await?.cached.version().0) })
}

#[tokio::test]
async fn a_load_overtaken_by_a_write_leaves_nothing_behind() {
    for strategy in [CacheAside, WriteThrough] {
        let store = Store::with(&key("k"), 1);
        let replica = Arc::new(Replica::new(&store, &Clock::system(), &tier("hot", strategy), None));
        let gate = store.hold();
        let early = read(&replica, 0);
        gate.reached().await;
        replica.tiered.after_commit(&key("k"), &store.put(&key("k"), 2)).await;
        gate.let_one_go();
        assert_eq!(early.await.unwrap().unwrap(), 1, "it came before the write");
        store.pass();
        assert_eq!(replica.version(&key("k")).await, 2);
        assert_eq!(replica.tiered.stats().superseded, 1);
    }
}

#[tokio::test]
async fn a_reader_after_the_fence_does_not_wait_for_the_old_load() {
    let store = Store::with(&key("k"), 1);
    let replica = replica(&store);
    let gate = store.hold();
    let early = read(&replica, 0);
    gate.reached().await;
    store.put(&key("k"), 2);
    replica.tiered.invalidate(&key("k"), Version(2));
    store.pass();
    assert_eq!(replica.version(&key("k")).await, 2);
    gate.let_one_go();
    assert_eq!(early.await.unwrap().unwrap(), 1);
    assert_eq!(replica.version(&key("k")).await, 2);
    assert_eq!(store.loads(), 2);
}

#[tokio::test]
async fn what_an_overtaken_load_gave_out_is_not_gone_back_from() {
    let store = Store::with(&key("k"), 2);
    let replica = Arc::new(Replica::new(&store, &Clock::system(), &tier("hot", WriteThrough), None));
    let gate = store.hold();
    let early = read(&replica, 0);
    gate.reached().await;
    // the notice of version 1 comes late: it supersedes a load that has version 2 in hand
    replica.tiered.after_commit(&key("k"), &found(&key("k"), 1)).await;
    gate.let_one_go();
    assert_eq!(early.await.unwrap().unwrap(), 2);
    store.pass();
    assert_eq!(replica.version(&key("k")).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_misses_are_one_load() {
    let store = Store::with(&key("k"), 1);
    let replica = replica(&store);
    let gate = store.hold();
    let readers: Vec<_> = (0..1_000).map(|_| read(&replica, 0)).collect();
    gate.reached().await;
    until("all others wait", async || replica.tiered.stats().coalesced == 999).await;
    gate.let_one_go();
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap(), 1);
    }
    assert_eq!(store.loads(), 1);
}

#[tokio::test]
async fn a_leader_that_goes_away_leaves_the_load_to_the_others() {
    let store = Store::with(&key("k"), 1);
    let replica = replica(&store);
    let gate = store.hold();
    let leader = read(&replica, 0);
    gate.reached().await;
    let other = read(&replica, 0);
    until("the other waits", async || replica.tiered.stats().coalesced == 1).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    gate.let_one_go();
    assert_eq!(other.await.unwrap().unwrap(), 1);
    assert_eq!(store.loads(), 1);
}

#[tokio::test]
async fn a_load_that_panics_fails_its_readers_and_nobody_else() {
    let store = Store::with(&key("k"), 1);
    let replica = replica(&store);
    let panics: Loader = Arc::new(|_| Box::pin(async { panic!("on purpose") }));
    let outcome = replica.tiered.get_or_load(&key("k"), Version(0), &panics).await;
    assert!(matches!(outcome, Err(ReadError::Lost)), "{outcome:?}");
    assert_eq!(replica.version(&key("k")).await, 1);
}

#[tokio::test]
async fn a_read_waits_for_its_version_then_says_so() {
    let store = Store::with(&key("k"), 1);
    let replica = replica(&store);
    assert_eq!(replica.version(&key("k")).await, 1);
    let refused = replica.read(&key("k"), 2).await;
    assert!(
        matches!(refused, Err(ReadError::NotYet { required: Version(2), found: Version(1) })),
        "{refused:?}"
    );
    assert_eq!(replica.version(&key("k")).await, 1, "others are served as before");
    // a load that is under way for a reader who is content with less
    let replica = self::replica(&store);
    let gate = store.hold();
    let modest = read(&replica, 0);
    gate.reached().await;
    let demanding = read(&replica, 2);
    until("it joins", async || replica.tiered.stats().coalesced == 1).await;
    store.put(&key("k"), 2);
    store.pass();
    gate.let_one_go();
    assert_eq!(modest.await.unwrap().unwrap(), 1);
    assert_eq!(demanding.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_store_that_lags_behind_a_commit_is_not_believed() {
    let store = Store::with(&key("k"), 1);
    let replica = replica(&store);
    replica.tiered.invalidate(&key("k"), Version(2));
    let refused = replica.read(&key("k"), 0).await;
    assert!(
        matches!(refused, Err(ReadError::NotYet { required: Version(2), found: Version(1) })),
        "{refused:?}"
    );
    store.put(&key("k"), 2);
    assert_eq!(replica.version(&key("k")).await, 2);
}

#[tokio::test]
async fn after_a_gap_nothing_from_before_is_served() {
    let store = Store::with(&key("k"), 1);
    let replica = replica(&store);
    assert_eq!(replica.version(&key("k")).await, 1);
    store.put(&key("k"), 2);
    let gate = store.hold();
    let early = {
        let replica = replica.clone();
        tokio::spawn(async move { replica.version(&key("other")).await })
    };
    gate.reached().await;
    replica.tiered.invalidate_all();
    store.put(&key("other"), 1);
    gate.let_one_go();
    assert_eq!(early.await.unwrap(), 0);
    store.pass();
    assert_eq!(replica.version(&key("k")).await, 2);
    assert_eq!(replica.version(&key("other")).await, 1, "a load from before the gap filled the tier");
}

#[tokio::test]
async fn many_keys_take_one_load_and_keep_their_order() {
    let store = Store::with(&key("a"), 1);
    store.put(&key("b"), 2);
    store.set(&key("c"), Lookup::Deleted(Version(3)));
    let replica = replica(&store);
    assert_eq!(replica.version(&key("b")).await, 2);
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let load: Loader = {
        let (calls, inner) = (calls.clone(), replica.load.clone());
        Arc::new(move |keys| {
            calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            inner(keys)
        })
    };
    let keys = ["c", "a", "b", "none", "a"].map(key);
    for round in 0..2 {
        let answers = replica.tiered.get_many(&keys, &load).await;
        let versions: Vec<u64> =
            answers.into_iter().map(|answer| answer.unwrap().cached.version().0).collect();
        assert_eq!(versions, [3, 1, 2, 0, 1], "round {round}");
    }
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(store.loads(), 4, "b was in memory, a was asked for once");
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_by_no_tier_and_fails_alone() {
    let store = Store::with(&key("a"), 1);
    let Lookup::Found(rest) = found(&key("odd"), 3) else { panic!() };
    let oddity =
        Oddity { at: FieldRef::Field(0), field: "name".to_owned(), kind: "BLOB".to_owned(), length: 2 };
    store.set(&key("odd"), Lookup::Unreadable(Box::new(Unreadable { rest, oddities: vec![oddity] })));
    let replica = replica(&store);
    for round in 1..=2 {
        let answers = replica.tiered.get_many(&["a", "odd", "none"].map(key), &replica.load).await;
        let [Ok(a), Err(ReadError::Unreadable(odd)), Ok(none)] = answers.as_slice() else {
            panic!("{answers:?}")
        };
        assert_eq!((a.cached.version().0, none.cached.version().0), (1, 0));
        assert_eq!(odd.first().field, "name");
        assert_eq!(store.loads(), 2 + round, "only what cannot be read is asked for again");
    }
    store.put(&key("odd"), 4);
    assert_eq!(replica.version(&key("odd")).await, 4, "mended by whoever, it is read at once");
}
