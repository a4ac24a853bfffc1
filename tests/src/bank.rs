//! A payment provider that suites control: it charges once for each key, and fails, hangs, declines or
//! refuses as it is told. It also takes the messages to customers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

/// How the bank behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mood {
    /// How many of a hundred calls fail without effect.
    pub fail_percent: u32,
    /// How many of a hundred charges are made, but never answered.
    pub hang_percent: u32,
    /// Whether charges of users whose id starts with `poison` are refused as wrong.
    pub refuse_poison: bool,
    /// How long each charge takes.
    pub delay: Duration,
}

/// A bank on a free port. Users whose id starts with `poor` are declined.
#[derive(Clone)]
pub struct Bank {
    /// Where it is.
    pub url: String,
    books: Arc<Mutex<Books>>,
}

/// A charge that was made.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The order that it is for.
    pub order: String,
    /// How much.
    pub amount: String,
    /// Of which currency.
    pub currency: String,
}

#[derive(Default)]
struct Books {
    mood: Mood,
    calls: u64,
    /// Charges that are being made, and the most at the same time since that was asked.
    under_way: usize,
    most: usize,
    keys: BTreeSet<String>,
    /// By their keys.
    charged: BTreeMap<String, Charge>,
    reversed: BTreeSet<String>,
    /// The keys of the messages to customers.
    told: BTreeSet<String>,
}

impl Bank {
    /// Opens a bank.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("no port for the bank: {error}"));
        let port = listener.local_addr().map(|addr| addr.port()).unwrap_or_default();
        let bank = Self { url: format!("http://127.0.0.1:{port}"), books: Arc::default() };
        let routes = Router::new()
            .route("/charges", post(charge))
            .route("/reversals", post(reverse))
            .route("/messages", post(tell));
        let routes = routes.with_state(bank.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        bank
    }

    /// Changes how it behaves.
    pub fn set(&self, mood: Mood) {
        self.books().mood = mood;
    }

    /// Calls for a charge so far, and of how many different charges.
    pub fn calls(&self) -> (u64, u64) {
        let books = self.books();
        (books.calls, books.keys.len() as u64)
    }

    /// The most charges that were being made at the same time since this was asked.
    pub fn most_at_once(&self) -> usize {
        let mut books = self.books();
        let most = books.most;
        books.most = books.under_way;
        most
    }

    /// What customers have paid and not got back: for each order the amounts.
    pub fn paid(&self) -> BTreeMap<String, Vec<String>> {
        let mut paid: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for Charge { order, amount, currency: _ } in self.charges() {
            paid.entry(order).or_default().push(amount);
        }
        paid
    }

    /// The charges that were not given back.
    pub fn charges(&self) -> Vec<Charge> {
        let books = self.books();
        let kept = books.charged.iter().filter(|(key, _)| !books.reversed.contains(*key));
        kept.map(|(_, charge)| charge.clone()).collect()
    }

    /// The keys of the messages that customers got: one of them twice is one message.
    pub fn told(&self) -> BTreeSet<String> {
        self.books().told.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A charge that is being made, also where the caller hangs up.
struct UnderWay(Bank);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.books().under_way -= 1;
    }
}

async fn charge(State(bank): State<Bank>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    let (key, user) = (key_of(&headers), text("user_id"));
    let delay = {
        let mut books = bank.books();
        books.under_way += 1;
        books.most = books.most.max(books.under_way);
        books.mood.delay
    };
    let under_way = UnderWay(bank.clone());
    tokio::time::sleep(delay).await;
    drop(under_way);
    let answer = {
        let mut books = bank.books();
        books.calls += 1;
        books.keys.insert(key.clone());
        let mood = books.mood;
        if chance(mood.fail_percent) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        if user.starts_with("poison") && mood.refuse_poison {
            return StatusCode::UNPROCESSABLE_ENTITY.into_response();
        }
        if user.starts_with("poor") || books.reversed.contains(&key) {
            return (StatusCode::PAYMENT_REQUIRED, Json(json!({ "reason": "no money" }))).into_response();
        }
        let made = Charge { order: text("order_id"), amount: text("amount"), currency: text("currency") };
        let again = books.charged.insert(key.clone(), made).is_some();
        let status = if again { StatusCode::CONFLICT } else { StatusCode::CREATED };
        (!chance(mood.hang_percent)).then(|| (status, Json(json!({ "transaction_id": format!("t-{key}") }))))
    };
    match answer {
        Some(answer) => answer.into_response(),
        None => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
    }
}

async fn reverse(State(bank): State<Bank>, headers: HeaderMap) -> StatusCode {
    let mut books = bank.books();
    if chance(books.mood.fail_percent) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let key = key_of(&headers);
    let found = books.charged.contains_key(&key);
    books.reversed.insert(key);
    if found { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

/// Not a bank's business, but it is at hand: takes messages to customers.
async fn tell(State(bank): State<Bank>, headers: HeaderMap) -> StatusCode {
    match bank.books().told.insert(key_of(&headers)) {
        true => StatusCode::CREATED,
        false => StatusCode::CONFLICT,
    }
}

fn key_of(headers: &HeaderMap) -> String {
    headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn chance(percent: u32) -> bool {
    rand::random_range(0..100) < percent
}
