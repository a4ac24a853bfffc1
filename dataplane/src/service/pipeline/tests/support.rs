//! A small shop: records over SQLite, and a bank that does as it is told.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use crds::{
    service::{messaging::Pipeline as Settings, payments::HttpPayments},
    units::Span,
};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::json;

use super::super::{Parts, Pipeline};
use crate::service::precondition::Precondition;
use crate::{
    security::policy::Policies,
    service::{
        dead_letters::DeadLetters,
        orders::{Catalogue, pricing},
        payment::http::SigningKey,
        records::Records,
    },
};
use engine::{
    clock::Clock,
    tiered::{Tiered, TieredConfig},
};
use model::{
    audit::{AuditFound, AuditQuery},
    budget::Allowance,
    change::{Collection, Idempotency, Origin, UnitOfWork, Written},
    dead_letter,
    entities::{order, payment, product},
    event::Outbox,
    holds,
    json::parse_create,
    key::Key,
    progress::{Progress, Stage},
    query::{Filter, Page, Query, Start},
    record::{Lookup, Record},
    schema::Schema,
    seal::{SealError, Sealer},
    value::{Timestamp, Value},
};
use store::{RecordStore, StoreError, sql::SqlStore};

/// How long an order may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shop.
pub struct Shop {
    pub pipeline: Arc<Pipeline>,
    pub parts: Parts,
    pub bank: Bank,
    file: PathBuf,
}

/// What the bank does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Approve,
    Decline,
    /// Fails so often, to charge and to give back, then approves.
    Fail(u32),
    Refuse,
    /// Sends whoever calls elsewhere, to where every charge is approved.
    Redirect,
    /// Charges only once it was told to give back, and fails to give back so often after that.
    Late(u32),
}

/// A bank on a free port.
#[derive(Clone)]
pub struct Bank(Arc<Mutex<Books>>);

struct Books {
    url: String,
    mood: Mood,
    charged: HashMap<String, String>,
    reversed: Vec<String>,
    /// Reversals of what was charged by then.
    given_back: usize,
    /// How often a charge was asked for.
    asked: usize,
}

/// A store on a server whose clock differs.
struct Elsewhere {
    store: Arc<dyn RecordStore>,
    ahead_ms: i64,
}

#[async_trait]
impl RecordStore for Elsewhere {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        self.store.prepare(collections).await
    }
    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        self.store.read(collection, keys).await
    }
    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        self.store.find(collection, query).await
    }
    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        self.store.commit(work).await
    }
    async fn recall(&self, _: &Collection, _: &Idempotency) -> Result<Option<Vec<Written>>, StoreError> {
        unreachable!("nobody repeats a request")
    }
    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        self.store.audit(query).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
    async fn prune(&self) -> Result<u64, StoreError> {
        self.store.prune().await
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp(self.store.now().await?.0 + self.ahead_ms))
    }
    fn outbox(&self) -> Arc<dyn Outbox> {
        self.store.outbox()
    }
}

struct Plain;

impl Sealer for Plain {
    fn seal(&self, plain: &[u8], _context: &str) -> String {
        String::from_utf8_lossy(plain).into_owned()
    }

    fn open(&self, sealed: &str, _context: &str) -> Result<Vec<u8>, SealError> {
        Ok(sealed.as_bytes().to_vec())
    }
}

/// Settings with short waits.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.retry.initial_delay = Span::from_millis(5);
    settings.retry.max_delay = Span::from_millis(20);
    settings.breaker.threshold = 1_000;
    settings
}

impl Shop {
    pub async fn open(settings: Settings) -> Self {
        Self::open_at(settings, 0).await
    }

    /// A shop whose store is on a server with a clock of its own, by so many ms ahead of this process's.
    pub async fn open_at(mut settings: Settings, ahead_ms: i64) -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        let file = std::env::temp_dir().join(format!("flyweight-{}.db", Key::generate()));
        let store: Arc<dyn RecordStore> = Arc::new(SqlStore::sqlite(&file, Arc::new(Plain)).unwrap());
        let store: Arc<dyn RecordStore> = Arc::new(Elsewhere { store, ahead_ms });
        let all =
            [product::schema(), payment::schema(), order::schema(), dead_letter::schema()].map(collection);
        store.prepare(&all).await.unwrap();
        let [products, payments, orders, letters] = all.map(|one| records(one, &store));
        let products = Arc::new(products);
        let catalogue =
            Catalogue { products: products.clone(), policy: Policies::none().of_pool("products") };
        let orders_schema = orders.collection().schema.clone();
        let clock = orders.clock().clone();
        let orders = Arc::new(orders.completed_by(pricing(orders_schema, Some(catalogue), clock)));
        let letters = Arc::new(DeadLetters::new(Arc::new(letters)));
        let payments = Arc::new(payments);
        let parts = || Parts {
            orders: orders.clone(),
            products: Some(products.clone()),
            payments: Some(payments.clone()),
            templates: None,
            letters: letters.clone(),
            webhook: crate::service::notify::Address::default(),
            provider: crate::service::notify::Address::default(),
            signing_key: SigningKey::new(Some(Arc::new(b"key".to_vec())).into()),
            client: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
        };
        let bank = Bank::open().await;
        settings.payments.http = Some(HttpPayments { url: bank.0.lock().url.clone(), secret_ref: None });
        let pipeline = Pipeline::new(parts(), &settings, &prometheus::Registry::new()).unwrap();
        pipeline.start_queues();
        Self { pipeline, parts: parts(), bank, file }
    }

    pub async fn product(&self, key: &str, stock: i64) {
        let products = self.parts.products.as_ref().unwrap();
        let body = format!(r#"{{"id":"{key}","name":"P","price":"2","stock":{stock}}}"#);
        products
            .create(parse_create(products.schema(), body.as_bytes()).unwrap(), &Origin::of("test"))
            .await
            .unwrap();
    }

    /// Takes a product out of the catalogue.
    pub async fn withdraw(&self, key: &str) {
        let products = self.parts.products.as_ref().unwrap();
        products.delete(&key.parse().unwrap(), &Precondition::None, &Origin::of("test")).await.unwrap();
    }

    pub async fn order(&self, items: &[(&str, i64)]) -> Key {
        self.order_named(Key::generate().as_str(), items).await
    }

    pub async fn order_named(&self, key: &str, items: &[(&str, i64)]) -> Key {
        let items: Vec<_> = items
            .iter()
            .map(|(product, quantity)| json!({ "product_id": product, "quantity": quantity, "price": "2" }))
            .collect();
        let body = json!({ "id": key, "user_id": "u1", "items": items }).to_string();
        let draft = parse_create(self.parts.orders.schema(), body.as_bytes()).unwrap();
        self.parts.orders.create(draft, &Origin::of("test")).await.unwrap().key
    }

    /// Tells of the order again and again until nothing more is to be done with it.
    pub async fn drive(&self, order: &Key) {
        self.drive_until(order, |progress| progress.stage == Stage::Done).await;
    }

    /// Does steps by hand until the order is at a stage.
    pub async fn drive_to(&self, order: &Key, stage: Stage) {
        loop {
            let snapshot = self.pipeline.snapshot(order).await.unwrap().unwrap();
            match snapshot.progress.stage {
                at if at == stage => return,
                Stage::Orders => self.pipeline.hold_stock(&snapshot).await.unwrap(),
                Stage::Payments => self.pipeline.charge(&snapshot).await.unwrap(),
                other => panic!("it is at {other:?}"),
            };
        }
    }

    pub async fn drive_until(&self, order: &Key, done: impl Fn(&Progress) -> bool) {
        let begun = Instant::now();
        loop {
            let progress = self.progress(order).await;
            if done(&progress) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "in vain: {progress:?}");
            self.pipeline.hint(progress.stage, order.clone());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn record(&self, order: &Key) -> Record {
        self.parts.orders.find_one(order).await.unwrap().unwrap()
    }

    async fn progress(&self, order: &Key) -> Progress {
        Progress::of(self.parts.orders.schema(), &self.record(order).await.values)
    }

    /// When a sweep looks after the order.
    pub async fn due_at(&self, order: &Key) -> Timestamp {
        match self.parts.orders.schema().get(&self.record(order).await.values, "due_at") {
            Value::Time(due) => *due,
            other => panic!("due at {other:?}"),
        }
    }

    pub async fn stage(&self, order: &Key) -> Stage {
        self.progress(order).await.stage
    }

    pub async fn status(&self, order: &Key) -> String {
        text(self.parts.orders.schema(), &self.record(order).await, "status")
    }

    pub async fn stock(&self, product: &str) -> i64 {
        let products = self.parts.products.as_ref().unwrap();
        let record = products.find_one(&product.parse().unwrap()).await.unwrap().unwrap();
        holds::stock(products.schema(), &record.values)
    }

    /// The order and the status of each payment.
    pub async fn payments(&self) -> Vec<(String, String)> {
        let payments = self.parts.payments.as_ref().unwrap();
        let all = payments.find(&everything()).await.unwrap().records;
        let shown = |record: &Record| {
            (text(payments.schema(), record, "order_id"), text(payments.schema(), record, "status"))
        };
        all.iter().map(shown).collect()
    }

    /// The key of each letter, with its stage, its subject and its attempts.
    pub async fn letters(&self) -> Vec<(Key, (String, String, i64))> {
        let letters = self.parts.letters.records();
        let all = letters.find(&everything()).await.unwrap().records;
        let shown = |record: &Record| {
            let text = |field| text(letters.schema(), record, field);
            let Value::Int(attempts) = letters.schema().get(&record.values, "attempts") else { panic!() };
            (record.key.clone(), (text("stage"), text("subject"), *attempts))
        };
        all.iter().map(shown).collect()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            _ = std::fs::remove_file(format!("{}{suffix}", self.file.display()));
        }
    }
}

impl Bank {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let books = Books {
            url,
            mood: Mood::Approve,
            charged: HashMap::new(),
            reversed: Vec::new(),
            given_back: 0,
            asked: 0,
        };
        let bank = Self(Arc::new(Mutex::new(books)));
        let routes = Router::new().route("/charges", post(charge)).route("/reversals", post(reverse));
        let routes = routes.route("/approved", post(charge));
        let routes = routes.with_state(bank.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        bank
    }

    pub fn set(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    /// How often a charge was asked for, whatever became of it.
    pub fn asked(&self) -> usize {
        self.0.lock().asked
    }

    /// How many charges were made.
    pub fn charged(&self) -> usize {
        self.0.lock().charged.len()
    }

    /// The traces of the charges.
    pub fn traces(&self) -> Vec<String> {
        self.0.lock().charged.values().cloned().collect()
    }

    /// How many reversals there were of what was charged by then.
    pub fn given_back(&self) -> usize {
        self.0.lock().given_back
    }

    /// How many of the charges were reversed.
    pub fn reversed(&self) -> usize {
        let books = self.0.lock();
        books.charged.keys().filter(|key| books.reversed.contains(key)).count()
    }
}

async fn charge(State(bank): State<Bank>, headers: HeaderMap) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap();
    let (key, trace) = (header("idempotency-key"), header("traceparent"));
    assert!(header("flyweight-signature").starts_with("t="));
    bank.0.lock().asked += 1;
    let too_early = |books: &Books| matches!(books.mood, Mood::Late(_)) && !books.reversed.contains(&key);
    while too_early(&bank.0.lock()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut books = bank.0.lock();
    match books.mood {
        Mood::Decline => {
            return (StatusCode::PAYMENT_REQUIRED, Json(json!({ "reason": "no money" }))).into_response();
        }
        Mood::Redirect => {
            let mut answer = (StatusCode::TEMPORARY_REDIRECT, Json(json!({}))).into_response();
            answer.headers_mut().insert("location", http::HeaderValue::from_static("/approved"));
            return answer;
        }
        Mood::Refuse => return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({}))).into_response(),
        Mood::Fail(left) if left > 0 => {
            books.mood = Mood::Fail(left - 1);
            return (StatusCode::BAD_GATEWAY, Json(json!({}))).into_response();
        }
        Mood::Fail(_) | Mood::Approve | Mood::Late(_) => (),
    }
    let answer = Json(json!({ "transaction_id": format!("t-{key}") }));
    let trace = trace.split('-').nth(1).unwrap().to_owned();
    match books.charged.insert(key, trace) {
        None => (StatusCode::CREATED, answer).into_response(),
        Some(_) => (StatusCode::CONFLICT, answer).into_response(),
    }
}

async fn reverse(State(bank): State<Bank>, headers: HeaderMap) -> StatusCode {
    let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_owned();
    let mut books = bank.0.lock();
    if let Mood::Fail(left @ 1..) = books.mood {
        books.mood = Mood::Fail(left - 1);
        return StatusCode::BAD_GATEWAY;
    }
    if let (Mood::Late(left @ 1..), true) = (books.mood, books.charged.contains_key(&key)) {
        books.mood = Mood::Late(left - 1);
        return StatusCode::BAD_GATEWAY;
    }
    let charged = books.charged.contains_key(&key);
    books.given_back += usize::from(charged);
    books.reversed.push(key);
    StatusCode::OK
}

fn collection(schema: Schema) -> Arc<Collection> {
    let (pool, name) = (schema.collection.clone(), schema.collection.clone());
    Arc::new(Collection {
        pool,
        schema: Arc::new(schema),
        name,
        key_column: "id".to_owned(),
        version_column: Some("version".to_owned()),
        declared: false,
    })
}

fn records(collection: Arc<Collection>, store: &Arc<dyn RecordStore>) -> Records {
    let tiered = Tiered::new(TieredConfig {
        pool: collection.pool.clone(),
        schema: collection.schema.clone(),
        tiers: Vec::new(),
        sealer: None,
        clock: Clock::system(),
        load_deadline: Duration::from_secs(5),
        not_yet_deadline: Duration::from_millis(100),
    });
    Records::new(collection, store.clone(), Arc::new(tiered), Duration::from_secs(5), Arc::new(|| ()))
}

pub fn everything() -> Query {
    Query {
        filter: Filter::All,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 100,
        count: false,
        allowance: Allowance::default(),
    }
}

fn text(schema: &Schema, record: &Record, field: &str) -> String {
    schema.get(&record.values, field).as_text().unwrap_or_default().to_owned()
}
