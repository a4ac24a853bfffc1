//! Everything at once: readers, writers, late and repeated events, evictions, a shared tier that fails and
//! forgets.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use engine::tiered::{
    TierConfig, TierPlace,
    WriteStrategy::{self, CacheAside, WriteThrough},
};
use futures::future::join_all;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::support::{Flaky, Replica, Store, key, tier};
use engine::{clock::Clock, tiered::Loader};
use model::key::{Key, Version};

const KEYS: usize = 100;
/// Clients, each on a thread of its own.
const TASKS: u64 = 64;
/// How long each strategy is tried; `SOAK` is the same in seconds for a longer run.
const LASTS: Duration = Duration::from_secs(3);

struct World {
    store: Arc<Store>,
    replicas: [Arc<Replica>; 2],
    shared: Arc<Flaky>,
    clock: Clock,
    done: AtomicBool,
    /// The newest version that each replica was told of, by key.
    told: [Mutex<HashMap<Key, u64>>; 2],
    reads: AtomicUsize,
    writes: AtomicUsize,
}

async fn pause(rng: &mut StdRng) {
    match rng.random_range(0..10) {
        0..4 => {}
        4..8 => tokio::task::yield_now().await,
        _ => tokio::time::sleep(Duration::from_micros(rng.random_range(100..2_000))).await,
    }
}

/// Waits before and after the store's answer is taken, at random.
fn slow(store: &Arc<Store>, seed: u64) -> Loader {
    let (load, count) = (store.loader(), Arc::new(AtomicU64::new(seed)));
    Arc::new(move |keys| {
        let (load, mut rng) = (load.clone(), StdRng::seed_from_u64(count.fetch_add(1, SeqCst)));
        Box::pin(async move {
            pause(&mut rng).await;
            let answer = load(keys).await;
            pause(&mut rng).await;
            answer
        })
    })
}

fn world(seed: u64, memory: WriteStrategy, write: WriteStrategy) -> Arc<World> {
    let (store, clock) = (Arc::<Store>::default(), Clock::system());
    let shared = Flaky::new(&clock);
    let place = TierPlace::Shared { key_prefix: String::new() };
    let settings = TierConfig { place, ttl: Duration::from_secs(600), ..tier("shared", write) };
    let hot = TierConfig {
        ttl: Duration::from_millis(20),
        jitter_percent: 50,
        negative_ttl: Duration::from_millis(5),
        stale_while_revalidate: Duration::from_millis(10),
        ..tier("hot", memory)
    };
    let replica = || {
        let replica = Replica::new(&store, &clock, &hot, Some((&settings, &shared)));
        Arc::new(Replica { load: slow(&store, seed), ..replica })
    };
    let replicas = [replica(), replica()];
    let (done, reads, writes) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    Arc::new(World { store, replicas, shared, clock, done, told: Default::default(), reads, writes })
}

/// Half reads, half writes on one replica; no read of a key may be older than what this task has seen or
/// written, nor than what an event told the replica before: without faults of the feed, that is the bound of
/// staleness.
async fn client(world: Arc<World>, number: u64, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ (number << 32));
    let mine = (number % 2) as usize;
    let mut seen: HashMap<Key, u64> = HashMap::new();
    while !world.done.load(SeqCst) {
        let key = key(&format!("k{}", rng.random_range(0..KEYS)));
        let last = seen.get(&key).copied().unwrap_or(0);
        let now = if rng.random_bool(0.5) {
            world.writes.fetch_add(1, SeqCst);
            let (version, state) = world.store.next(&key);
            pause(&mut rng).await;
            world.replicas[mine].tiered.after_commit(&key, &state).await;
            notify(&world, &key, version, &mut rng);
            version
        } else {
            world.reads.fetch_add(1, SeqCst);
            let at_least = if rng.random_bool(0.3) { last } else { 0 };
            let told = world.told[mine].lock().get(&key).copied().unwrap_or(0);
            let served = world.replicas[mine].read(&key, at_least).await.unwrap();
            let version = served.cached.version().0;
            assert!(
                version >= told,
                "seed {seed}: {key} is stale: {version} was served after the event of {told}"
            );
            version
        };
        assert!(now >= last, "seed {seed}: {key} went back from {last} to {now}");
        seen.insert(key, now);
        pause(&mut rng).await;
    }
}

/// The events of a write: late, out of order, some twice, to both replicas.
fn notify(world: &Arc<World>, key: &Key, version: u64, rng: &mut StdRng) {
    for number in 0..2 {
        for _ in 0..rng.random_range(1..3) {
            let (world, key, late_us) = (world.clone(), key.clone(), rng.random_range(0..5_000));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_micros(late_us)).await;
                world.replicas[number].tiered.invalidate(&key, Version(version));
                let mut told = world.told[number].lock();
                let newest = told.entry(key).or_default();
                *newest = version.max(*newest);
            });
        }
    }
}

/// Evicts, flushes, fails and breaks the feed, at random.
async fn trouble(world: Arc<World>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(!seed);
    while !world.done.load(SeqCst) {
        let replica = &world.replicas[rng.random_range(0..2)];
        match rng.random_range(0..10) {
            0..5 => replica.evict(&world.clock),
            5..7 => world.shared.flush(),
            7..9 => {
                let failing = world.shared.failing.load(SeqCst);
                world.shared.failing.store(!failing, SeqCst);
            }
            _ => replica.tiered.invalidate_all(),
        }
        tokio::time::sleep(Duration::from_micros(rng.random_range(100..20_000))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 64)]
async fn no_reader_ever_sees_a_version_go_back() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let soak = std::env::var("SOAK").ok().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let lasts = soak.unwrap_or(LASTS);
    for (memory, shared) in
        [(CacheAside, CacheAside), (WriteThrough, WriteThrough), (CacheAside, WriteThrough)]
    {
        let world = world(seed, memory, shared);
        let clients = (0..TASKS).map(|number| tokio::spawn(client(world.clone(), number, seed)));
        let clients: Vec<_> = clients.chain([tokio::spawn(trouble(world.clone(), seed))]).collect();
        let begin = Instant::now();
        while begin.elapsed() < lasts && !clients.iter().any(|client| client.is_finished()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.done.store(true, SeqCst);
        for outcome in join_all(clients).await {
            outcome.unwrap_or_else(|error| panic!("SEED={seed}: {error}"));
        }
        let (reads, writes) = (world.reads.load(SeqCst), world.writes.load(SeqCst));
        println!("seed {seed}: {reads} reads, {writes} writes, {} loads", world.store.loads());
        assert!(reads > 1_000 && writes > 1_000, "too little happened to say anything");
    }
}
