//! What was acknowledged is there after `kill -9`, has happened once, and is once in the feed and in the
//! audit: over SQLite, and over MySQL, MongoDB and Kafka.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use harness::{client::Api, scale, seed, wait};
use rand::Rng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{feed, stage::Stage};

/// Clients that write at the same time.
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_and_repeats_nothing_in_embedded_stores() {
    killed(Stage::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_and_repeats_nothing_over_real_servers() {
    let Some(stage) = Stage::real("kill -9 over real servers").await else { return };
    killed(stage).await;
}

/// Creates and changes users and products from several clients, and kills and restarts the data plane while
/// they are at it.
async fn killed(mut stage: Stage) {
    let (records, kills) = (scale::of(500, 5_000), scale::of(5, 50));
    let seed = seed::of("durability");
    let mut choices = seed::choices(seed);
    eprintln!("stage: {}, acknowledged writes: {}, kills: {kills}", stage.name, 2 * records);
    let api = stage.api.clone();
    let since = feed::place(&api).await;
    let (next, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::<String>::new())));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (api, done, next) = (api.clone(), done.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= records {
                        return;
                    }
                    let path = write(&api, seed, n).await;
                    done.lock().unwrap().push(path);
                }
            })
        })
        .collect();
    for kill in 1..=kills {
        let due = records * kill / (kills + 1) + choices.random_range(0..records / (kills + 1) / 2);
        wait::until("enough writes", Duration::from_secs(120), async || {
            (done.lock().unwrap().len() >= due).then_some(())
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
    let done = done.lock().unwrap().clone();
    assert_eq!(done.len(), records);
    check(&api, &since, &done).await;
}

/// Each record is there at version 2, no more and no less, and so say the feed and the audit.
pub async fn check(api: &Api, since: &str, paths: &[String]) {
    let mut newest = BTreeMap::new();
    for path in paths {
        let read = api.get(path).await;
        assert_eq!(
            (read.status, read.json()["version"].as_u64()),
            (200, Some(2)),
            "{path} was acknowledged: {}",
            read.text
        );
        newest.insert(path.rsplit('/').next().unwrap().to_owned(), 2);
    }
    feed::assert_has(api, since, &newest).await;
    stream::iter(paths).for_each_concurrent(CLIENTS, |path| assert_audited(api, path)).await;
    eprintln!("{} audit entries, each change once", 2 * paths.len());
}

/// Each change of a record has one entry in the audit.
async fn assert_audited(api: &Api, path: &str) {
    let mut parts = path.rsplit('/');
    let (id, collection) = (parts.next().unwrap(), parts.next().unwrap());
    let page = api.get(&format!("/api/v1/audit?entity={collection}&id={id}")).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let page = page.json();
    let entry =
        |entry: &Value| (entry["action"].as_str().unwrap().to_owned(), entry["version"].as_u64().unwrap());
    let entries: Vec<_> = page["items"].as_array().unwrap().iter().map(entry).collect();
    assert_eq!(entries, [("created".to_owned(), 1), ("updated".to_owned(), 2)], "{path}: {page}");
}

/// Creates a user or a product, and changes it once. What is not answered is tried again, and may turn out to
/// have happened: half of the creates have a key by which the repeat is told, and gets the first answer.
pub async fn write(api: &Api, seed: u32, n: usize) -> String {
    let id = format!("d-{seed}-{n}");
    let (collection, body) = match n % 2 {
        0 => ("users", json!({ "id": id, "email": format!("{id}@example.com"), "name": "A" })),
        _ => ("products", json!({ "id": id, "name": "A", "price": 1 })),
    };
    let path = format!("/api/v1/{collection}/{id}");
    let posted = format!("/api/v1/{collection}");
    match n % 4 {
        0 | 1 => insist(api, Method::POST, &posted, &[("idempotency-key", &id)], &body, &[201]).await,
        _ => insist(api, Method::POST, &posted, &[], &body, &[201, 409]).await,
    }
    insist(api, Method::PATCH, &path, &[("if-match", "\"1\"")], &json!({ "name": "B" }), &[200, 412]).await;
    path
}

/// Places an order of one piece.
pub async fn order(api: &Api, id: &str, product: &str) {
    let body =
        json!({ "id": id, "user_id": "u", "items": [{ "product_id": product, "quantity": 1, "price": 1 }] });
    insist(api, Method::POST, "/api/v1/orders", &[], &body, &[201, 409]).await;
}

async fn insist(
    api: &Api,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
    wanted: &[u16],
) {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "{path}: no answer");
        match api.call(method.clone(), path, headers, Some(body.to_string().into_bytes())).await {
            Ok(answer) if wanted.contains(&answer.status) => return,
            Ok(answer) if !matches!(answer.status, 503 | 504) => {
                panic!("{path}: {}: {}", answer.status, answer.text)
            }
            // not ready again yet, too slow to say what became of it, or killed while it answered
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
