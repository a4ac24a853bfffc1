//! Writes, events and the relay over MySQL and Kafka, beside the same work written by hand on the same MySQL,
//! all on the same cores.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use sqlx::{
    AssertSqlSafe, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    client::{Connection, LINES},
    servers::Server,
};

/// Clients at the same time, by hand and through the API.
const CLIENTS: usize = 32;
/// Rounds that count. One more comes before them: a broker that has just started spends up to a third of the
/// processors on compiling itself.
const ROUNDS: usize = 3;
/// What one round does.
const USERS: usize = 4_000;
const INSERTS: usize = 4_000;
const EVENTS: usize = 100_000;
/// Events in one request, and requests at the same time.
const EVENTS_OF_A_REQUEST: usize = 500;
const SENDERS: usize = 8;
const PRODUCTS: usize = 1_000;
/// Products of which each has one event, so that none is spared.
const PRODUCTS_MANY: usize = 20_000;
/// What waits for the relay when it begins.
const BACKLOG: usize = 100_000;
const BATCH: usize = 1_000;
/// What must hold.
const EVENTS_MIN: f64 = 10.0;
const USERS_MIN: f64 = 0.8;
const RELAY_MIN: f64 = 20_000.0;
const JSON: &str = "application/json";
const MANIFESTS: &str = "
apiVersion: flyweight.dev/v1alpha1
kind: CacheTier
metadata: { name: hot }
spec: { memory: { maxBytes: 64Mi }, ttl: 60s }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: { name: users }
spec: { entity: User, tierRefs: [{ name: hot }] }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: { name: products }
spec: { entity: Product, tierRefs: [{ name: hot }], source: { mysql: { backendRef: { name: mysql } } } }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightService
metadata: { name: bench }
spec:
  image: flyweight/dataplane:bench
  poolRefs: [{ name: users }, { name: products }]
  replicaGroups: [{ name: main, replicas: 1 }]
  backends:
    - { name: mysql, mysql: { secretRef: { name: bench-mysql }, maxConnections: 32 } }
    - { name: kafka, kafka: { secretRef: { name: bench-kafka } } }
  ingest: { batchFlushInterval: 100ms }
  security: { rateLimit: { requestsPerSecond: 10000000, burst: 10000000 } }
";

/// The servers, and a way to each.
struct World {
    mysql: MySqlPool,
    api: SocketAddr,
    kafka: Server,
    _mysql: Server,
    _api: Server,
}

/// The tables of throughput.
pub fn compare() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let world = World::start().await?;
        println!(
            "\n## Throughput over MySQL and Kafka, {CLIENTS} clients; servers, data plane and clients share two cores\n"
        );
        let (users, events, relay) = (users(&world).await?, events(&world).await?, relay(&world).await?);
        ensure!(users >= USERS_MIN, "POST /users is slower than {USERS_MIN} of the transaction by hand");
        ensure!(events >= EVENTS_MIN, "POST /events is less than {EVENTS_MIN} times as fast as INSERTs");
        ensure!(relay >= RELAY_MIN, "the relay publishes less than {RELAY_MIN} events a second");
        Ok(())
    })
}

impl World {
    async fn start() -> Result<Self> {
        let (mysql, kafka) = (Server::real("mysql")?, Server::real("kafka")?);
        let url = format!("mysql://shop:shop-secret@{}/shop", mysql.addr);
        let backends = [("mysql", url.clone()), ("kafka", kafka.addr.to_string())];
        let api = Server::flyweight("0-1", MANIFESTS, None, &backends)?;
        let options: MySqlConnectOptions = url.parse()?;
        let pool = MySqlPoolOptions::new().max_connections(CLIENTS as u32).connect_with(options).await?;
        sqlx::query("CREATE DATABASE shop_hand").execute(&pool).await?;
        for table in ["users", "flyweight_outbox", "flyweight_audit"] {
            let like = AssertSqlSafe(format!("CREATE TABLE shop_hand.{table} LIKE shop.{table}"));
            sqlx::query(like).execute(&pool).await?;
        }
        let price_events =
            "CREATE TABLE shop_hand.price_events (id CHAR(36) PRIMARY KEY, product_id VARCHAR(255) NOT NULL,
            price DECIMAL(18, 4) NOT NULL, stock BIGINT NOT NULL, at DATETIME(3) NOT NULL)";
        sqlx::query(price_events).execute(&pool).await?;
        Ok(Self { mysql: pool, api: api.addr, kafka, _mysql: mysql, _api: api })
    }

    /// How many rows a table has.
    async fn rows(&self, table: &'static str) -> Result<i64> {
        let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        Ok(sqlx::query_scalar(count).fetch_one(&self.mysql).await?)
    }

    /// Waits until the relay has published everything.
    async fn until_published(&self) -> Result<()> {
        // the newest, which goes last. To count them, or to look for the oldest, takes the server as long as
        // publishing some hundred: it goes over those that were deleted a moment ago
        let newest = "SELECT seq FROM flyweight_outbox ORDER BY seq DESC LIMIT 1";
        while sqlx::query(newest).fetch_optional(&self.mysql).await?.is_some() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Hands out what is to be done, one piece after the other.
struct Pieces {
    next: AtomicUsize,
    total: usize,
}

impl Pieces {
    fn new(total: usize) -> Self {
        Self { next: AtomicUsize::new(0), total }
    }

    fn next(&self) -> Option<usize> {
        let piece = self.next.fetch_add(1, Ordering::Relaxed);
        (piece < self.total).then_some(piece)
    }
}

/// So many a second.
fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

/// The median of all rounds but the first.
fn median(mut figures: Vec<f64>) -> f64 {
    let mut figures = figures.split_off(1);
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Creating users: the API, and its transaction by hand. Gives their ratio.
async fn users(world: &World) -> Result<f64> {
    let (mut by_hand, mut by_api) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        by_hand.push(users_by_hand(world).await?);
        by_api.push(users_by_api(world).await?);
        world.until_published().await?;
    }
    let (by_hand, by_api) = (median(by_hand), median(by_api));
    println!("| creating users | users/s | ratio |");
    println!("|---|---:|---:|");
    println!(
        "| the same transaction by hand, sqlx: BEGIN, INSERT of user, event and audit entry, COMMIT | {by_hand:.0} | 1.00 |"
    );
    println!(
        "| **`POST /users`**, its events published to Kafka meanwhile | {by_api:.0} | {:.2} |\n",
        by_api / by_hand
    );
    Ok(by_api / by_hand)
}

async fn users_by_api(world: &World) -> Result<f64> {
    let (pieces, start) = (Pieces::new(USERS), Instant::now());
    let client = async || {
        let mut connection = Connection::open(world.api).await?;
        while pieces.next().is_some() {
            let body =
                json!({ "email": format!("{}@example.com", Uuid::now_v7()), "name": "Ada" }).to_string();
            let status = connection.post("/api/v1/users", JSON, body.as_bytes()).await?;
            ensure!(status == 201, "a user was answered with {status}");
        }
        Ok(())
    };
    try_join_all((0..CLIENTS).map(|_| client())).await?;
    Ok(rate(USERS, start))
}

async fn users_by_hand(world: &World) -> Result<f64> {
    let (pieces, start) = (Pieces::new(USERS), Instant::now());
    let client = async || {
        while pieces.next().is_some() {
            user_by_hand(world).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..CLIENTS).map(|_| client())).await?;
    Ok(rate(USERS, start))
}

async fn user_by_hand(world: &World) -> Result<()> {
    let (id, event) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let email = format!("{id}@example.com");
    let user = json!({ "id": id, "version": 1, "email": email, "name": "Ada" }).to_string();
    let envelope =
        json!({ "id": event, "entity": "user", "type": "user.created", "key": id, "version": 1, "data": user })
            .to_string();
    let mut transaction = world.mysql.begin().await?;
    let insert = "INSERT INTO shop_hand.users (id, version, created_at, updated_at, email, name) VALUES (?, 1, NOW(3), NOW(3), ?, 'Ada')";
    sqlx::query(insert).bind(&id).bind(&email).execute(&mut *transaction).await?;
    let insert = "INSERT INTO shop_hand.flyweight_outbox (event_id, shard, record_key, committed_at, envelope) VALUES (?, 1, ?, NOW(3), ?)";
    sqlx::query(insert).bind(&event).bind(&id).bind(&envelope).execute(&mut *transaction).await?;
    let insert =
        "INSERT INTO shop_hand.flyweight_audit (event_id, at, actor, entity, record_key, action, version, after_json)
        VALUES (?, NOW(3), 'bench', 'user', ?, 'created', 1, ?)";
    sqlx::query(insert).bind(&event).bind(&id).bind(&user).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

/// Taking events: the API, and one INSERT with its commit for each. Gives their ratio.
async fn events(world: &World) -> Result<f64> {
    let product = |n| json!({ "id": format!("p-{n}"), "name": "P", "price": 1 });
    fill(world, "products", PRODUCTS, product).await?;
    world.until_published().await?;
    let (mut alone, mut by_hand) = (Vec::new(), Vec::new());
    let (mut single, mut accepted, mut applied) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        alone.push(inserts_by_hand(world, 1).await?);
        by_hand.push(inserts_by_hand(world, CLIENTS).await?);
        single.push(single_events(world, 2 * round).await?);
        let (taken, done) = batches_of_events(world, 2 * round + 1, EVENTS, PRODUCTS).await?;
        accepted.push(taken);
        applied.push(done);
    }
    fill(world, "products", PRODUCTS_MANY - PRODUCTS, |n| product(n + PRODUCTS)).await?;
    world.until_published().await?;
    let (_, spared_none) = batches_of_events(world, 2 * ROUNDS + 2, PRODUCTS_MANY, PRODUCTS_MANY).await?;
    let (alone, by_hand) = (median(alone), median(by_hand));
    let (single, accepted, applied) = (median(single), median(accepted), median(applied));
    println!("| taking events of price and stock | events/s | ratio |");
    println!("|---|---:|---:|");
    println!(
        "| one INSERT with its commit for each, one after the other | {alone:.0} | {:.2} |",
        alone / by_hand
    );
    println!("| the same, {CLIENTS} connections at once | {by_hand:.0} | 1.00 |");
    println!("| `POST /events`, one in each request, accepted | {single:.0} | {:.2} |", single / by_hand);
    println!(
        "| **`POST /events`**, {EVENTS_OF_A_REQUEST} in each request, accepted | {accepted:.0} | {:.2} |",
        accepted / by_hand
    );
    println!(
        "| the same, until all are applied to {PRODUCTS} products | {applied:.0} | {:.2} |",
        applied / by_hand
    );
    println!(
        "| {PRODUCTS_MANY} events of as many products, until all are applied | {spared_none:.0} | {:.2} |\n",
        spared_none / by_hand
    );
    Ok(accepted / by_hand)
}

async fn inserts_by_hand(world: &World, connections: usize) -> Result<f64> {
    let (pieces, start) = (Pieces::new(INSERTS), Instant::now());
    let client = async || {
        while let Some(n) = pieces.next() {
            let insert = "INSERT INTO shop_hand.price_events (id, product_id, price, stock, at) VALUES (?, ?, ?, ?, NOW(3))";
            let insert =
                sqlx::query(insert).bind(Uuid::now_v7().to_string()).bind(format!("p-{}", n % PRODUCTS));
            insert.bind(n as i64).bind(n as i64).execute(&world.mysql).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..connections).map(|_| client())).await?;
    Ok(rate(INSERTS, start))
}

/// The event of that number, of one of so many products.
fn event(n: usize, round: usize, products: usize) -> String {
    // a later round is a later hour, and its last event of a product is its newest
    let at = format!("2026-01-01T{round:02}:{:02}:{:02}.{:03}Z", n / 60_000, n / 1_000 % 60, n % 1_000);
    json!({ "product_id": format!("p-{}", n % products), "price": n % 97 + 1, "stock": n, "at": at })
        .to_string()
}

async fn single_events(world: &World, round: usize) -> Result<f64> {
    let (pieces, start) = (Pieces::new(INSERTS), Instant::now());
    let client = async || {
        let mut connection = Connection::open(world.api).await?;
        while let Some(n) = pieces.next() {
            send_events(&mut connection, JSON, event(n, round, PRODUCTS).as_bytes()).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..CLIENTS).map(|_| client())).await?;
    let rate = rate(INSERTS, start);
    until_applied(world, INSERTS, PRODUCTS).await?;
    Ok(rate)
}

/// Sends events until they are accepted: a full queue is told with 503, then the sender comes again.
async fn send_events(connection: &mut Connection, kind: &str, body: &[u8]) -> Result<()> {
    loop {
        match connection.post("/api/v1/events", kind, body).await? {
            202 => return Ok(()),
            503 => sleep(Duration::from_millis(20)).await,
            status => anyhow::bail!("events were answered with {status}"),
        }
    }
}

/// Accepted a second, and applied a second.
async fn batches_of_events(
    world: &World,
    round: usize,
    events: usize,
    products: usize,
) -> Result<(f64, f64)> {
    let (pieces, start) = (Pieces::new(events / EVENTS_OF_A_REQUEST), Instant::now());
    let client = async || {
        let mut connection = Connection::open(world.api).await?;
        while let Some(batch) = pieces.next() {
            let numbers = batch * EVENTS_OF_A_REQUEST..(batch + 1) * EVENTS_OF_A_REQUEST;
            let lines = numbers.map(|n| event(n, round, products));
            let body = lines.collect::<Vec<_>>().join("\n");
            send_events(&mut connection, LINES, body.as_bytes()).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..SENDERS).map(|_| client())).await?;
    let accepted = rate(events, start);
    until_applied(world, events, products).await?;
    Ok((accepted, rate(events, start)))
}

/// Waits until each product has the stock of its newest event: those of so many events are the last numbers.
async fn until_applied(world: &World, events: usize, products: usize) -> Result<()> {
    let done = async || -> Result<i64> {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM products WHERE stock BETWEEN ? AND ?");
        Ok(count.bind((events - products) as i64).bind(events as i64 - 1).fetch_one(&world.mysql).await?)
    };
    while done().await? < products as i64 {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Publishing what waits: the backlog that grew while Kafka was away. Gives events a second.
async fn relay(world: &World) -> Result<f64> {
    let mut published = Vec::new();
    for _ in 0..=ROUNDS {
        published.push(backlog(world).await?);
    }
    let published = median(published);
    println!("| relay from MySQL to Kafka | events/s |");
    println!("|---|---:|");
    println!("| {BACKLOG} events that waited while Kafka was away | {published:.0} |");
    Ok(published)
}

async fn backlog(world: &World) -> Result<f64> {
    world.until_published().await?;
    world.kafka.freeze(true)?;
    fill(
        world,
        "users",
        BACKLOG,
        |n| json!({ "email": format!("{n}-{}@example.com", Uuid::now_v7()), "name": "Ada" }),
    )
    .await?;
    let backlog = world.rows("flyweight_outbox").await?;
    ensure!(backlog >= BACKLOG as i64, "the relay published while Kafka was away");
    world.kafka.freeze(false)?;
    // from the first that is published on: until then it waits for Kafka
    let mut left = backlog;
    while left == backlog {
        sleep(Duration::from_millis(50)).await;
        left = world.rows("flyweight_outbox").await?;
    }
    let (start, first) = (Instant::now(), left);
    world.until_published().await?;
    Ok(rate(first as usize, start))
}

/// Creates records in batches.
async fn fill(
    world: &World,
    collection: &str,
    count: usize,
    body: impl Fn(usize) -> serde_json::Value,
) -> Result<()> {
    let mut connection = Connection::open(world.api).await?;
    for batch in 0..count / BATCH {
        let operations: Vec<_> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|n| json!({ "op": "create", "data": body(n) }))
            .collect();
        let body = json!({ "atomic": true, "operations": operations }).to_string();
        let status = connection.post(&format!("/api/v1/{collection}/batch"), JSON, body.as_bytes()).await?;
        ensure!(status == 207 || status == 200, "a batch of {collection} was answered with {status}");
    }
    Ok(())
}
