//! Passwords, accounts and addresses are rotated under traffic, on real servers: no request fails, and the
//! former ones are not needed any more.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use harness::{client::Api, server::run_sql, wait};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

/// How long a process may take to go over to changed content.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

const STORES: &str = "/api/v1/pools/stores";

/// Reads and writes of MySQL, MongoDB and Redis that go on until they are stopped.
struct Traffic {
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_rotate_under_traffic_without_a_failed_request() {
    let Some(stage) = Stage::real("rotation of Secrets").await else { return };
    let admin = Api::at(&stage.data_plane.admin);
    let traffic = Traffic::start(&stage.api);
    traffic.pass(100).await;

    mysql(&stage, &admin, &traffic).await;
    redis(&stage, &admin, &traffic).await;
    for (backend, url) in [("mongodb", mongo_url(&stage)), ("kafka", kafka_url(&stage))] {
        stage.rotate(backend, &url.replace("127.0.0.1", "localhost"));
        taken(&admin, backend, 1).await;
        traffic.pass(100).await;
    }
    let answered = traffic.end().await;
    crate::feed::healthy(&stage.api).await;
    crate::feed::drained(&stage.api, Duration::from_secs(30)).await;
    let metrics = admin.get("/metrics").await.text;
    for line in [
        "flyweight_secret_rotations_total{secret=\"backends/mysql\"} 2",
        "flyweight_secret_in_use{secret=\"backends/mysql\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing");
    }
    eprintln!("6 rotations, 3 contents refused, {answered} requests, 0 failed");
}

/// A Secret that leads to a database without one of the tables: that pool alone goes away, with its reason,
/// and comes back when the table is there, or when the Secret is what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_to_a_database_that_lacks_a_table_takes_that_pool_alone_away() {
    let Some(stage) = Stage::real("rotation to a database that lacks a table").await else { return };
    let (api, admin) = (&stage.api, Api::at(&stage.data_plane.admin));
    let url = stage.servers.as_ref().unwrap().mysql.url();
    let other = format!("{url}_other");
    tokio::task::block_in_place(|| {
        run_sql(&url.replace("shop:shop-secret", "root:root-secret"), "CREATE DATABASE shop_other");
    });
    let shop = |code: &str| json!({ "code": code, "city": "Berlin" });
    assert_eq!(api.post(STORES, &shop("first")).await.status, 201);
    assert_eq!(api.get(&format!("{STORES}/first")).await.status, 200);

    stage.rotate("mysql", &other);
    taken(&admin, "mysql", 1).await;
    let away = wait::until("the pool to be away", TAKEN_WITHIN, async || {
        let answer = api.get(&format!("{STORES}/first")).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(away.json()["type"], "urn:flyweight:problem:pool-unavailable", "{}", away.text);
    assert!(away.json()["detail"].as_str().unwrap().contains("no table stores"), "{}", away.text);
    let health = api.get("/api/v1/health").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("degraded")), "{}", health.text);
    assert_eq!(health.json()["unavailable"]["stores"]["reason"], "TableMissing", "{}", health.text);
    assert_eq!(unavailable(&admin).await["reason"], "TableMissing");
    assert_eq!(admin.get("/readyz").await.status, 200, "the others are served");
    let user = json!({ "id": "ann", "email": "ann@example.com", "name": "Ann" });
    assert_eq!(api.post("/api/v1/users", &user).await.status, 201, "the same database");

    let table = std::fs::read_to_string(harness::root().join("configs/sql/stores.sql")).unwrap();
    tokio::task::block_in_place(|| run_sql(&other, &table));
    wait::until("the pool to be back", TAKEN_WITHIN, async || {
        (api.post(STORES, &shop("second")).await.status == 201).then_some(())
    })
    .await;
    assert_eq!(unavailable(&admin).await, Value::Null);
    assert_eq!(api.get("/api/v1/health").await.json()["unavailable"], json!({}));

    tokio::task::block_in_place(|| run_sql(&other, "DROP TABLE stores"));
    wait::until("the pool to be away again", TAKEN_WITHIN, async || {
        (api.post(STORES, &shop("third")).await.status == 503).then_some(())
    })
    .await;
    stage.rotate("mysql", &url);
    taken(&admin, "mysql", 2).await;
    wait::until("the pool to be back, where it was", TAKEN_WITHIN, async || {
        (api.get(&format!("{STORES}/first")).await.status != 503).then_some(())
    })
    .await;
    assert_eq!(api.get(&format!("{STORES}/first")).await.json()["city"], "Berlin");
    assert_eq!(unavailable(&admin).await, Value::Null);
}

/// Why the process does not serve the stores; null where it does.
async fn unavailable(admin: &Api) -> Value {
    let status = admin.get("/status").await.json();
    let pools = status["pools"].as_array().cloned().unwrap_or_default();
    pools.into_iter().find(|pool| pool["name"] == "stores").unwrap_or_default()["unavailable"].clone()
}

/// Another password for the account, with the former one kept until the change is through; something that
/// does not work; another account.
async fn mysql(stage: &Stage, admin: &Api, traffic: &Traffic) {
    let url = stage.servers.as_ref().unwrap().mysql.url();
    let sql = |statements: &str| {
        let root = url.replace("shop:shop-secret", "root:root-secret");
        tokio::task::block_in_place(|| run_sql(&root, statements));
    };
    sql("ALTER USER 'shop'@'%' IDENTIFIED BY 'second-secret' RETAIN CURRENT PASSWORD");
    let second = url.replace("shop-secret", "second-secret");
    stage.rotate("mysql", &second);
    taken(admin, "mysql", 1).await;
    sql("ALTER USER 'shop'@'%' DISCARD OLD PASSWORD");
    traffic.pass(100).await;

    for wrong in [url.clone(), second.replace("127.0.0.1", "127.0.0.2"), "mysql://".to_owned()] {
        stage.rotate("mysql", &wrong);
        let problem = wait::until("the problem to be said", TAKEN_WITHIN, async || {
            state(admin, "mysql").await["problem"].as_str().map(str::to_owned)
        })
        .await;
        assert!(!problem.contains("secret"), "{problem}");
        assert!(
            admin.get("/metrics").await.text.contains("flyweight_secret_in_use{secret=\"backends/mysql\"} 0")
        );
        traffic.pass(50).await;
        stage.rotate("mysql", &second);
        wait::until("the problem to be over", TAKEN_WITHIN, async || {
            state(admin, "mysql").await["problem"].is_null().then_some(())
        })
        .await;
    }
    assert_eq!(state(admin, "mysql").await["rotations"], 1, "what does not work was taken over");

    sql("CREATE USER 'shop2'@'%' IDENTIFIED BY 'third-secret'; GRANT ALL ON `shop`.* TO 'shop2'@'%'");
    stage.rotate("mysql", &url.replace("shop:shop-secret", "shop2:third-secret"));
    taken(admin, "mysql", 2).await;
    // its connections are given up as the calls on them end
    sql("DROP USER 'shop'@'%'");
    traffic.pass(100).await;
}

/// From no account to one, to its next password.
async fn redis(stage: &Stage, admin: &Api, traffic: &Traffic) {
    let url = stage.servers.as_ref().unwrap().redis.url();
    let address = url.trim_start_matches("redis://").trim_end_matches("/0").to_owned();
    let mut connection = TcpStream::connect(&address).unwrap();
    let mut command = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let text: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        connection.write_all(format!("*{}\r\n{text}", words.len()).as_bytes()).unwrap();
        let mut answer = [0; 64];
        let length = connection.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"+OK"), "{}", String::from_utf8_lossy(&answer[..length]));
    };
    command("ACL SETUSER shop on >one ~* &* +@all");
    stage.rotate("redis", &format!("redis://shop:one@{address}/0"));
    taken(admin, "redis", 1).await;
    command("ACL SETUSER shop >two");
    stage.rotate("redis", &format!("redis://shop:two@{address}/0"));
    taken(admin, "redis", 2).await;
    command("ACL SETUSER shop <one");
    command("ACL SETUSER default resetpass");
    traffic.pass(100).await;
    wait::until("the shared tier, by the new password", Duration::from_secs(15), async || {
        let metrics = admin.get("/metrics").await.text;
        metrics.contains("flyweight_backend_reachable{backend=\"redis\"} 1").then_some(())
    })
    .await;
}

fn mongo_url(stage: &Stage) -> String {
    stage.servers.as_ref().unwrap().mongo.url()
}

fn kafka_url(stage: &Stage) -> String {
    stage.servers.as_ref().unwrap().kafka.url()
}

/// What the process says of a backend's Secret.
async fn state(admin: &Api, backend: &str) -> Value {
    let name = format!("backends/{backend}");
    let status = admin.get("/status").await.json();
    let secrets = status["secrets"].as_array().cloned().unwrap_or_default();
    secrets.into_iter().find(|secret| secret["name"] == name.as_str()).unwrap_or_default()
}

/// Waits until so many contents were taken over.
async fn taken(admin: &Api, backend: &str, rotations: u64) {
    wait::until(&format!("the Secret of {backend} to be in use"), TAKEN_WITHIN, async || {
        (state(admin, backend).await["rotations"] == rotations).then_some(())
    })
    .await;
}

impl Traffic {
    fn start(api: &Api) -> Self {
        let (answered, failures, stop) = (Arc::default(), Arc::default(), Arc::default());
        let mut traffic = Self { answered, failures, stop, clients: Vec::new() };
        traffic.clients = (0..4).map(|client| tokio::spawn(traffic.client(api.clone(), client))).collect();
        traffic
    }

    /// Creates a user or a product, reads it, changes it and lists.
    fn client(&self, api: Api, client: u32) -> impl Future<Output = ()> + Send + use<> {
        let (answered, failures, stop) = (self.answered.clone(), self.failures.clone(), self.stop.clone());
        async move {
            let call = async |method: Method, path: &str, body: Option<Value>| {
                let body = body.map(|body| body.to_string().into_bytes());
                match api.call(method.clone(), path, &[], body).await {
                    Ok(answer) if answer.status < 300 => _ = answered.fetch_add(1, Ordering::Relaxed),
                    Ok(answer) => failures.lock().unwrap().push(format!("{method} {path}: {}", answer.text)),
                    Err(error) => failures.lock().unwrap().push(format!("{method} {path}: {error}")),
                }
            };
            for n in 0.. {
                let id = format!("r-{client}-{n}-{:x}", rand::random::<u32>());
                let (path, body) = match client % 2 {
                    0 => (
                        "/api/v1/users",
                        json!({ "id": id, "email": format!("{id}@example.com"), "name": "A" }),
                    ),
                    _ => ("/api/v1/products", json!({ "id": id, "name": "Lamp", "price": 1 })),
                };
                call(Method::POST, path, Some(body)).await;
                call(Method::GET, &format!("{path}/{id}"), None).await;
                call(Method::PATCH, &format!("{path}/{id}"), Some(json!({ "name": "B" }))).await;
                call(Method::GET, &format!("{path}?limit=2"), None).await;
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }

    /// Waits for more requests, none of which may have failed.
    async fn pass(&self, requests: usize) {
        let due = self.answered.load(Ordering::Relaxed) + requests;
        wait::until("more requests", Duration::from_secs(60), async || {
            let failures = self.failures.lock().unwrap().clone();
            assert!(failures.is_empty(), "{failures:#?}");
            (self.answered.load(Ordering::Relaxed) >= due).then_some(())
        })
        .await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let failures = self.failures.lock().unwrap().clone();
        assert!(failures.is_empty(), "{failures:#?}");
        self.answered.load(Ordering::Relaxed)
    }
}
