//! `POST /events`: what was accepted is applied, once, the newest of each product winning, whatever is killed
//! in between.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, manifests, scale, seed, wait};
use rand::Rng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

const PRODUCTS: usize = 50;
/// Events of one request.
const LOT: usize = 500;
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_events_are_applied_in_embedded_stores() {
    let mut stage = Stage::embedded();
    contract(&stage.api).await;
    strangers(&stage.api).await;
    killed(&mut stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_events_are_applied_over_real_servers() {
    let Some(mut stage) = Stage::real_secured("ingestion over real servers, Kafka with TLS and SCRAM").await
    else {
        return;
    };
    contract(&stage.api).await;
    strangers(&stage.api).await;
    killed(&mut stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_events_are_applied_over_mysql_alone() {
    let write = |dir: &std::path::Path| manifests::write_samples_over(dir, &["mysql"], "");
    let Some(mut stage) = Stage::on_mysql("ingestion over MySQL alone", write).await else { return };
    let replica = tokio::task::block_in_place(|| stage.replica());
    contract(&stage.api).await;
    strangers(&stage.api).await;
    killed(&mut stage).await;
    drop(replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_full_says_when_to_come_again() {
    let mut stage = Stage::embedded();
    let api = stage.api.clone();
    create(&api, ["lamp".to_owned()].into_iter()).await;
    // a batch is applied when it is full, which it never is, or after a while: so long the events wait
    let few =
        [("QUEUE_SIZE", "10"), ("BATCH_SIZE", "1000"), ("BATCH_FLUSH_INTERVAL", "10s"), ("WORKERS", "1")];
    tokio::task::block_in_place(|| {
        stage.data_plane.kill();
        stage.data_plane.restart_with(&few);
    });
    let send = async |events: usize, stock: usize| {
        let event = json!({ "product_id": "lamp", "price": 2, "stock": stock }).to_string();
        let lines = vec![event; events].join("\n").into_bytes();
        api.call(Method::POST, "/api/v1/events", &[NDJSON], Some(lines)).await.unwrap()
    };
    assert_eq!(send(11, 0).await.status, 413, "more than ever may wait");
    assert_eq!(send(10, 1).await.status, 202);
    let refused = send(1, 2).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.json()["type"], "urn:flyweight:problem:queue-full");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    // what needs no place in the queue is served
    assert_eq!(api.get("/api/v1/products/lamp").await.status, 200);
    wait::until("room", Duration::from_secs(30), async || (send(1, 3).await.status == 202).then_some(()))
        .await;
    until_stock(&api, "lamp", 3).await;
}

async fn contract(api: &Api) {
    let created = api.post("/api/v1/products", &json!({ "name": "Lamp", "price": 1 })).await.json();
    let id = created["id"].as_str().unwrap();
    let event = |price: &str, stock: i64, at: &str| json!({ "product_id": id, "price": price, "stock": stock, "at": at });
    let accepted = post(api, &event("12.50", 5, "2026-01-02T00:00:00Z")).await;
    assert_eq!((accepted.0, accepted.1["accepted"].as_i64()), (202, Some(1)), "{}", accepted.1);
    until_stock(api, id, 5).await;
    // older than what was applied: no effect, also not on the version
    let lines = [
        event("1", 1, "2026-01-01T00:00:00Z"),
        event("13", 6, "2026-01-03T00:00:00Z"),
        event("2", 2, "2026-01-02T00:00:00Z"),
    ];
    let body = lines.map(|line| line.to_string()).join("\n");
    let answer = api.call(Method::POST, "/api/v1/events", &[NDJSON], Some(body.into_bytes())).await.unwrap();
    assert_eq!((answer.status, answer.json()["accepted"].as_i64()), (202, Some(3)), "{}", answer.text);
    until_stock(api, id, 6).await;
    let product = api.get_with(&format!("/api/v1/products/{id}"), &[("if-min-version", "3")]).await;
    assert_eq!(product.json()["version"], 3, "{}", product.text);
    assert_eq!(product.json()["price"], 13);
    assert!(product.json().get("priced_by").is_none(), "bookkeeping is shown nowhere");

    unknown(api).await;

    let broken =
        api.call(Method::POST, "/api/v1/events", &[NDJSON], Some(b"{\"product_id\":\"a\"}\n{}x\n".to_vec()));
    let broken = broken.await.unwrap();
    assert_eq!(broken.status, 400, "{}", broken.text);
    assert!(broken.fields().contains(&"line 1: price".to_owned()), "{}", broken.text);
    assert!(broken.fields().contains(&"line 2".to_owned()), "{}", broken.text);
    for bad in [
        json!({ "product_id": id, "price": -1, "stock": 1 }),
        json!({ "product_id": id, "price": 1, "stock": 1, "x": 1 }),
    ] {
        assert_eq!(post(api, &bad).await.0, 400);
    }
}

/// An event makes its product, but none that was deleted after it.
async fn unknown(api: &Api) {
    let id = format!("unknown-{}", rand::random::<u32>());
    let event = json!({ "product_id": id, "price": 49.99, "stock": 100 });
    assert_eq!(post(api, &event).await.0, 202);
    until_stock(api, &id, 100).await;
    let path = format!("/api/v1/products/{id}");
    let product = api.get(&path).await.json();
    assert_eq!(
        (&product["name"], &product["price"], &product["currency"]),
        (&json!(id), &json!(49.99), &json!("USD"))
    );
    assert_eq!(api.send(Method::DELETE, &path, &[], &Value::Null).await.status, 204);
    let older = json!({ "product_id": id, "price": 9, "stock": 9, "at": "2026-01-01T00:00:00Z" });
    assert_eq!(post(api, &older).await.0, 202);
    nothing_waits(api).await;
    assert_eq!(api.get(&path).await.status, 404, "it was deleted after that");
    assert_eq!(post(api, &json!({ "product_id": id, "price": 3, "stock": 4 })).await.0, 202);
    until_stock(api, &id, 4).await;
    assert!(api.get(&path).await.json()["version"].as_i64() > Some(2), "its versions go on");
}

async fn post(api: &Api, event: &Value) -> (u16, Value) {
    let answer = api.post("/api/v1/events", event).await;
    (answer.status, answer.json())
}

async fn until_stock(api: &Api, id: &str, stock: i64) {
    let path = format!("/api/v1/products/{id}");
    wait::until(&format!("stock {stock}"), Duration::from_secs(30), async || {
        (api.get(&path).await.json()["stock"] == stock).then_some(())
    })
    .await;
}

/// Events of products that are not there, among others: each makes its product, and none becomes a dead
/// letter.
async fn strangers(api: &Api) {
    let (events, strangers) = (scale::of(5_000, 100_000), scale::of(50, 1_000));
    let seed = seed::of("ingest");
    let ids = |n: usize| format!("good-{seed}-{n}");
    let missing: Vec<String> = (0..strangers).map(|n| format!("missing-{seed}-{n}")).collect();
    create(api, (0..PRODUCTS).map(ids)).await;
    let begun = Instant::now();
    for first in (0..events).step_by(LOT) {
        let event = |n: usize| {
            let product = match n % (events / strangers) {
                0 => missing[n / (events / strangers)].clone(),
                _ => ids(n % PRODUCTS),
            };
            let at = format!(
                "2026-01-{:02}T{:02}:{:02}:{:02}Z",
                n / 86_400 + 1,
                n / 3_600 % 24,
                n / 60 % 60,
                n % 60
            );
            json!({ "product_id": product, "price": 2, "stock": n, "at": at }).to_string()
        };
        let lines = (first..events.min(first + LOT)).map(event).collect::<Vec<_>>().join("\n");
        wait::until("room for events", Duration::from_secs(60), async || {
            let answer = api
                .call(Method::POST, "/api/v1/events", &[NDJSON], Some(lines.clone().into_bytes()))
                .await
                .unwrap();
            assert!(matches!(answer.status, 202 | 503), "{}: {}", answer.status, answer.text);
            (answer.status == 202).then_some(())
        })
        .await;
    }
    let sent = begun.elapsed();
    nothing_waits(api).await;
    assert_eq!(letters(api).await, 0);
    let applied = begun.elapsed();
    for product in 0..PRODUCTS {
        let newest = (0..events).rev().find(|n| n % PRODUCTS == product && n % (events / strangers) != 0);
        until_stock(api, &ids(product), newest.unwrap_or_default() as i64).await;
    }
    for (n, id) in missing.iter().enumerate() {
        until_stock(api, id, (n * (events / strangers)) as i64).await;
    }
    eprintln!(
        "{events} events sent in {sent:?}, applied after {applied:?}; {strangers} products made by them"
    );
}

async fn letters(api: &Api) -> u64 {
    api.get("/api/v1/dead-letters?stage=ingest&limit=1").await.json()["total"].as_u64().unwrap()
}

/// Creates products in batches.
async fn create(api: &Api, ids: impl Iterator<Item = String>) {
    let operations: Vec<Value> =
        ids.map(|id| json!({ "op": "create", "data": { "id": id, "name": "P", "price": 1 } })).collect();
    for lot in operations.chunks(50) {
        let answer = api.post("/api/v1/products/batch", &json!({ "atomic": false, "operations": lot })).await;
        assert_eq!(answer.status, 207, "{}", answer.text);
        let results = answer.json()["results"].as_array().unwrap().clone();
        assert!(results.iter().all(|result| result["status"] == 201), "{}", answer.text);
    }
}

async fn nothing_waits(api: &Api) {
    wait::until("nothing waits", Duration::from_secs(300), async || {
        (api.get("/api/v1/health").await.json()["queues"]["ingest"]["events"] == 0).then_some(())
    })
    .await;
}

/// Sends events from several clients, and kills and restarts the data plane while they are at it.
async fn killed(stage: &mut Stage) {
    let seed = seed::of("ingest");
    let mut choices = seed::choices(seed);
    let (events, kills) = (scale::of(2_000, 20_000), scale::of(4, 20));
    eprintln!("stage: {}, events: {events}, kills: {kills}", stage.name);
    let api = stage.api.clone();
    for n in 0..PRODUCTS {
        let body = json!({ "id": format!("i-{seed}-{n}"), "name": "P", "price": 1 });
        assert_eq!(api.post("/api/v1/products", &body).await.status, 201);
    }
    let (next, newest) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(vec![0; PRODUCTS])));
    let accepted = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (api, next, newest, accepted) = (api.clone(), next.clone(), newest.clone(), accepted.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= events {
                        return;
                    }
                    send(&api, seed, n).await;
                    let newest: &mut usize = &mut newest.lock().unwrap()[n % PRODUCTS];
                    *newest = n.max(*newest);
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for kill in 1..=kills {
        let due = events * kill / (kills + 1) + choices.random_range(0..events / (kills + 1) / 2);
        wait::until("enough events", Duration::from_secs(60), async || {
            (accepted.load(Ordering::Relaxed) >= due).then_some(())
        })
        .await;
        tokio::task::block_in_place(|| {
            stage.data_plane.kill();
            stage.data_plane.restart();
        });
    }
    for client in clients {
        client.await.unwrap();
    }
    let newest = newest.lock().unwrap().clone();
    for (n, newest) in newest.into_iter().enumerate() {
        until_stock(&api, &format!("i-{seed}-{n}"), newest as i64).await;
    }
    nothing_waits(&api).await;
}

/// Sends one event until it is accepted.
async fn send(api: &Api, seed: u32, n: usize) {
    let at = format!("2026-01-01T{:02}:{:02}:{:02}Z", n / 3_600, n / 60 % 60, n % 60);
    let body =
        json!({ "product_id": format!("i-{seed}-{}", n % PRODUCTS), "price": 2, "stock": n, "at": at });
    let body = body.to_string().into_bytes();
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "event {n}: not accepted");
        match api.call(Method::POST, "/api/v1/events", &[], Some(body.clone())).await {
            Ok(answer) if answer.status == 202 => return,
            Ok(answer) if !matches!(answer.status, 503 | 504) => panic!("{}: {}", answer.status, answer.text),
            // full, too slow to say what became of it, not ready again yet, or killed while it answered
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
