//! A broker that stops fails no write; a database that freezes is answered for within the deadline; a stop
//! loses nothing.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, scale, seed, server::run_sql, wait};
use reqwest::Method;
use serde_json::json;

use crate::{durability, feed, stage::Stage};

/// Records and orders that are written while the data plane is asked to stop, so often.
const WRITES: usize = 60;
const STOPS: usize = 3;
/// What a relay that did not give up its claims would keep from others.
const LEASE: Duration = Duration::from_secs(10);
/// The longest that a call of a store may take, with what the machine adds.
const DEADLINE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_broker_fails_no_write_and_a_frozen_database_is_answered_for_in_time() {
    let Some(mut stage) = Stage::real("outages of Kafka and MySQL").await else { return };
    broker_stops(&mut stage).await;
    database_freezes(&mut stage).await;
    connections_run_out(&mut stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_under_way_and_the_next_start_does_the_rest() {
    stopped(Stage::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_over_real_servers_hands_over_what_it_had() {
    let Some(stage) = Stage::real("a stop over real servers").await else { return };
    stopped(stage).await;
}

/// A data plane is asked to stop, again and again, while users, products and orders are written.
async fn stopped(mut stage: Stage) {
    let (api, seed) = (stage.api.clone(), seed::of("outage"));
    let product = json!({ "id": format!("s-{seed}"), "name": "P", "price": 1, "stock": WRITES });
    assert_eq!(api.post("/api/v1/products", &product).await.status, 201);
    let since = feed::place(&api).await;
    let done = Arc::new(AtomicUsize::new(0));
    let writing = tokio::spawn({
        let (api, written) = (api.clone(), done.clone());
        async move {
            let mut paths = Vec::new();
            for n in 0..WRITES {
                paths.push(durability::write(&api, seed, n).await);
                durability::order(&api, &format!("s-{seed}-{n}"), &format!("s-{seed}")).await;
                written.fetch_add(1, Ordering::Relaxed);
            }
            paths
        }
    });
    for stop in 1..=STOPS {
        wait::until("enough writes", Duration::from_secs(60), async || {
            (done.load(Ordering::Relaxed) >= WRITES * stop / (STOPS + 1)).then_some(())
        })
        .await;
        tokio::task::block_in_place(|| {
            let start = Instant::now();
            let status = stage.data_plane.terminate();
            assert!(status.success(), "{status}");
            assert!(start.elapsed() < Duration::from_secs(20), "the stop took {:?}", start.elapsed());
            stage.data_plane.restart();
        });
        let back = Instant::now();
        feed::place(&api).await;
        assert!(back.elapsed() < LEASE, "the relay that stopped gave its claims up: {:?}", back.elapsed());
    }
    let paths = writing.await.unwrap();
    durability::check(&api, &since, &paths).await;
    let path = format!("/api/v1/products/s-{seed}");
    wait::until("every order to be sold, once", Duration::from_secs(120), async || {
        let orders = api.get("/api/v1/orders?limit=1000").await.json();
        let sold = orders["items"].as_array()?.iter().filter(|order| order["status"] == "completed").count();
        (sold == WRITES && api.get(&path).await.json()["stock"] == 0).then_some(())
    })
    .await;
    let payments = api.get("/api/v1/payments?limit=1000").await.json();
    assert_eq!(payments["total"], WRITES, "one payment for each order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_of_memory_writes_are_refused_and_the_rest_goes_on() {
    let mut stage = Stage::embedded();
    let (api, admin) = (stage.api.clone(), Api::at(&stage.data_plane.admin));
    let user = |name: &str| json!({ "id": name, "email": format!("{name}@example.com"), "name": name });
    assert_eq!(api.post("/api/v1/users", &user("before")).await.status, 201);
    tokio::task::block_in_place(|| {
        stage.data_plane.kill();
        stage.data_plane.restart_with(&[("MAX_MEMORY_USAGE", "8Mi")]);
    });
    assert!(stage.data_plane.resident_bytes() > 8 << 20, "the process needs more than that");
    let refused = wait::until("writes to be refused", Duration::from_secs(30), async || {
        let answer = api.post("/api/v1/users", &user(&format!("u{}", rand::random::<u64>()))).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(refused.json()["type"], "urn:flyweight:problem:memory", "{}", refused.text);
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    let event = json!({ "product_id": "p", "price": 1, "stock": 1 });
    let batch = json!({ "atomic": true, "operations": [{ "op": "delete", "id": "before" }] });
    let changes = [
        (Method::PATCH, "/api/v1/users/before", json!({ "name": "B" })),
        (Method::DELETE, "/api/v1/users/before", json!(null)),
        (Method::POST, "/api/v1/users/batch", batch),
        (Method::POST, "/api/v1/events", event),
        (Method::POST, "/api/v1/orders", json!({ "user_id": "u", "items": [] })),
    ];
    for (method, path, body) in changes {
        let answer = api.send(method.clone(), path, &[], &body).await;
        assert_eq!(answer.status, 503, "{method} {path}: {}", answer.text);
    }
    for path in
        ["/api/v1/users/before", "/api/v1/users", "/api/v1/health", "/livez", "/readyz", "/api/v1/pipeline"]
    {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(admin.get(path).await.status, 200, "{path} at the admin port");
    }
    tokio::task::block_in_place(|| {
        stage.data_plane.kill();
        stage.data_plane.restart();
    });
    assert_eq!(api.post("/api/v1/users", &user("after")).await.status, 201);
}

/// Kafka is away while users are created at a steady rate.
async fn broker_stops(stage: &mut Stage) {
    let (rate, seconds) = (scale::of(100, 500), scale::of(10, 120));
    let api = stage.api.clone();
    let since = feed::place(&api).await;
    tokio::task::block_in_place(|| stage.servers.as_mut().unwrap().kafka.kill());
    let (failed, seed) = (Arc::new(AtomicUsize::new(0)), seed::of("outage"));
    let created = Arc::new(Mutex::new(Vec::new()));
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..rate * seconds {
        ticks.tick().await;
        let (api, failed, created) = (api.clone(), failed.clone(), created.clone());
        calls.spawn(async move {
            let id = format!("o-{seed}-{n}");
            let body = json!({ "id": id, "email": format!("{id}@example.com"), "name": "A" })
                .to_string()
                .into_bytes();
            match api.call(Method::POST, "/api/v1/users", &[], Some(body)).await {
                Ok(answer) if answer.status == 201 => created.lock().unwrap().push(id),
                other => {
                    eprintln!("{other:?}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while calls.join_next().await.is_some() {}
    let health = api.get("/api/v1/health").await.json();
    let backlog = health["queues"]["outbox"]["mysql"]["events"].as_u64().unwrap_or(0);
    eprintln!("{} writes in {seconds} s without Kafka, backlog {backlog}", rate * seconds);
    assert_eq!(failed.load(Ordering::Relaxed), 0, "failed writes");
    assert!(backlog > 0, "the backlog is visible: {health}");
    tokio::task::block_in_place(|| stage.servers.as_mut().unwrap().kafka.restart());
    let back = Instant::now();
    feed::drained(&api, Duration::from_secs(60)).await;
    eprintln!("drained {:?} after Kafka's return", back.elapsed());
    let created = created.lock().unwrap().iter().map(|id| (id.clone(), 1)).collect();
    feed::assert_has(&api, &since, &created).await;
}

/// MySQL is frozen for ten seconds while users are read and written.
async fn database_freezes(stage: &mut Stage) {
    let api = stage.api.clone();
    let (stop, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Duration::ZERO)));
    let refused = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (api, stop, slowest, refused) = (api.clone(), stop.clone(), slowest.clone(), refused.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let tag = format!("f-{client}-{}", rand::random::<u64>());
                    let (start, path) = (Instant::now(), "/api/v1/users");
                    let body = json!({ "email": format!("{tag}@example.com"), "name": "A" })
                        .to_string()
                        .into_bytes();
                    let answer = match client % 2 {
                        0 => api.call(Method::POST, path, &[], Some(body)).await,
                        _ => api.call(Method::GET, &format!("{path}/{tag}"), &[], None).await,
                    };
                    let answer = answer.unwrap();
                    assert!(
                        matches!(answer.status, 201 | 404 | 503 | 504),
                        "{}: {}",
                        answer.status,
                        answer.text
                    );
                    refused.fetch_add(usize::from(answer.status >= 500), Ordering::Relaxed);
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = start.elapsed().max(*slowest);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.servers.as_ref().unwrap().mysql.freeze();
    tokio::time::sleep(Duration::from_secs(10)).await;
    // what needs no MySQL is served all the while
    assert_eq!(api.get("/api/v1/products?limit=1").await.status, 200);
    stage.servers.as_ref().unwrap().mysql.thaw();
    wait::until("writes after the thaw", Duration::from_secs(15), async || {
        let body = json!({ "email": format!("{}@example.com", rand::random::<u64>()), "name": "A" });
        (api.post("/api/v1/users", &body).await.status == 201).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let slowest = *slowest.lock().unwrap();
    let refused = refused.load(Ordering::Relaxed);
    eprintln!("the slowest answer with MySQL frozen took {slowest:?}; {refused} were refused");
    assert!(slowest < DEADLINE, "{slowest:?}");
    assert!(refused > 0 && slowest > Duration::from_secs(1), "the freeze was felt: {refused}, {slowest:?}");
}

/// Without a free connection to MySQL a call is answered within `CONNECTION_TIMEOUT`, not when one becomes
/// free.
async fn connections_run_out(stage: &mut Stage) {
    let api = stage.api.clone();
    let id = format!("locked-{}", rand::random::<u32>());
    let user = json!({ "id": id, "email": format!("{id}@example.com"), "name": "A" });
    let created = api.post("/api/v1/users", &user).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let few = [("MAX_CONNECTIONS", "2"), ("CONNECTION_TIMEOUT", "300ms")];
    tokio::task::block_in_place(|| {
        stage.data_plane.kill();
        stage.data_plane.restart_with(&few);
    });
    let url = stage.servers.as_ref().unwrap().mysql.url();
    let lock = format!("BEGIN; SELECT 1 FROM users WHERE id = '{id}' FOR UPDATE; SELECT SLEEP(4); ROLLBACK");
    let locked = std::thread::spawn(move || run_sql(&url, &lock));
    // again and again: the first may be through before the lock is taken
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let (api, path, stop) = (api.clone(), format!("/api/v1/users/{id}"), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let status = api.send(Method::PATCH, &path, &[], &json!({ "name": "B" })).await.status;
                    assert!(matches!(status, 200 | 503 | 504), "{status}");
                }
            })
        })
        .collect();
    // all connections wait for the lock, two seconds each
    let waited = wait::until("a refusal for want of a connection", Duration::from_secs(20), async || {
        let begun = Instant::now();
        let answer = api.get(&format!("/api/v1/users/none-{}", rand::random::<u64>())).await;
        (answer.status == 503).then(|| begun.elapsed())
    })
    .await;
    eprintln!("refused for want of a connection after {waited:?}");
    assert!((Duration::from_millis(250)..Duration::from_millis(1_500)).contains(&waited), "{waited:?}");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    locked.join().unwrap();
}
