//! The clients: each writes down what it asks and what it is told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use std::time::Duration;

use harness::{
    client::Answer,
    connection::Connection,
    history::{
        History, Outcome, ledger, register,
        set::Add,
        transfers::{Side, Transfer},
    },
    seed,
};
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use super::world::World;

/// Registers and accounts of each kind.
const REGISTERS: usize = 3;
const ACCOUNTS: usize = 4;
/// What is in an account at first.
pub const BALANCE: i64 = 100;
/// How many pieces there are of each product.
pub const STOCK: i64 = 60;
/// The products, by the first words of their keys, with what a piece of them costs.
pub const PRODUCTS: [(&str, i64, &str); 2] = [("lamp", 3, "EUR"), ("vase", 250, "JPY")];
/// Clients of each kind.
const CLIENTS: usize = 3;
/// How long a client waits for an answer, and at most between two requests.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE_MS: u64 = 60;
/// How often a request with a key is repeated until it is answered.
const REPEATS: usize = 200;

/// What all clients wrote down.
#[derive(Clone, Default)]
pub struct Histories {
    pub registers: History<register::Act>,
    pub transfers: History<Transfer>,
    pub adds: History<Add>,
    pub orders: History<ledger::Order>,
}

/// The paths of the registers: users are rows, products are documents.
pub fn registers(seed: u32) -> Vec<String> {
    let of = |collection: &'static str| {
        (0..REGISTERS).map(move |n| format!("/api/v1/{collection}/register-{seed}-{n}"))
    };
    of("users").chain(of("products")).collect()
}

/// The paths of the accounts.
pub fn accounts(seed: u32) -> Vec<String> {
    (0..ACCOUNTS).map(|n| format!("/api/v1/users/account-{seed}-{n}")).collect()
}

/// What all elements begin with.
pub fn element(seed: u32) -> String {
    format!("element-{seed}-")
}

/// All clients.
pub struct Clients {
    pub histories: Histories,
    url: String,
    seed: u32,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Clients {
    /// Makes what they work on.
    pub async fn open(world: &World, seed: u32, stopped: Arc<AtomicBool>) -> Self {
        let histories = Histories::default();
        let url = world.url().to_owned();
        let clients = Self { histories, url, seed, stopped, connections: Arc::default() };
        let mut client = clients.client(0);
        for path in registers(seed) {
            let (collection, id) = path.rsplit_once('/').unwrap();
            let body = match collection.ends_with("users") {
                true => json!({ "id": id, "email": format!("{id}@example.com"), "name": "first" }),
                false => json!({ "id": id, "name": "first", "price": 1 }),
            };
            let invoked = clients.histories.registers.now();
            client.create(collection, &body).await;
            let act = register::Act::Write {
                key: path.clone(),
                value: "first".to_owned(),
                expected: None,
                version: Some(1),
            };
            clients.histories.registers.note(client.number, invoked, Outcome::Done, act);
        }
        for path in accounts(seed) {
            let id = path.rsplit('/').next().unwrap();
            let profile = json!({ "balance": BALANCE, "by": "" });
            let body =
                json!({ "id": id, "email": format!("{id}@example.com"), "name": "A", "profile": profile });
            client.create("/api/v1/users", &body).await;
        }
        for (name, price, currency) in PRODUCTS {
            let id = format!("{name}-{seed}");
            let body =
                json!({ "id": id, "name": name, "price": price, "currency": currency, "stock": STOCK });
            client.create("/api/v1/products", &body).await;
        }
        clients
    }

    /// Lets them work until they are stopped.
    pub fn start(&self) -> Vec<JoinHandle<()>> {
        let mut working = Vec::new();
        for number in 0..CLIENTS as u32 {
            let [one, two, three, four] =
                std::array::from_fn(|kind| self.client(number * 4 + kind as u32 + 1));
            working.push(tokio::spawn(one.read_and_write()));
            working.push(tokio::spawn(two.transfer()));
            working.push(tokio::spawn(three.add(number)));
            working.push(tokio::spawn(four.order(number)));
        }
        working
    }

    fn client(&self, number: u32) -> Client {
        Client {
            histories: self.histories.clone(),
            url: self.url.clone(),
            seed: self.seed,
            stopped: self.stopped.clone(),
            choices: seed::choices(self.seed.wrapping_add(number)),
            connections: self.connections.clone(),
            number: 0,
            connection: None,
        }
    }
}

/// A client, who asks over one connection as long as that lasts.
struct Client {
    histories: Histories,
    url: String,
    seed: u32,
    stopped: Arc<AtomicBool>,
    choices: StdRng,
    connections: Arc<AtomicUsize>,
    /// Of the connection.
    number: usize,
    connection: Option<Connection>,
}

impl Client {
    /// Asks; none where nothing was answered.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<Answer> {
        if self.connection.is_none() {
            self.number = self.connections.fetch_add(1, Ordering::Relaxed);
            self.connection = Some(Connection::open(&self.url).await);
        }
        let connection = self.connection.as_mut()?;
        let answer = timeout(PATIENCE, connection.try_call(method, path, headers, body)).await;
        let answer = answer.ok().and_then(Result::ok);
        // one that is given up while an answer is due is of no use any more
        if answer.as_ref().is_none_or(|answer| answer.header("connection") == "close") {
            self.connection = None;
        }
        answer
    }

    async fn create(&mut self, path: &str, body: &Value) {
        let created = self.ask(Method::POST, path, &[], body).await;
        assert!(created.as_ref().is_some_and(|answer| answer.status == 201), "{path}: {created:?}");
    }

    /// Waits a moment; whether to go on.
    async fn goes_on(&mut self) -> bool {
        tokio::time::sleep(Duration::from_millis(self.choices.random_range(0..PAUSE_MS))).await;
        !self.stopped.load(Ordering::Relaxed)
    }

    async fn read(&mut self, path: &str) -> Option<Value> {
        let read = self.ask(Method::GET, path, &[], &Value::Null).await?;
        assert!(matches!(read.status, 200 | 502..=504), "{path}: {}: {}", read.status, read.text);
        (read.status == 200).then(|| read.json())
    }

    /// Reads, writes, and compares and sets registers.
    async fn read_and_write(mut self) {
        let (keys, history) = (registers(self.seed), self.histories.registers.clone());
        let mut newest = vec![1; keys.len()];
        while self.goes_on().await {
            let at = self.choices.random_range(0..keys.len());
            let (key, invoked) = (keys[at].clone(), history.now());
            if self.choices.random_bool(0.5) {
                let Some(read) = self.read(&key).await else { continue };
                let (version, value) =
                    (read["version"].as_u64().unwrap(), read["name"].as_str().unwrap().to_owned());
                newest[at] = version;
                history.note(
                    self.number,
                    invoked,
                    Outcome::Done,
                    register::Act::Read { key, value, version },
                );
                continue;
            }
            let value = format!("v{:x}", self.choices.random::<u64>());
            let expected = self.choices.random_bool(0.5).then_some(newest[at]);
            let tag = expected.map(|version| format!("\"{version}\""));
            let headers: Vec<_> = tag.iter().map(|tag| ("if-match", tag.as_str())).collect();
            let answer = self.ask(Method::PATCH, &key, &headers, &json!({ "name": value })).await;
            let outcome = outcome(answer.as_ref(), &[412]);
            let version = answer.and_then(|answer| answer.json()["version"].as_u64());
            let version = version.filter(|_| outcome == Outcome::Done);
            newest[at] = version.unwrap_or(newest[at]);
            history.note(
                self.number,
                invoked,
                outcome,
                register::Act::Write { key, value, expected, version },
            );
        }
    }

    /// Moves money from one account to another.
    async fn transfer(mut self) {
        let (paths, history) = (accounts(self.seed), self.histories.transfers.clone());
        while self.goes_on().await {
            let from = self.choices.random_range(0..paths.len());
            let to = (from + self.choices.random_range(1..paths.len())) % paths.len();
            let (id, amount) =
                (format!("t{:x}", self.choices.random::<u64>()), self.choices.random_range(1..10));
            let invoked = history.now();
            let Some(one) = self.read(&paths[from]).await else { continue };
            let Some(two) = self.read(&paths[to]).await else { continue };
            let side = |read: &Value, path: &str, more: i64| Side {
                account: path.to_owned(),
                read: read["version"].as_u64().unwrap(),
                balance: read["profile"]["balance"].as_i64().unwrap() + more,
            };
            let sides = [side(&one, &paths[from], -amount), side(&two, &paths[to], amount)];
            let operations = sides.each_ref().map(|Side { account, read, balance }| {
                let account = account.rsplit('/').next().unwrap();
                let profile = json!({ "balance": balance, "by": id });
                json!({ "op": "patch", "id": account, "version": read, "data": { "profile": profile } })
            });
            let body = json!({ "atomic": true, "operations": operations });
            let answer = self.ask(Method::POST, "/api/v1/users/batch", &[], &body).await;
            let is_done = answer.as_ref().is_some_and(|answer| {
                let results = answer.json()["results"].as_array().cloned().unwrap_or_default();
                results.iter().all(|result| result["status"] == 200)
            });
            let outcome = match outcome(answer.as_ref(), &[409, 412]) {
                Outcome::Done if !is_done => Outcome::Refused,
                outcome => outcome,
            };
            history.note(self.number, invoked, outcome, Transfer { id, sides });
        }
    }

    /// Adds elements: documents, of which every other one is asked for under a key until it is there, and
    /// rows without a key of their own, which are committed in groups.
    async fn add(mut self, client: u32) {
        let history = self.histories.adds.clone();
        let mut count = 0;
        while self.goes_on().await {
            count += 1;
            let element = format!("{}{client}-{count}", element(self.seed));
            let invoked = history.now();
            let outcome = match count % 3 {
                0 => {
                    let body = json!({ "email": format!("{element}@example.com"), "name": "E" });
                    outcome(self.ask(Method::POST, "/api/v1/users", &[], &body).await.as_ref(), &[])
                }
                1 => {
                    let body = json!({ "id": element, "name": "E", "price": 1 });
                    outcome(self.ask(Method::POST, "/api/v1/products", &[], &body).await.as_ref(), &[])
                }
                _ => self.insist(&element).await,
            };
            history.note(self.number, invoked, outcome, Add(element));
        }
    }

    /// Asks for an element under a key, again and again: a repeat is never told that it is there already.
    async fn insist(&mut self, element: &str) -> Outcome {
        let body = json!({ "id": element, "name": "E", "price": 1 });
        for _ in 0..REPEATS {
            let answer =
                self.ask(Method::POST, "/api/v1/products", &[("idempotency-key", element)], &body).await;
            match answer.map(|answer| (answer.status, answer.text)) {
                Some((201, _)) => return Outcome::Done,
                None | Some((502..=504, _)) => tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await,
                Some((status, text)) => panic!("{element}: a repeat is answered {status}: {text}"),
            }
        }
        Outcome::Unknown
    }

    /// Orders, and calls some orders off.
    async fn order(mut self, client: u32) {
        let history = self.histories.orders.clone();
        let mut count = 0;
        while self.goes_on().await {
            count += 1;
            // one in so many finds something left: what is refused is of interest too
            tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
            let id = format!("order-{}-{client}-{count}", self.seed);
            let (name, ..) = PRODUCTS[self.choices.random_range(0..PRODUCTS.len())];
            let (product, quantity) = (format!("{name}-{}", self.seed), self.choices.random_range(1..4));
            let items = [json!({ "product_id": product, "quantity": quantity })];
            let body = json!({ "id": id, "user_id": "u", "items": items });
            let invoked = history.now();
            let answer = self.ask(Method::POST, "/api/v1/orders", &[], &body).await;
            let outcome = outcome(answer.as_ref(), &[]);
            history.note(self.number, invoked, outcome, ledger::Order { id: id.clone(), product, quantity });
            if self.choices.random_bool(0.2) {
                let path = format!("/api/v1/orders/{id}/cancel");
                _ = self.ask(Method::POST, &path, &[], &Value::Null).await;
            }
        }
    }
}

/// What an answer says of a request that may be refused by one of these, too.
fn outcome(answer: Option<&Answer>, refusals: &[u16]) -> Outcome {
    let Some(answer) = answer else { return Outcome::Unknown };
    match answer.status {
        200..=299 => Outcome::Done,
        // what is told to be tried again was not done
        503 => Outcome::Refused,
        502 | 504 => Outcome::Unknown,
        status if refusals.contains(&status) => Outcome::Refused,
        status => panic!("answered {status}: {}", answer.text),
    }
}
