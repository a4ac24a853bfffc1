//! The sample shop with a bank of the suite's own, and what must agree in the end.

use std::{
    cell::Cell,
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
/// How long it may take until nothing is left of an order that ended: its message, and a hold that only a
/// sweep finds.
const SWEPT: Duration = Duration::from_secs(120);
/// How long one message may take where all of them wait for one worker, as thousands do once their orders
/// have ended.
const TOLD_EACH: Duration = Duration::from_millis(10);
/// The statuses in which an order ends.
const FINAL: [&str; 3] = ["completed", "failed", "cancelled"];

/// A shop with its bank.
pub struct Shop {
    pub stage: Stage,
    pub bank: Bank,
    /// The acknowledged orders: the product and the quantity of each.
    orders: Mutex<BTreeMap<String, (String, i64)>>,
}

impl Shop {
    pub async fn embedded() -> Self {
        let bank = Bank::open().await;
        let stage = Stage::embedded_with(|dir| manifests(dir, &bank, None));
        Self { stage, bank, orders: Mutex::default() }
    }

    pub async fn real(test: &str) -> Option<Self> {
        let bank = Bank::open().await;
        let stage = Stage::real_with(test, |dir| manifests(dir, &bank, None)).await?;
        Some(Self { stage, bank, orders: Mutex::default() })
    }

    /// Over MySQL alone.
    pub async fn on_mysql(test: &str) -> Option<Self> {
        let bank = Bank::open().await;
        let write =
            |dir: &std::path::Path| manifests::write_samples_over(dir, &["mysql"], &pipeline(&bank, ""));
        let stage = Stage::on_mysql(test, write).await?;
        Some(Self { stage, bank, orders: Mutex::default() })
    }

    /// Changes how many workers charge, in the manifests.
    pub fn employ(&self, payments: usize) {
        self.stage.rewrite(|dir| manifests(dir, &self.bank, Some(payments)));
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
                Ok(answer) if !matches!(answer.status, 503 | 504) => {
                    panic!("{}: {}", answer.status, answer.text)
                }
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
        let (last, took) = (Mutex::new(String::new()), Cell::new(Duration::ZERO));
        let ended = wait::until("all orders to end", within, async || {
            // reading thousands of open orders again and again would leave the service no time to end them
            tokio::time::sleep(took.get() * 9).await;
            let begun = Instant::now();
            let set_aside = self.set_aside().await;
            let open = self.open_ones().await.into_keys().filter(|id| !fine(set_aside.contains(id)));
            let open: Vec<String> = open.collect();
            let first = open.first().cloned();
            if let Some(first) = first {
                let path = format!("/api/v1/orders/{first}/timeline");
                let timeline = self.stage.api.call(Method::GET, &path, &[], None);
                let text = timeline.await.map(|answer| answer.text).unwrap_or_default();
                *last.lock().unwrap() = format!("{} open, the first: {text}", open.len());
            }
            took.set(begun.elapsed());
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
            let answer =
                self.stage.api.post("/api/v1/dead-letters/replay", &json!({ "stage": "payments" })).await;
            assert_eq!((answer.status, &answer.json()["failed"]), (200, &json!(0)), "{}", answer.text);
            if answer.json()["more"] != true {
                return;
            }
        }
    }

    /// Every acknowledged order is there; each completed one is paid once and in full, by one payment; no
    /// other is paid; each customer is told once; what is gone from the stock is what was sold, and nothing
    /// is held.
    pub async fn books_agree(&self, product: &str, initial: i64) {
        let (orders, payments) = (self.records("orders").await, self.records("payments").await);
        let mut by_order: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for payment in payments.values() {
            by_order.entry(payment["order_id"].as_str().unwrap()).or_default().push(payment);
        }
        let paid = self.bank.paid();
        let (mut sold, mut messages) = (0, BTreeSet::new());
        let known = self.orders.lock().unwrap().clone();
        for (id, (of, quantity)) in &known {
            let order = &orders[id];
            let own = by_order.remove(id.as_str()).unwrap_or_default();
            assert!(own.len() <= 1, "{id}: {own:?}");
            let total = (PRICE * quantity).to_string();
            let status = order["status"].as_str().unwrap();
            match status {
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
            messages.insert(format!("{id}-{}-{status}", order["created_at"].as_str().unwrap()));
        }
        assert!(by_order.is_empty(), "payments of no order: {by_order:?}");
        let strangers: BTreeSet<_> = paid.keys().filter(|id| !known.contains_key(*id)).collect();
        assert!(strangers.is_empty(), "{strangers:?}");
        // the message and the end of a hold that was left over come after an order's end
        let told = SWEPT + TOLD_EACH * messages.len() as u32;
        wait::until("all customers to be told", told, async || (self.bank.told() == messages).then_some(()))
            .await;
        let (stock, right) = (Mutex::new(0), initial - sold);
        let swept = wait::until("every hold to end", SWEPT, async || {
            *stock.lock().unwrap() = self.stock(product).await;
            (*stock.lock().unwrap() == right).then_some(())
        });
        tokio::select! {
            () = swept => (),
            () = tokio::time::sleep(SWEPT - Duration::from_secs(1)) => {
                panic!("{product}: {} in stock, {right} would be right", stock.lock().unwrap());
            }
        }
        wait::until("no hold to be left", SWEPT, async || {
            (self.stage.api.get("/api/v1/pipeline").await.json()["holding"] == 0).then_some(())
        })
        .await;
    }

    async fn set_aside(&self) -> BTreeSet<String> {
        self.records("dead-letters")
            .await
            .into_values()
            .map(|letter| letter["subject"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The orders that have not ended.
    async fn open_ones(&self) -> BTreeMap<String, Value> {
        let open = json!({ "field": "status", "op": "in", "value": ["pending", "processing", "paid"] });
        self.all_of(|cursor| {
            let body = json!({ "repository": "orders", "where": open, "limit": 1_000, "cursor": cursor });
            (Method::POST, "/api/v1/repositories/query".to_owned(), Some(body.to_string().into_bytes()))
        })
        .await
    }

    /// All records of a collection, by their ids.
    async fn records(&self, collection: &str) -> BTreeMap<String, Value> {
        self.all_of(|cursor| {
            let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            (Method::GET, format!("/api/v1/{collection}?limit=1000{cursor}"), None)
        })
        .await
    }

    /// What all pages have together, by the ids.
    async fn all_of(
        &self,
        request: impl Fn(Option<&str>) -> (Method, String, Option<Vec<u8>>),
    ) -> BTreeMap<String, Value> {
        let (mut all, mut cursor) = (BTreeMap::new(), None);
        loop {
            let (method, path, body) = request(cursor.as_deref());
            let page = self.stage.api.call(method, &path, &[], body).await;
            let page = match page {
                Ok(page) if page.status == 200 => page.json(),
                Ok(page) if !matches!(page.status, 503 | 504) => panic!("{path}: {}", page.text),
                // just started again
                Ok(_) | Err(_) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let items = page["items"].as_array().unwrap();
            all.extend(items.iter().map(|item| (item["id"].as_str().unwrap().to_owned(), item.clone())));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return all,
            }
        }
    }
}

/// The samples with this bank, and with waits that suit a test.
fn manifests(dir: &std::path::Path, bank: &Bank, workers: Option<usize>) {
    let workers =
        workers.map(|payments| format!("    workers: {{ payments: {payments} }}\n")).unwrap_or_default();
    manifests::write_samples_with(dir, &pipeline(bank, &workers));
}

/// The pipeline of this bank.
fn pipeline(bank: &Bank, workers: &str) -> String {
    format!(
        "  pipeline:\n{workers}    retry: {{ maxAttempts: 4, initialDelay: 20ms, maxDelay: 500ms }}\n    breaker: {{ threshold: 20, timeout: 500ms }}\n    \
         payments: {{ timeout: 500ms, http: {{ url: \"{0}\" }} }}\n    notifications: {{ webhookUrl: \"{0}/messages\" }}\n",
        bank.url
    )
}
