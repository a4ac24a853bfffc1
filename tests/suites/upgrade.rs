//! From the former release to this one under traffic: what the former acknowledged is there, each change is
//! once in the feed from a cursor that the former gave, every order ends and is paid once, and names of
//! topics and keys stay.
//!
//! `FORMER_BIN` is the data plane of the former release; `make prove-upgrade` builds it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{bank::Bank, client::Api, manifests, seed, wait};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{durability, feed, stage::Stage};

/// Clients that write at the same time.
const CLIENTS: usize = 4;
/// What is written before the change, while both serve, and after it.
const EACH: usize = 200;
/// The products that are sold and counted.
const SOLD: usize = 5;
/// The stock of each before anything is sold.
const STOCK: i64 = 100_000;
/// How long orders may take in the end.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the program of the former release: make prove-upgrade"]
async fn embedded_data_of_the_former_release_is_taken_over() {
    let bank = Bank::open().await;
    let mut stage = Stage::embedded_of(former(), |dir| shop(dir, &bank));
    let traffic = Traffic::begin(&stage.api, bank).await;
    traffic.reaches(EACH).await;
    let ways = traffic.ways.clone();
    ways.lock().unwrap().clear();
    let next = tokio::task::block_in_place(|| {
        stage.data_plane.terminate();
        stage.embedded_anew()
    });
    ways.lock().unwrap().push(Api::at(&next.url));
    traffic.reaches(2 * EACH).await;
    traffic.end(&Api::at(&next.url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the program of the former release: make prove-upgrade"]
async fn a_pod_of_this_release_takes_over_from_one_of_the_former_under_traffic() {
    let bank = Bank::open().await;
    let Some(mut stage) = Stage::real_of(former(), "upgrade", |dir| shop(dir, &bank)).await else { return };
    let traffic = Traffic::begin(&stage.api, bank).await;
    traffic.reaches(EACH).await;
    let next = tokio::task::block_in_place(|| stage.replica());
    traffic.ways.lock().unwrap().push(Api::at(&next.url));
    traffic.reaches(2 * EACH).await;
    traffic.ways.lock().unwrap().remove(0);
    tokio::task::block_in_place(|| stage.data_plane.terminate());
    traffic.reaches(3 * EACH).await;
    let api = Api::at(&next.url);
    let health = feed::healthy(&api).await;
    eprintln!("in the end: {health}");
    traffic.end(&api).await;
}

/// The program of the former release.
fn former() -> PathBuf {
    std::env::var_os("FORMER_BIN").map(PathBuf::from).unwrap_or_else(|| panic!("FORMER_BIN is not set"))
}

/// The sample shop as the former release had it: nothing is said of prefixes, so both take what they take by
/// themselves, nor of passwords without TLS.
fn shop(dir: &Path, bank: &Bank) {
    let pipeline = format!(
        "  pipeline:\n    retry: {{ maxAttempts: 4, initialDelay: 20ms, maxDelay: 500ms }}\n    \
         payments: {{ timeout: 500ms, http: {{ url: \"{}\" }} }}\n",
        bank.url
    );
    manifests::write_samples_with(dir, &pipeline);
    let service = dir.join("service.yaml");
    let text = std::fs::read_to_string(&service).unwrap();
    let text =
        text.replace("        topicPrefix: \"shop.\"\n", "").replace("        allowPlaintext: true\n", "");
    std::fs::write(&service, text).unwrap();
}

/// Clients that write records, place orders and report counts, by any of the ways to the service that are
/// open.
struct Traffic {
    ways: Arc<Mutex<Vec<Api>>>,
    bank: Bank,
    since: String,
    done: Arc<Mutex<Vec<String>>>,
    orders: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    async fn begin(api: &Api, bank: Bank) -> Self {
        let seed = seed::of("upgrade");
        for product in 0..SOLD {
            let body = json!({ "id": sold(product), "name": "Lamp", "price": 3, "stock": STOCK });
            let created = api.post("/api/v1/products", &body).await;
            assert_eq!(created.status, 201, "{}", created.text);
        }
        let traffic = Self {
            ways: Arc::new(Mutex::new(vec![api.clone()])),
            bank,
            since: feed::place(api).await,
            done: Arc::default(),
            orders: Arc::default(),
            stop: Arc::default(),
            clients: Vec::new(),
        };
        let next = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let (ways, done, next) = (traffic.ways.clone(), traffic.done.clone(), next.clone());
            let (orders, stop) = (traffic.orders.clone(), traffic.stop.clone());
            tokio::spawn(async move {
                while stop.load(Ordering::Relaxed) == 0 {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let id = format!("d-{seed}-{n}");
                    let (collection, body) = match n % 2 {
                        0 => {
                            ("users", json!({ "id": id, "email": format!("{id}@example.com"), "name": "A" }))
                        }
                        _ => ("products", json!({ "id": id, "name": "A", "price": 1 })),
                    };
                    let path = format!("/api/v1/{collection}/{id}");
                    insist(&ways, Method::POST, &format!("/api/v1/{collection}"), &[], &body, &[201, 409])
                        .await;
                    let change = json!({ "name": "B" });
                    insist(&ways, Method::PATCH, &path, &[("if-match", "\"1\"")], &change, &[200, 412]).await;
                    let item = json!({ "product_id": sold(n % SOLD), "quantity": 1 });
                    let order = json!({ "id": format!("o-{seed}-{n}"), "user_id": "u", "items": [item] });
                    insist(&ways, Method::POST, "/api/v1/orders", &[], &order, &[201, 409]).await;
                    orders.fetch_add(1, Ordering::Relaxed);
                    let event = json!({ "product_id": id.replace("d-", "e-"), "price": 1, "stock": n });
                    insist(&ways, Method::POST, "/api/v1/events", &[], &event, &[202, 404]).await;
                    done.lock().unwrap().push(path);
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { clients, ..traffic }
    }

    /// Waits until so many rounds are done.
    async fn reaches(&self, rounds: usize) {
        wait::until("enough writes", Duration::from_secs(120), async || {
            (self.done.lock().unwrap().len() >= rounds).then_some(())
        })
        .await;
    }

    /// Ends it, and looks whether all that was acknowledged is there, in the audit, and in the feed from
    /// before the upgrade.
    async fn end(self, api: &Api) {
        self.stop.store(1, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let done = self.done.lock().unwrap().clone();
        let orders = self.orders.load(Ordering::Relaxed);
        eprintln!("{} rounds, {orders} orders", done.len());
        durability::check(api, &self.since, &done).await;
        wait::until("all orders to end", PATIENCE, async || (self.bank.paid().len() == orders).then_some(()))
            .await;
        for (order, amounts) in self.bank.paid() {
            assert_eq!(amounts.len(), 1, "{order} was charged {amounts:?}");
        }
        wait::until("all pieces to be accounted for", PATIENCE, async || {
            let mut left = 0;
            for product in 0..SOLD {
                left +=
                    api.get(&format!("/api/v1/products/{}", sold(product))).await.json()["stock"].as_i64()?;
            }
            let sold = i64::try_from(orders).ok()?;
            (left == STOCK * i64::try_from(SOLD).ok()? - sold).then_some(())
        })
        .await;
    }
}

fn sold(product: usize) -> String {
    format!("lamp-{product}")
}

/// Asks by one way after the other until it is answered.
async fn insist(
    ways: &Mutex<Vec<Api>>,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
    wanted: &[u16],
) {
    let start = Instant::now();
    for turn in 0.. {
        assert!(start.elapsed() < Duration::from_secs(60), "{path}: no answer");
        let way = {
            let ways = ways.lock().unwrap();
            ways.get(turn % ways.len().max(1)).cloned()
        };
        let Some(api) = way else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        match api.call(method.clone(), path, headers, Some(body.to_string().into_bytes())).await {
            Ok(answer) if wanted.contains(&answer.status) => return,
            Ok(answer) if !matches!(answer.status, 503 | 504) => {
                panic!("{path}: {}: {}", answer.status, answer.text)
            }
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
