//! The sample shop with a bank of the suite's own, and what must agree in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use harness::{bank::Bank, manifests, wait};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

/// What a piece costs.
const PRICE: i64 = 3;
/// The statuses in which an order ends.
const FINAL: [&str; 3] = ["completed", "failed", "cancelled"];

/// A shop with its bank.
pub struct Shop {
    pub stage: Stage,
    pub bank: Bank,
    /// The acknowledged orders: the product and the quantity of each.
    orders: Mutex<BTreeMap<String, (String, i64)>>,
}

/// A number for an ordinary run, or for a long one (`FLYWEIGHT_SOAK`).
pub fn scaled(ordinary: usize, soak: usize) -> usize {
    if std::env::var_os("FLYWEIGHT_SOAK").is_some() { soak } else { ordinary }
}

impl Shop {
    pub async fn embedded() -> Self {
        let bank = Bank::open().await;
        let stage = Stage::embedded_with(|dir| manifests(dir, &bank));
        Self { stage, bank, orders: Mutex::default() }
    }

    pub async fn real(test: &str) -> Option<Self> {
        let bank = Bank::open().await;
        let stage = Stage::real_with(test, |dir| manifests(dir, &bank)).await?;
        Some(Self { stage, bank, orders: Mutex::default() })
    }

    pub async fn product(&self, id: &str, stock: i64) {
        let body = json!({ "id": id, "name": id, "price": PRICE, "stock": stock });
        let created = self.stage.api.post("/api/v1/products", &body).await;
        assert_eq!(created.status, 201, "{}", created.text);
    }

    pub async fn stock(&self, product: &str) -> i64 {
        let headers = [("cache-control", "no-cache")];
        let read = self.stage.api.get_with(&format!("/api/v1/products?ids={product}"), &headers).await;
        read.json()["items"][0]["stock"].as_i64().unwrap()
    }

    /// Places an order, again and again until it is acknowledged.
    pub async fn order(&self, id: &str, user: &str, product: &str, quantity: i64) {
        let items = [json!({ "product_id": product, "quantity": quantity, "price": PRICE })];
        let body = json!({ "id": id, "user_id": user, "items": items }).to_string().into_bytes();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "{id}: no answer");
            match self.stage.api.call(Method::POST, "/api/v1/orders", &[], Some(body.clone())).await {
                Ok(answer) if matches!(answer.status, 201 | 409) => break,
                Ok(answer) if !matches!(answer.status, 503 | 504) => panic!("{}: {}", answer.status, answer.text),
                // not ready again yet, or killed while it answered
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
        self.orders.lock().unwrap().insert(id.to_owned(), (product.to_owned(), quantity));
    }

    /// How many orders there are of each status.
    pub async fn statuses(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for order in self.records("orders").await.into_values() {
            *counts.entry(order["status"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        counts
    }

    /// Waits until every acknowledged order has ended.
    pub async fn all_end(&self, within: Duration) {
        self.open_ones_are(within, |_| false).await;
    }

    /// Waits until every acknowledged order has ended or is a dead letter.
    pub async fn all_end_or_wait(&self, within: Duration) {
        self.open_ones_are(within, |set_aside| set_aside).await;
    }

    async fn open_ones_are(&self, within: Duration, fine: impl Fn(bool) -> bool) {
        let last = Mutex::new(String::new());
        let ended = wait::until("all orders to end", within, async || {
            let set_aside = self.set_aside().await;
            let open: Vec<String> = self
                .records("orders")
                .await
                .into_iter()
                .filter(|(id, order)| {
                    !FINAL.contains(&order["status"].as_str().unwrap()) && !fine(set_aside.contains(id))
                })
                .map(|(id, _)| id)
                .collect();
            let first = open.first().cloned();
            if let Some(first) = first {
                let path = format!("/api/v1/orders/{first}/timeline");
                let timeline = self.stage.api.call(Method::GET, &path, &[], None);
                let text = timeline.await.map(|answer| answer.text).unwrap_or_default();
                *last.lock().unwrap() = format!("{} open, the first: {text}", open.len());
            }
            open.is_empty().then_some(())
        });
        tokio::select! {
            () = ended => (),
            () = tokio::time::sleep(within - Duration::from_secs(1)) => panic!("{}", last.lock().unwrap()),
        }
    }

    /// How many dead letters there are.
    pub async fn letters(&self) -> u64 {
        self.stage.api.get("/api/v1/dead-letters?limit=1").await.json()["total"].as_u64().unwrap()
    }

    pub async fn replay_everything(&self) {
        loop {
            let answer = self.stage.api.post("/api/v1/dead-letters/replay", &json!({ "stage": "payments" })).await;
            assert_eq!((answer.status, &answer.json()["failed"]), (200, &json!(0)), "{}", answer.text);
            if answer.json()["more"] != true {
                return;
            }
        }
    }

    /// Every acknowledged order is there; each completed one is paid once and in full, by one payment; no other is paid; what is gone from the
    /// stock is what was sold, and nothing is held.
    pub async fn books_agree(&self, product: &str, initial: i64) {
        let (orders, payments) = (self.records("orders").await, self.records("payments").await);
        let paid = self.bank.paid();
        let mut sold = 0;
        let known = self.orders.lock().unwrap().clone();
        for (id, (of, quantity)) in &known {
            let order = &orders[id];
            let own: Vec<&Value> = payments.values().filter(|payment| payment["order_id"] == *id.as_str()).collect();
            assert!(own.len() <= 1, "{id}: {own:?}");
            let total = (PRICE * quantity).to_string();
            match order["status"].as_str().unwrap() {
                "completed" => {
                    assert_eq!(paid.get(id), Some(&vec![total]), "{order}");
                    assert_eq!(own[0]["status"], "completed", "{own:?}");
                    sold += if of == product { *quantity } else { 0 };
                }
                status if FINAL.contains(&status) => {
                    assert_eq!(paid.get(id), None, "{order}");
                    assert!(own.iter().all(|payment| payment["status"] != "completed"), "{own:?}");
                }
                status => panic!("{id} is {status}"),
            }
        }
        let strangers: BTreeSet<_> = paid.keys().filter(|id| !known.contains_key(*id)).collect();
        assert!(strangers.is_empty(), "{strangers:?}");
        assert_eq!(self.stock(product).await, initial - sold, "{product}: nothing is held, nothing is lost");
    }

    async fn set_aside(&self) -> BTreeSet<String> {
        self.records("dead-letters")
            .await
            .into_values()
            .map(|letter| letter["subject"].as_str().unwrap().to_owned())
            .collect()
    }

    /// All records of a collection, by their ids.
    async fn records(&self, collection: &str) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/{collection}?limit=1000{cursor}");
            let page = self.stage.api.call(Method::GET, &path, &[], None).await;
            let Some(page) = page.ok().filter(|page| page.status == 200).map(|page| page.json()) else {
                // just started again
                tokio::task::yield_now().await;
                continue;
            };
            let items = page["items"].as_array().unwrap();
            all.extend(items.iter().map(|item| (item["id"].as_str().unwrap().to_owned(), item.clone())));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
}

/// The samples with this bank, and with waits that suit a test.
fn manifests(dir: &std::path::Path, bank: &Bank) {
    let pipeline = format!(
        "  pipeline:\n    retry: {{ maxAttempts: 4, initialDelay: 20ms, maxDelay: 500ms }}\n    breaker: {{ threshold: 20, timeout: 500ms }}\n    \
         payments: {{ timeout: 500ms, http: {{ url: \"{}\" }} }}\n",
        bank.url
    );
    manifests::write_samples_with(dir, &pipeline);
}
