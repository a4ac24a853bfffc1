//! The Redis tier against real servers: versions, lost data, restarts, silence, clusters and TLS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine::tiered::{
    TierConfig, TierPlace,
    WriteStrategy::{CacheAside, WriteThrough},
};
use model::passage::Plaintext;

use self::{
    server::{Server, redis_program, tls_files},
    support::{Replica, Store, key, tier},
};
use super::{RedisCache, RedisConfig, rate::Bucket};
use testing::until;

use crate::owned::OwnedCache;
use engine::{
    clock::Clock,
    shared::{Order, SharedCache, SharedError},
};
use model::{breaker::BreakerState, key::Version, passage::Passage, value::Timestamp};
use runtime::owner::{self, Owner};

mod owners;
mod server;
#[path = "../../engine/src/tiered/tests/support.rs"]
mod support;

fn order(key: &str, version: u64, value: Option<&str>) -> Order {
    let value = value.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    Order { key: key.to_owned(), version: Version(version), loaded_at_ms: 7, value, keep_ms: 60_000 }
}

fn cache(config: RedisConfig) -> Arc<RedisCache> {
    Arc::new(RedisCache::new(config, Clock::system()).unwrap())
}

async fn value(cache: &RedisCache, key: &str) -> Option<(u64, String)> {
    let held = cache.get_many(&[key.to_owned()]).await.unwrap().remove(0)?;
    Some((held.version.0, String::from_utf8(held.value.to_vec()).unwrap()))
}

/// Tells until it is taken: a loaded machine may take longer than the deadline.
async fn tell(cache: &RedisCache, orders: &[Order]) {
    until("the orders are taken", async || cache.tell(orders).await.iter().all(Result::is_ok)).await;
}

/// What is promised of versions, and what a server that forgot scripts and data does to it.
async fn keeps_versions(cache: &RedisCache, raw: impl AsyncFn(&[&str])) {
    tell(cache, &[order("k", 2, Some("two:2"))]).await;
    tell(cache, &[order("k", 1, Some("one"))]).await;
    assert_eq!(value(cache, "k").await, Some((2, "two:2".to_owned())));
    tell(cache, &[order("k", 2, None)]).await;
    assert_eq!(value(cache, "k").await, Some((2, "two:2".to_owned())), "a fence took away its own version");
    raw(&["SCRIPT", "FLUSH"]).await;
    tell(cache, &[order("k", 3, None)]).await;
    tell(cache, &[order("k", 2, Some("two"))]).await;
    assert_eq!(value(cache, "k").await, None);
    tell(cache, &[order("k", 3, Some("three"))]).await;
    assert_eq!(value(cache, "k").await, Some((3, "three".to_owned())));
    tell(cache, &[order("once", 1, Some("token"))]).await;
    let taken = futures::future::join_all((0..8).map(|_| cache.take("once"))).await;
    let taken: Vec<_> = taken.into_iter().filter_map(Result::unwrap).map(|held| held.value).collect();
    assert_eq!(taken, ["token"], "one of eight who asked at once");
    assert_eq!(cache.take("once").await.unwrap(), None);
    let micros = 1_790_000_000_000_000;
    tell(cache, &[order("m", micros + 1, Some("later")), order("n", micros, Some("n"))]).await;
    tell(cache, &[order("m", micros, Some("earlier"))]).await;
    assert_eq!(value(cache, "m").await, Some((micros + 1, "later".to_owned())));
    raw(&["FLUSHALL"]).await;
    assert_eq!(value(cache, "k").await, None);
    let many: Vec<Order> = (0..1_000).map(|n| order(&format!("many{n}"), n + 1, Some("x"))).collect();
    for orders in many.chunks(250) {
        tell(cache, orders).await;
    }
    let keys: Vec<String> = (0..1_001).map(|n| format!("many{n}")).collect();
    let held = cache.get_many(&keys).await.unwrap();
    assert!(held[..1_000].iter().zip(1..).all(|(held, n)| held.as_ref().unwrap().version.0 == n));
    assert_eq!(held[1_000], None);
}

#[tokio::test]
async fn versions_never_go_back_in_one_server() {
    let Some(program) = redis_program() else { return };
    let server = Server::start(&program, &["--requirepass", "se:cret"]).await;
    let url = format!("redis://:se%3Acret@127.0.0.1:{}/0", server.port);
    let deadline = Duration::from_secs(2);
    let cache = cache(RedisConfig { deadline, ..RedisConfig::new(&url) });
    let admin = ::redis::Client::open(url).unwrap();
    keeps_versions(&cache, async |command| run(&admin, command).await).await;
    let wrong = RedisConfig { deadline, ..RedisConfig::new(format!("redis://127.0.0.1:{}", server.port)) };
    let refused = self::cache(wrong).ping().await;
    assert!(matches!(refused, Err(SharedError::Failed(_))), "{refused:?}");
}

#[tokio::test]
async fn a_bucket_is_one_for_all_who_take_from_it() {
    let Some(program) = redis_program() else { return };
    let server = Server::start(&program, &[]).await;
    let deadline = Duration::from_secs(2);
    let caches = [(); 3].map(|()| cache(RedisConfig { deadline, ..RedisConfig::new(server.url()) }));
    // one token in 1,000 s: none comes while this runs
    let bucket = Bucket { per_second: 1, burst: 1_000 };
    let takes = (0..90).map(|n| caches[n % 3].take_tokens("rate:ann", bucket, 20));
    let taken = futures::future::join_all(takes).await.into_iter().map(|taken| taken.unwrap());
    let (taken, waits): (Vec<u32>, Vec<u64>) = taken.map(|(granted, _, wait_ms)| (granted, wait_ms)).unzip();
    // a second or two may pass
    let all: u32 = taken.iter().sum();
    assert!((1_000..1_010).contains(&all), "{all} tokens");
    assert!(waits.iter().all(|wait_ms| *wait_ms <= 1_000) && waits.contains(&0));
    let (granted, left, wait_ms) = caches[0].take_tokens("rate:bob", bucket, 20).await.unwrap();
    assert_eq!((granted, left, wait_ms), (20, 980, 0));
}

async fn run(client: &::redis::Client, command: &[&str]) {
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut built = ::redis::cmd(command[0]);
    built.arg(&command[1..]);
    built.query_async::<::redis::Value>(&mut connection).await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_found_out_and_used() {
    let Some(program) = redis_program() else { return };
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(
            Server::start(&program, &["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]).await,
        );
    }
    let admins: Vec<_> = nodes.iter().map(|node| ::redis::Client::open(node.url()).unwrap()).collect();
    for (admin, slots) in admins.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
        run(admin, &["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]).await;
        let [port, bus_port] = [nodes[0].port, nodes[0].bus_port].map(|port| port.to_string());
        run(admin, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).await;
    }
    let cache = cache(RedisConfig { deadline: Duration::from_secs(2), ..RedisConfig::new(nodes[1].url()) });
    until("the cluster is whole", async || {
        let told = cache.tell(&[order("a", 1, None), order("b", 1, None), order("c", 1, None)]).await;
        told.iter().all(Result::is_ok) && all_agree(&admins).await
    })
    .await;
    keeps_versions(&cache, async |command| {
        for admin in &admins {
            run(admin, command).await;
        }
    })
    .await;
    // calls before the cluster was whole may have failed, which costs trust as well
    let before = cache.trusted_since_ms();
    nodes[2].kill();
    nodes[2].again().await;
    until("the restart is noticed", async || cache.trusted_since_ms() > before).await;
}

async fn all_agree(admins: &[::redis::Client]) -> bool {
    for admin in admins {
        let Ok(mut connection) = admin.get_multiplexed_async_connection().await else { return false };
        let info: String =
            ::redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await.unwrap_or_default();
        if !(info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn tls_is_spoken_to_a_server_that_is_known() {
    let Some(program) = redis_program() else { return };
    let Some(files) = tls_files() else { return };
    let [ca, certificate, key] =
        [&files.ca, &files.certificate, &files.key].map(|path| path.to_str().unwrap());
    let tls = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca];
    let server = Server::start_tls(&program, &tls).await;
    let ca_pem = Some(std::fs::read(ca).unwrap());
    let pem = |path: &str| std::fs::read(path).unwrap();
    let client_pem = Some((pem(certificate), pem(key)));
    let deadline = Duration::from_secs(2);
    let url = format!("rediss://localhost:{}", server.port);
    let known =
        cache(RedisConfig { ca_pem, client_pem: client_pem.clone(), deadline, ..RedisConfig::new(&url) });
    until("it answers", async || known.ping().await.is_ok()).await;
    tell(&known, &[order("k", 1, Some("sealed on the way"))]).await;
    assert_eq!(value(&known, "k").await, Some((1, "sealed on the way".to_owned())));
    let stranger = cache(RedisConfig { client_pem: client_pem.clone(), deadline, ..RedisConfig::new(&url) });
    assert!(stranger.ping().await.is_err(), "a server signed by nobody known was believed");

    // an address without TLS, and a Secret that trusts nobody who signed: the authorities of the system win
    // over both
    let passage = Passage::new("main", Plaintext::Refused).trusting(&pem(ca));
    let ca_pem = Some(pem(certificate));
    let plain = format!("redis://localhost:{}", server.port);
    let by = |url: &str| RedisConfig {
        ca_pem: ca_pem.clone(),
        client_pem: client_pem.clone(),
        deadline,
        passage: passage.clone(),
        ..RedisConfig::new(url)
    };
    let by_system = cache(by(&plain));
    until("it answers over TLS", async || by_system.ping().await.is_ok()).await;
    let by_address = cache(by(&plain.replace("localhost", "127.0.0.1")));
    assert!(by_address.ping().await.is_err(), "a name that is not in the certificate was believed");
}

#[test]
fn a_password_for_another_host_is_refused_before_anything_is_sent() {
    let of = |url: &str, plaintext| {
        let passage = Passage::new("main", plaintext);
        RedisCache::new(RedisConfig { passage, ..RedisConfig::new(url) }, Clock::system()).err()
    };
    let away = "redis://localhost:1,redis://:hunter2@redis:6379";
    let told = of(away, Plaintext::Refused).unwrap();
    assert!(told.contains("backend main") && !told.contains("hunter2"), "{told}");
    assert!(of(away, Plaintext::ProofOnly).is_some());
    assert_eq!(of(away, Plaintext::Warned), None);
    for safe in [
        "redis://:hunter2@localhost:6379",
        "rediss://:hunter2@redis:6379",
        "redis://redis:6379",
        "unix:///run/r?pass=hunter2",
    ] {
        assert_eq!(of(safe, Plaintext::Refused), None, "{safe}");
    }
}

#[tokio::test]
async fn data_from_before_a_restart_is_not_trusted() {
    let Some(program) = redis_program() else { return };
    let mut server = Server::start(&program, &["--appendonly", "yes", "--appendfsync", "always"]).await;
    let cache = cache(RedisConfig { deadline: Duration::from_secs(2), ..RedisConfig::new(server.url()) });
    tell(&cache, &[order("k", 1, Some("one"))]).await;
    assert_eq!(cache.trusted_since_ms(), 0);
    server.kill();
    server.again().await;
    until("it is back", async || cache.ping().await.is_ok()).await;
    assert_eq!(value(&cache, "k").await, Some((1, "one".to_owned())), "the file was not read");
    assert!(cache.trusted_since_ms() > 0);
}

/// Times in Redis are its own: what replicas with other clocks take out of it is by their own clocks again.
/// What a run of Redis before brings back has no time.
#[tokio::test]
async fn replicas_whose_clocks_differ_agree_on_ages_and_on_what_a_run_before_took() {
    let Some(program) = redis_program() else { return };
    let mut server = Server::start(&program, &["--appendonly", "yes", "--appendfsync", "always"]).await;
    let url = server.url();
    let replica = |behind_ms: i64| {
        let (clock, ms) = Clock::manual();
        ms.store(Timestamp::now().0.saturating_sub(behind_ms) as u64, SeqCst);
        let config = RedisConfig { deadline: Duration::from_secs(2), ..RedisConfig::new(&url) };
        (Arc::new(RedisCache::new(config, clock.clone()).unwrap()), clock)
    };
    let ((one, clock), (behind, clock_behind), (ahead, clock_ahead)) =
        (replica(0), replica(60_000), replica(-8 * 24 * 3_600_000));
    let loaded_at = async |cache: &RedisCache| {
        until("it answers", async || cache.ping().await.is_ok()).await;
        cache.get_many(&["k".to_owned()]).await.unwrap().remove(0).unwrap().loaded_at_ms
    };
    for cache in [&one, &behind, &ahead] {
        until("it answers", async || cache.ping().await.is_ok()).await;
    }
    tell(&one, &[Order { loaded_at_ms: clock.now_ms(), ..order("k", 1, Some("one")) }]).await;
    for (cache, clock) in [(&one, &clock), (&behind, &clock_behind), (&ahead, &clock_ahead)] {
        let at = loaded_at(cache).await;
        assert!(at.abs_diff(clock.now_ms()) < 5_000, "it was loaded at {at}, and it is {}", clock.now_ms());
    }
    // among values of one version the youngest stays, whoever loaded it
    tell(&behind, &[Order { loaded_at_ms: clock_behind.now_ms() + 9_000, ..order("k", 1, Some("later")) }])
        .await;
    tell(&ahead, &[Order { loaded_at_ms: clock_ahead.now_ms(), ..order("k", 1, Some("before")) }]).await;
    assert_eq!(value(&one, "k").await, Some((1, "later".to_owned())));

    server.kill();
    server.again().await;
    for (cache, clock) in [(&one, &clock), (&behind, &clock_behind), (&ahead, &clock_ahead)] {
        assert_eq!(
            loaded_at(cache).await,
            0,
            "a file of before says when it was loaded, at {}",
            clock.now_ms()
        );
    }
    // a replica that starts now has no horizon; it does not believe what came back either
    let (late, _) = replica(0);
    assert_eq!(loaded_at(&late).await, 0);
    // what is loaded now takes its place, also where its time is before that of the file
    tell(&behind, &[Order { loaded_at_ms: clock_behind.now_ms(), ..order("k", 1, Some("now")) }]).await;
    assert_eq!(value(&one, "k").await, Some((1, "now".to_owned())));
    assert!(loaded_at(&one).await.abs_diff(clock.now_ms()) < 30_000);
}

/// As a version of this program before this one wrote it: what it says of time was by another replica's
/// clock.
#[tokio::test]
async fn entries_of_earlier_versions_are_not_believed_and_keep_newer_versions() {
    let Some(program) = redis_program() else { return };
    let server = Server::start(&program, &[]).await;
    let admin = ::redis::Client::open(server.url()).unwrap();
    let cache = cache(RedisConfig { deadline: Duration::from_secs(2), ..RedisConfig::new(server.url()) });
    run(&admin, &["SET", "k", "5:99999999999999:old"]).await;
    tell(&cache, &[order("k", 4, Some("older"))]).await;
    let held = cache.get_many(&["k".to_owned()]).await.unwrap().remove(0).unwrap();
    assert_eq!((held.version, held.loaded_at_ms, &held.value[..]), (Version(5), 0, &b"old"[..]));
    tell(&cache, &[order("k", 5, Some("same"))]).await;
    assert_eq!(value(&cache, "k").await, Some((5, "same".to_owned())));
}

#[tokio::test]
async fn another_server_takes_over_once_it_answers_and_is_not_trusted_with_the_past() {
    let Some(program) = redis_program() else { return };
    let (first, second) =
        (Server::start(&program, &[]).await, Server::start(&program, &["--requirepass", "hunter2"]).await);
    let at = |url: &str| RedisConfig { deadline: Duration::from_secs(2), ..RedisConfig::new(url) };
    let cache = cache(at(&first.url()));
    tell(&cache, &[order("k", 1, Some("one"))]).await;
    for wrong in [second.url(), "redis://127.0.0.1:1".to_owned(), "nothing".to_owned()] {
        assert!(cache.rotate(at(&wrong)).await.is_err(), "{wrong}");
        assert_eq!(value(&cache, "k").await, Some((1, "one".to_owned())), "the present one stays");
    }
    assert_eq!(cache.trusted_since_ms(), 0);
    cache.rotate(at(&format!("redis://:hunter2@127.0.0.1:{}", second.port))).await.unwrap();
    assert_eq!(value(&cache, "k").await, None);
    assert!(cache.trusted_since_ms() > 0);
    let since = cache.trusted_since_ms();
    cache.rotate(at(&format!("redis://default:hunter2@127.0.0.1:{}", second.port))).await.unwrap();
    assert_eq!(cache.trusted_since_ms(), since, "the same server by another account");
}

/// Whether this is the longer run: `SOAK` is set.
fn soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

struct Traffic {
    store: Arc<Store>,
    replica: Replica,
    done: AtomicBool,
    reads: AtomicUsize,
    slowest_us: AtomicUsize,
}

/// Reads and writes through a Redis tier, until told to stop. Every read must be answered, and never by an
/// older version.
async fn traffic(world: Arc<Traffic>, number: u64) {
    let mine = key(&format!("k{number}"));
    let mut last = 0;
    while !world.done.load(SeqCst) {
        if world.reads.fetch_add(1, SeqCst).is_multiple_of(5) {
            let (version, state) = world.store.next(&mine);
            world.replica.tiered.after_commit(&mine, &state).await;
            last = version;
        }
        let begin = Instant::now();
        let read = world.replica.read(&mine, 0).await.unwrap().cached.version().0;
        world.slowest_us.fetch_max(begin.elapsed().as_micros() as usize, SeqCst);
        assert!(read >= last, "{mine} went back from {last} to {read}");
        last = read;
        // as if memory were full: the next read goes to Redis
        world.replica.evict(&Clock::system());
        tokio::task::yield_now().await;
    }
}

fn world(cache: &Arc<RedisCache>) -> Arc<Traffic> {
    let place = TierPlace::Shared { key_prefix: "shop:".to_owned() };
    let shared = TierConfig { place, ttl: Duration::from_secs(600), ..tier("shared", WriteThrough) };
    let store = Arc::<Store>::default();
    let cache: Arc<dyn SharedCache> = cache.clone();
    let replica = Replica::with(&store, &Clock::system(), &tier("hot", CacheAside), Some((&shared, cache)));
    let (done, reads, slowest_us) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    Arc::new(Traffic { store, replica, done, reads, slowest_us })
}

async fn under_traffic(cache: &Arc<RedisCache>, act: impl AsyncFnOnce(&Traffic)) {
    let world = world(cache);
    let tasks: Vec<_> = (0..8).map(|number| tokio::spawn(traffic(world.clone(), number))).collect();
    until("there is traffic", async || world.reads.load(SeqCst) > 100).await;
    act(&world).await;
    world.done.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_and_restarts_under_traffic_bring_no_wrong_answer() {
    let Some(program) = redis_program() else { return };
    let mut server = Server::start(&program, &["--appendonly", "yes"]).await;
    let cache = cache(RedisConfig::new(server.url()));
    let admin = ::redis::Client::open(server.url()).unwrap();
    let begin = Instant::now();
    // as many as the project promises, in a longer run
    let (flushes, restarts) = if soak() { (100, 100) } else { (20, 5) };
    under_traffic(&cache, async |world| {
        for _ in 0..flushes {
            run(&admin, &["FLUSHALL"]).await;
            let reads = world.reads.load(SeqCst);
            until("reads go on", async || world.reads.load(SeqCst) > reads + 50).await;
        }
        for _ in 0..restarts {
            server.kill();
            let reads = world.reads.load(SeqCst);
            until("reads go on without it", async || world.reads.load(SeqCst) > reads + 50).await;
            server.again().await;
            let hits = world.replica.tiered.stats().tiers[1].hits;
            until("it is used again", async || world.replica.tiered.stats().tiers[1].hits > hits).await;
        }
    })
    .await;
    println!("{flushes} flushes and {restarts} restarts in {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_fails_no_read_and_is_soon_left_alone() {
    let Some(program) = redis_program() else { return };
    let server = Server::start(&program, &[]).await;
    let cache = cache(RedisConfig::new(server.url()));
    under_traffic(&cache, async |world| {
        until("it is used", async || world.replica.tiered.stats().tiers[1].hits > 100).await;
        server.signal("STOP");
        let stopped = Instant::now();
        until("the breaker opens", async || cache.status().breaker != BreakerState::Closed).await;
        let opened = stopped.elapsed();
        assert!(opened < Duration::from_secs(1), "the breaker opened after {opened:?}");
        let reads = world.reads.load(SeqCst);
        let silent = if soak() { Duration::from_secs(30) } else { Duration::from_secs(2) };
        let reads_go_on = async || world.reads.load(SeqCst) > reads + 200;
        while stopped.elapsed() < silent || !reads_go_on().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!(
            "{} reads while it was silent for {:?}",
            world.reads.load(SeqCst) - reads,
            stopped.elapsed()
        );
        server.signal("CONT");
        let (going, hits) = (Instant::now(), world.replica.tiered.stats().tiers[1].hits);
        until("it is used again", async || world.replica.tiered.stats().tiers[1].hits > hits).await;
        let slowest = Duration::from_micros(world.slowest_us.load(SeqCst) as u64);
        println!("open after {opened:?}, in use again after {:?}, slowest read {slowest:?}", going.elapsed());
        assert!(slowest < Duration::from_secs(1), "a read took {slowest:?}");
    })
    .await;
}

/// A prefix as this service uses it, once it has looked whose it is.
async fn owned(
    cache: &Arc<RedisCache>,
    prefix: &str,
    owner: tokio::sync::watch::Receiver<Owner>,
) -> Arc<OwnedCache> {
    let owned = OwnedCache::watch(cache.clone(), prefix, owner, Clock::system());
    until("the mark is read", async || owned.get_many(&["x".to_owned()]).await.is_ok()).await;
    owned
}

async fn text(cache: &OwnedCache, key: &str) -> Option<String> {
    let held = cache.get_many(&[key.to_owned()]).await.unwrap().remove(0)?;
    Some(String::from_utf8(held.value.to_vec()).unwrap())
}
