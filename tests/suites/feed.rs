//! What the feed says of records, for suites: everything since a moment, each version of each key once and in
//! order.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures::StreamExt;
use harness::{client::Api, wait};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long the feed may be silent while something is missing.
const SILENCE: Duration = Duration::from_secs(60);

/// A place in the feed that is after everything written until now, and before everything written from now on.
pub async fn place(api: &Api) -> String {
    let mut socket = connect(api, None).await;
    let created = api.post("/api/v1/products", &json!({ "name": "a place in the feed", "price": 1 })).await;
    let key = created.json()["id"].as_str().unwrap().to_owned();
    loop {
        let event = next(&mut socket).await.unwrap();
        if event["key"] == key.as_str() {
            return event["cursor"].as_str().unwrap().to_owned();
        }
    }
}

/// Checks that the feed has, since a place, each version of these keys up to the newest as one event, in
/// order. An event may be repeated.
pub async fn assert_has(api: &Api, since: &str, newest: &BTreeMap<String, u64>) {
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let (mut ids, mut repeats, mut connections) = (HashSet::new(), 0, 1);
    let mut missing: u64 = newest.values().sum();
    let (mut since, mut socket) = (since.to_owned(), connect(api, Some(since)).await);
    while missing > 0 {
        let Some(event) = next(&mut socket).await else {
            // too slow for the live feed: on from the last place
            socket = connect(api, Some(&since)).await;
            connections += 1;
            continue;
        };
        since = event["cursor"].as_str().unwrap_or(&since).to_owned();
        let key = event["key"].as_str().unwrap_or_default();
        if newest.contains_key(key) {
            // a relay that died between publish and confirm repeats: the same event, told by its id
            if !ids.insert(event["id"].to_string()) {
                repeats += 1;
                continue;
            }
            seen.entry(key.to_owned()).or_default().push(event["version"].as_u64().unwrap());
            missing = missing.saturating_sub(1);
        }
    }
    for (key, newest) in newest {
        assert_eq!(seen[key], (1..=*newest).collect::<Vec<_>>(), "the events of {key}");
    }
    drained(api, SILENCE).await;
    eprintln!(
        "{} events of {} keys, each once and in order; {repeats} repetitions in {connections} connections",
        ids.len(),
        newest.len()
    );
}

/// Waits until every committed event was published.
pub async fn drained(api: &Api, within: Duration) {
    wait::until("an empty outbox", within, async || {
        let health = api.get("/api/v1/health").await.json();
        let waiting = |backend: &Value| backend["events"].as_u64().unwrap_or(1);
        let outbox = health["queues"]["outbox"].as_object()?.clone();
        outbox.values().all(|backend| waiting(backend) == 0).then_some(())
    })
    .await;
}

/// Waits until the service and all its parts are healthy: one probe that came late is looked at again. Gives
/// what it says then.
pub async fn healthy(api: &Api) -> Value {
    wait::until("a healthy service", Duration::from_secs(15), async || {
        let health = api.get("/api/v1/health").await;
        (health.status == 200 && health.json()["status"] == "healthy").then(|| health.json())
    })
    .await
}

async fn connect(api: &Api, since: Option<&str>) -> Socket {
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let url = format!("{}/ws?client_id=suite{since}", api.base().replacen("http", "ws", 1));
    // 503 until the feed is joined
    wait::until("the feed", Duration::from_secs(30), async || Some(connect_async(&url).await.ok()?.0)).await
}

/// The next event; none where the client fell behind.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        let message = tokio::time::timeout(SILENCE, socket.next())
            .await
            .unwrap_or_else(|_| panic!("no event for {SILENCE:?}"));
        match message {
            Some(Ok(Message::Text(text))) => {
                let event: Value = serde_json::from_str(&text).unwrap();
                match event["type"].as_str() {
                    Some("resync") => return None,
                    Some("health_check") => {}
                    _ => return Some(event),
                }
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}
