//! What one connection reads through the gateway never goes back, whichever of two pods answers: while it and
//! others write, by batches and by actions, with lists between, and while one of the pods stands still.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{
    client::{Answer, Api},
    connection::Connection,
    dataplane::DataPlane,
    manifests, scale, seed, wait,
};
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::{address, healthy, healthy_pods};
use crate::stage::Stage;

const READS: (usize, usize) = (2_000, 10_000);
/// Products that are read and written again and again.
const PRODUCTS: usize = 24;
/// Payments and orders that are kept in mind: fewer records in all than a connection may remember.
const ACTED_MAX: usize = 60;
/// Of a hundred reads that may be refused because a version has not arrived.
const REFUSED_PERCENT_MAX: usize = 2;

/// One client on one connection, and the newest version that it was told of each record.
struct Client {
    connection: Connection,
    seen: HashMap<String, u64>,
    /// Payments and orders.
    acted: Vec<String>,
    choices: StdRng,
    counts: BTreeMap<&'static str, usize>,
    back: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_of_a_connection_goes_back() {
    let Some(stage) = Stage::real("reads of one connection over two pods").await else { return };
    let second = Arc::new(stage.replica());
    let samples = manifests::samples().display().to_string();
    let upstream = |pod: &DataPlane| format!("main={}", address(&pod.url));
    let (one, two) = (upstream(&stage.data_plane), upstream(&second));
    let gateway =
        DataPlane::start(&["gateway", "--manifests", &samples, "--upstream", &one, "--upstream", &two]);
    healthy(&gateway, 2).await;
    let (seed, reads) = (seed::of("never back"), scale::of(READS.0, READS.1));
    for number in 0..PRODUCTS {
        let product = json!({ "id": format!("p{number}"), "name": "Lamp", "price": 1, "stock": 1_000_000 });
        assert_eq!(stage.api.post("/api/v1/products", &product).await.status, 201);
    }
    let served_before = [served(&stage.data_plane).await, served(&second).await];
    let (stop, is_frozen) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let apis = [&stage.data_plane.url, &second.url].map(|url| Api::at(url));
    let others = tokio::spawn(write_beside(apis, stop.clone(), is_frozen.clone(), seed));
    let mut client = Client::open(&gateway.url, seed).await;
    client.work(reads * 2 / 5).await;

    is_frozen.store(true, Ordering::SeqCst);
    second.freeze();
    let (begun, api) = (Instant::now(), Api::at(&gateway.url));
    // a write that this pod has may be done or not, and nobody can say so before 30 s; reads go elsewhere
    while healthy_pods(&api).await != Some(1) {
        client.read().await;
        assert!(begun.elapsed() < Duration::from_secs(20), "the frozen pod is not known");
    }
    client.work(reads * 3 / 5).await;
    assert!(second.is_frozen());
    let frozen = begun.elapsed();
    second.thaw();
    // what it has may be old now
    client.work(reads * 4 / 5).await;
    is_frozen.store(false, Ordering::SeqCst);
    healthy(&gateway, 2).await;
    client.work(reads).await;
    stop.store(true, Ordering::SeqCst);
    let by_others = others.await.unwrap();

    let now = [served(&stage.data_plane).await, served(&second).await];
    let served = [now[0] - served_before[0], now[1] - served_before[1]];
    eprintln!(
        "{} of {} reads went back; {:?}; {by_others} writes of others; one pod frozen for {frozen:.1?}; requests by pod: {served:?}",
        client.back.len(),
        client.count("read"),
        client.counts
    );
    assert!(client.back.is_empty(), "{:#?}", client.back);
    assert!(client.count("read") >= reads);
    assert!(client.count("refused") * 100 <= reads * REFUSED_PERCENT_MAX);
    for what in ["patch", "batch", "list", "payment status", "order cancelled"] {
        assert!(client.count(what) > 0, "no {what}");
    }
    assert!(served.iter().all(|count| *count > reads / 10), "both pods answered: {served:?}");
    assert!(by_others > reads / 50, "others wrote: {by_others}");
}

impl Client {
    async fn open(url: &str, seed: u32) -> Self {
        let connection = Connection::open(url).await;
        let mut client = Self {
            connection,
            seen: HashMap::new(),
            acted: Vec::new(),
            choices: seed::choices(seed),
            counts: BTreeMap::new(),
            back: Vec::new(),
        };
        client.list().await;
        client
    }

    fn count(&self, what: &str) -> usize {
        self.counts.get(what).copied().unwrap_or_default()
    }

    fn counted(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Reads and writes by turns, until it has read so often since it was opened.
    async fn work(&mut self, reads: usize) {
        while self.count("read") < reads {
            match self.choices.random_range(0..100) {
                0..8 => self.patch().await,
                8..14 => self.batch().await,
                14..20 => self.list().await,
                20..23 if self.acted.len() < ACTED_MAX => self.payment().await,
                23..26 if self.acted.len() < ACTED_MAX => self.order().await,
                _ => self.read().await,
            }
        }
    }

    fn product(&mut self) -> String {
        format!("p{}", self.choices.random_range(0..PRODUCTS))
    }

    async fn call(&mut self, method: Method, path: &str, body: &Value) -> Answer {
        self.connection.call(method, path, body).await
    }

    /// Notes a version that this connection was told.
    fn sees(&mut self, path: String, version: u64) {
        let seen = self.seen.entry(path).or_default();
        *seen = version.max(*seen);
    }

    /// Reads one of the records that it knows.
    async fn read(&mut self) {
        let acted = !self.acted.is_empty() && self.choices.random_range(0..3) == 0;
        let path = match acted {
            true => self.acted[self.choices.random_range(0..self.acted.len())].clone(),
            false => format!("/api/v1/products/{}", self.product()),
        };
        let read = self.call(Method::GET, &path, &Value::Null).await;
        if read.status == 503 {
            return self.counted("refused");
        }
        assert_eq!(read.status, 200, "{path}: {}", read.text);
        let version = version(&read);
        let seen = self.seen.get(&path).copied().unwrap_or_default();
        if version < seen {
            self.back.push(format!("read {}: {path} has version {version} after {seen}", self.count("read")));
        }
        self.counted("read");
        self.sees(path, version);
    }

    async fn patch(&mut self) {
        let (path, price) =
            (format!("/api/v1/products/{}", self.product()), self.choices.random_range(1..1_000));
        let patched = self.call(Method::PATCH, &path, &json!({ "price": price })).await;
        if self.is_done("patch", &[200], &patched) {
            self.sees(path, version(&patched));
        }
    }

    async fn batch(&mut self) {
        // one record twice has no one version
        let ids: BTreeSet<String> = (0..3).map(|_| self.product()).collect();
        let patch = |id: &String| json!({ "op": "patch", "id": id, "data": { "description": "a batch" } });
        let body = json!({ "operations": ids.iter().map(patch).collect::<Vec<_>>() });
        let done = self.call(Method::POST, "/api/v1/products/batch", &body).await;
        if !self.is_done("batch", &[207], &done) {
            return;
        }
        for result in done.json()["results"].as_array().unwrap() {
            if let (Some(id), Some(version)) = (result["id"].as_str(), result["version"].as_u64()) {
                self.sees(format!("/api/v1/products/{id}"), version);
            }
        }
    }

    async fn list(&mut self) {
        let path = "/api/v1/products?limit=100";
        let listed = self.call(Method::GET, path, &Value::Null).await;
        assert_eq!(listed.status, 200, "{}", listed.text);
        self.counted("list");
        for item in listed.json()["items"].as_array().unwrap() {
            let id = item["id"].as_str().unwrap();
            self.sees(format!("/api/v1/products/{id}"), item["version"].as_u64().unwrap());
        }
    }

    async fn payment(&mut self) {
        let payment = json!({ "user_id": "u", "amount": 5, "currency": "EUR" });
        let created = self.call(Method::POST, "/api/v1/payments", &payment).await;
        if !self.is_done("payment", &[201], &created) {
            return;
        }
        let path = created.header("location").to_owned();
        self.sees(path.clone(), version(&created));
        self.acted.push(path.clone());
        let status =
            self.call(Method::PUT, &format!("{path}/status"), &json!({ "status": "completed" })).await;
        if self.is_done("payment status", &[200], &status) {
            self.sees(path, version(&status));
        }
    }

    async fn order(&mut self) {
        let order = json!({ "user_id": "u", "items": [{ "product_id": self.product(), "quantity": 1 }] });
        let created = self.call(Method::POST, "/api/v1/orders", &order).await;
        if !self.is_done("order", &[201], &created) {
            return;
        }
        let path = created.header("location").to_owned();
        self.sees(path.clone(), version(&created));
        self.acted.push(path.clone());
        // it may have been completed already
        let cancelled = self.call(Method::POST, &format!("{path}/cancel"), &Value::Null).await;
        if cancelled.status != 409 && self.is_done("order cancelled", &[202], &cancelled) {
            self.sees(path, version(&cancelled));
        }
    }

    /// Whether a change was done, and not merely refused for now.
    fn is_done(&mut self, what: &'static str, statuses: &[u16], answer: &Answer) -> bool {
        if answer.status == 503 {
            self.counted("refused");
            return false;
        }
        assert!(statuses.contains(&answer.status), "{what}: {}: {}", answer.status, answer.text);
        self.counted(what);
        true
    }
}

/// The version in an answer's tag.
fn version(answer: &Answer) -> u64 {
    let tag = answer.header("etag").trim_matches('"');
    let version = tag.split('-').next().and_then(|version| version.parse().ok());
    version.unwrap_or_else(|| panic!("no version in {tag:?}: {}", answer.text))
}

/// Others write the same products at the pods themselves, by turns; how often they did.
async fn write_beside(apis: [Api; 2], stop: Arc<AtomicBool>, is_frozen: Arc<AtomicBool>, seed: u32) -> usize {
    let (mut choices, mut done) = (seed::choices(seed ^ 1), 0);
    for turn in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let api = if is_frozen.load(Ordering::SeqCst) { &apis[0] } else { &apis[turn % 2] };
        let path = format!("/api/v1/products/p{}", choices.random_range(0..PRODUCTS));
        let body = json!({ "price": choices.random_range(1..1_000) }).to_string().into_bytes();
        // one that the frozen pod took is answered when it goes on, if at all
        if let Ok(answer) = api.call(Method::PATCH, &path, &[], Some(body)).await {
            assert!([200, 503].contains(&answer.status), "{path}: {}", answer.text);
            done += usize::from(answer.status == 200);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    done
}

/// The requests that a pod has answered.
async fn served(pod: &DataPlane) -> usize {
    let status = wait::until("the status of a pod", Duration::from_secs(20), async || {
        let status = Api::at(&pod.admin).get("/status").await.json();
        status["requests"]["total"].as_u64()
    })
    .await;
    status as usize
}
