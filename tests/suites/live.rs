//! The live feed over a process: thousands of sockets of which some are frozen, a way back after a break, and
//! what is said when a part fails.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use harness::{client::Api, dataplane::DataPlane, manifests, wait};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

use crate::stage::Stage;

/// Sockets that are open at once; `LIVE_SOCKETS` says another number.
const SOCKETS: usize = 5_000;
/// One of so many does not read.
const FROZEN_EACH: usize = 100;
/// Events that all of them get.
const EVENTS: usize = 40;
/// How far the slowest reader may be behind while further events are made; far less than a client's queue
/// holds.
const AHEAD: usize = 4;
/// The queue of each client.
const QUEUE: usize = 16;
/// Events that only the frozen get, and their bytes: more than their queues and the kernel's buffers hold, so
/// that all of them are stuck.
const FREEZING: usize = 150;
const FREEZING_BYTES: usize = 60_000;
const WAIT: Duration = Duration::from_secs(120);

type Socket = WebSocketStream<TcpStream>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_sockets_cost_the_others_nothing() {
    let wanted = std::env::var("LIVE_SOCKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(SOCKETS);
    let sockets = wanted.min(files_max().saturating_sub(1_000) / 100 * 100);
    if sockets < wanted {
        eprintln!(
            "only {sockets} sockets instead of {wanted}: this machine lets a process open {} files",
            files_max()
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let data_plane = small_queues(dir.path());
    let api = Api::at(&data_plane.url);
    let address: SocketAddr = data_plane.url.trim_start_matches("http://").parse().unwrap();

    let started = Instant::now();
    let opening = (0..sockets).map(|number| connect(address, number, number % FROZEN_EACH == 0));
    let mut open: Vec<(usize, Socket)> =
        stream::iter(opening.enumerate().map(async |(number, socket)| (number, socket.await)))
            .buffer_unordered(64)
            .collect()
            .await;
    eprintln!(
        "{sockets} sockets are open after {:?}; the process has {} MB",
        started.elapsed(),
        data_plane.resident_bytes() >> 20
    );
    let frozen: Vec<Socket> =
        open.extract_if(.., |(number, _)| *number % FROZEN_EACH == 0).map(|(_, socket)| socket).collect();

    for n in 0..FREEZING {
        let body = json!({ "email": "a@example.com", "name": "a", "profile": { "about": "x".repeat(FREEZING_BYTES) } });
        write(&api, "users", "u", n, body).await;
    }

    let got = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = open
        .into_iter()
        .map(|(number, socket)| {
            let got = Arc::clone(&got);
            tokio::spawn(async move { read_all(number, socket, &got).await })
        })
        .collect();
    let started = Instant::now();
    for n in 0..EVENTS {
        let upto = (n.saturating_sub(AHEAD) * readers.len()) as u64;
        wait::until("the readers", WAIT, async || (got.load(Ordering::Relaxed) >= upto).then_some(())).await;
        write(&api, "products", "p", n, json!({ "name": "a", "price": n })).await;
    }
    let count = readers.len();
    for reader in readers {
        reader.await.unwrap();
    }
    let took = started.elapsed();
    eprintln!(
        "{EVENTS} events reached {count} sockets in {took:?}: {:.0} frames/s",
        (EVENTS * count) as f64 / took.as_secs_f64()
    );

    let mut cut = 0;
    for (number, socket) in frozen.into_iter().enumerate() {
        cut += usize::from(thaw(number, socket).await);
    }
    assert_eq!(cut, sockets / FROZEN_EACH, "every frozen socket fell behind and was told so");
}

/// Makes version `n + 1` of a record.
async fn write(api: &Api, collection: &str, id: &str, n: usize, mut body: Value) {
    let written = if n == 0 {
        body["id"] = id.into();
        api.post(&format!("/api/v1/{collection}"), &body).await
    } else {
        api.send(Method::PUT, &format!("/api/v1/{collection}/{id}"), &[], &body).await
    };
    assert_eq!(written.json()["version"], n + 1, "{}", written.text);
}

/// Reads every event, in order and without a break.
async fn read_all(number: usize, mut socket: Socket, got: &AtomicU64) {
    for n in 0..EVENTS {
        let frame =
            next(&mut socket).await.unwrap_or_else(|| panic!("socket {number} was closed before event {n}"));
        assert_eq!(
            (&frame["key"], &frame["version"]),
            (&"p".into(), &(n + 1).into()),
            "socket {number}: {}",
            frame["type"]
        );
        got.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a frozen socket finds when it reads at last: everything in order, up to where it is told that
/// something is missing. Whether it is.
async fn thaw(number: usize, mut socket: Socket) -> bool {
    for version in 1..=FREEZING {
        let Some(frame) = next(&mut socket).await else { return true };
        if frame["type"] == "resync" {
            return true;
        }
        assert_eq!(
            (&frame["key"], &frame["version"]),
            (&"u".into(), &version.into()),
            "frozen socket {number}: a silent gap"
        );
    }
    false
}

/// The next frame that is an event or a resync; none when the socket was closed with 1013.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        let message = tokio::time::timeout(WAIT, socket.next()).await.unwrap();
        match message {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["type"] != "health_check" {
                    return Some(frame);
                }
            }
            Some(Ok(Message::Close(Some(close)))) => {
                assert_eq!(u16::from(close.code), 1013);
                return None;
            }
            Some(Ok(_)) => {}
            Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => return None,
            Some(Err(error)) => panic!("{error}"),
        }
    }
}

async fn connect(address: SocketAddr, number: usize, frozen: bool) -> Socket {
    let socket = TcpSocket::new_v4().unwrap();
    if frozen {
        // as little as the kernel allows, so that it is full soon
        socket.set_recv_buffer_size(4 << 10).unwrap();
    }
    let stream = socket.connect(address).await.unwrap();
    let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(1 << 10);
    let topics = if frozen { "products,users" } else { "products" };
    let url = format!("ws://{address}/ws?topics={topics}&client_id=c{number}");
    client_async_with_config(url, stream, Some(config)).await.unwrap().0
}

/// The sample shop whose clients have small queues.
fn small_queues(dir: &Path) -> DataPlane {
    let folder = dir.join("manifests");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(manifests::samples()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = if text.contains("kind: FlyweightService") { with_live(&text) } else { text };
        fs::write(folder.join(path.file_name().unwrap()), text).unwrap();
    }
    DataPlane::embedded(&folder, &dir.join("data"))
}

fn with_live(text: &str) -> String {
    let (before, after) = text.split_once("\nspec:\n").unwrap();
    format!("{before}\nspec:\n  webSocket:\n    queueSize: {QUEUE}\n{after}")
}

/// The files that this process may have open.
fn files_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).and_then(|text| text.parse().ok()).unwrap_or(1_024)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_misses_nothing_and_a_user_gets_the_user_s_own() {
    let stage = Stage::embedded();
    let address: SocketAddr = stage.data_plane.url.trim_start_matches("http://").parse().unwrap();
    let open = async |query: String| {
        let stream = TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{address}/ws?{query}"), stream).await.unwrap().0
    };
    let create = async |collection: &str, body: Value| {
        let created = stage.api.post(&format!("/api/v1/{collection}"), &body).await;
        assert_eq!(created.status, 201, "{}", created.text);
    };
    let mut own = open("user_id=ann".to_owned()).await;
    let mut first = open("topics=products,orders".to_owned()).await;
    create("products", json!({ "id": "p", "name": "a", "price": 1 })).await;
    let cursor = next(&mut first).await.unwrap()["cursor"].as_str().unwrap().to_owned();
    drop(first);
    for price in 2..=20 {
        let patched =
            stage.api.send(Method::PATCH, "/api/v1/products/p", &[], &json!({ "price": price })).await;
        assert_eq!(patched.status, 200, "{}", patched.text);
    }
    let mut again = open(format!("topics=products,order_created&since={cursor}")).await;
    for user in ["bob", "ann"] {
        let items = json!([{ "product_id": "p", "quantity": 1 }]);
        create("orders", json!({ "id": format!("of-{user}"), "user_id": user, "items": items })).await;
    }
    let (mut version, mut orders) = (1, BTreeSet::new());
    while version < 20 || orders.len() < 2 {
        let frame = next(&mut again).await.unwrap();
        if frame["entity"] == "order" {
            assert!(orders.insert(frame["key"].as_str().unwrap().to_owned()));
        } else {
            version += 1;
            assert_eq!(frame["version"], version, "the product's events, in order");
        }
    }
    assert_eq!(next(&mut own).await.unwrap()["key"], "of-ann", "neither products nor another user's order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_when_a_part_fails_and_when_it_is_back() {
    let Some(mut stage) = Stage::real("what the feed says of a failing part").await else { return };
    let url = format!("{}/ws?topics=health_check", stage.data_plane.url.replace("http", "ws"));
    let joined = async || Some(tokio_tungstenite::connect_async(&url).await.ok()?.0);
    let mut feed = wait::until("the feed", Duration::from_secs(30), joined).await;
    let mut said = async |wanted: &str, overall: &str| {
        let started = Instant::now();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(20), feed.next()).await.unwrap();
            let Message::Text(text) = message.unwrap().unwrap() else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["data"]["checks"]["redis"] == wanted && frame["data"]["status"] == overall {
                return started.elapsed();
            }
        }
    };
    let mut servers = stage.servers.take().unwrap();
    tokio::task::block_in_place(|| servers.redis.kill());
    let after = said("unhealthy", "degraded").await;
    eprintln!("a dead Redis was told after {after:?}");
    assert_eq!(stage.api.send(Method::GET, "/api/v1/products?limit=1", &[], &Value::Null).await.status, 200);
    tokio::task::block_in_place(|| servers.redis.restart());
    said("healthy", "healthy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_changes_holds_for_open_connections_and_dead_letters() {
    let stage = Stage::embedded();
    let connect = async |topics: &str| {
        let url = format!("{}/ws?topics={topics}", stage.data_plane.url.replacen("http", "ws", 1));
        tokio_tungstenite::connect_async(url).await.unwrap().0
    };
    let (mut orders, mut products) = (connect("orders").await, connect("products").await);
    assert_eq!(stage.api.get("/api/v1/dead-letters").await.status, 200);
    stage.rewrite(|dir| {
        manifests::write_samples_with(dir, "");
        let (pools, open) = (dir.join("pools.yaml"), "  entity: Order\n");
        let text = fs::read_to_string(&pools).unwrap();
        fs::write(&pools, text.replacen(open, &format!("{open}  access: {{ read: [clerk] }}\n"), 1)).unwrap();
    });
    let closed = async {
        while let Some(Ok(message)) = orders.next().await {
            if let Message::Close(frame) = message {
                return u16::from(frame.unwrap().code);
            }
        }
        0
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), closed).await.unwrap(), 4403);
    for path in ["/api/v1/orders", "/api/v1/dead-letters", "/api/v1/pipeline"] {
        assert_eq!(stage.api.get(path).await.status, 401, "{path}");
    }
    let created = stage.api.post("/api/v1/products", &json!({ "name": "Lamp", "price": 1 })).await;
    let told = async {
        loop {
            let Message::Text(text) = products.next().await.unwrap().unwrap() else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["key"] == created.json()["id"] {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT, told).await.unwrap();
}
