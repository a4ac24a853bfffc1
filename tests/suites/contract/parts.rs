//! The parts beside the records: what pools hold, warm-ups, events and dead letters, the live feed, pages and
//! probes.

use std::time::Duration;

use futures::StreamExt;
use harness::{client::Api, wait};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::rows::word;
use crate::stage::Stage;

const WAIT: Duration = Duration::from_secs(30);

/// All of them.
pub async fn all(api: &Api, stage: &Stage) {
    factory(api).await;
    an_event_makes_its_product(api).await;
    dead_letters(api).await;
    feed(api).await;
    tickets(api, stage).await;
    for path in ["/livez", "/readyz", "/api/v1/livez", "/api/v1/readyz"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "ok"), "{path}");
    }
    for path in ["/", "/docs"] {
        let page = api.get(path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
    }
    let pools = api.get("/api/v1/pools").await.json();
    assert_eq!(pools["pools"].as_array().unwrap().len(), 7, "{pools}");
    let health = api.get("/api/v1/health").await.json();
    assert!(health["version"].is_string() && health["factory"].is_object(), "{health}");
    for schema in api.get("/schemas").await.json()["schemas"].as_array().unwrap() {
        let newest = api.get(schema.as_str().unwrap()).await;
        assert_eq!(newest.status, 200, "{schema}");
        let newest = newest.json();
        assert_eq!(api.get(newest["$id"].as_str().unwrap()).await.json(), newest, "{schema}");
    }
}

/// What memory holds, and what is loaded and dropped by request.
async fn factory(api: &Api) {
    let one = api.post("/api/v1/products", &json!({ "name": "Warm", "price": 1, "category": word() })).await;
    let id = one.json()["id"].clone();
    for _ in 0..api.replicas() {
        api.get(one.header("location")).await;
    }
    let stats = api.get("/api/v1/factory/stats").await.json();
    for figure in [
        "flyweights",
        "shared",
        "unshared",
        "entities",
        "bytes",
        "bytes_saved",
        "hit_rate",
        "hits",
        "misses",
        "evictions",
    ] {
        assert!(stats["pools"]["products"][figure].is_number(), "{figure}: {stats}");
        assert!(stats["total"][figure].is_number(), "{figure}: {stats}");
    }
    assert!(stats["pools"]["products"]["entities"].as_u64().unwrap() > 0, "{stats}");
    let cleaned =
        api.post("/api/v1/factory/cleanup", &json!({ "pool": "products", "idle_after": "1h" })).await;
    assert!(cleaned.status == 200 && cleaned.json()["remaining"].is_number(), "{}", cleaned.text);
    let cache = api.get("/api/v1/repositories/cache/stats").await.json();
    assert!(cache["hits"].is_number() && cache["repositories"]["products"].is_object(), "{cache}");
    let filter = json!({ "field": "category", "op": "eq", "value": one.json()["category"] });
    for (path, body, loaded) in [
        ("factory/warm", json!({ "pool": "configurations", "mode": "All" }), 0),
        ("repositories/cache/warm", json!({ "repository": "products", "ids": [id] }), 1),
        ("repositories/cache/warm", json!({ "repository": "product", "where": filter }), 0),
    ] {
        let warmed = api.post(&format!("/api/v1/{path}"), &body).await;
        assert_eq!(
            (warmed.status, &warmed.json()["complete"]),
            (200, &json!(true)),
            "{path}: {}",
            warmed.text
        );
        assert!(warmed.json()["loaded"].as_u64().unwrap() >= loaded, "{path}: {}", warmed.text);
    }
}

/// An event of a product that is not there makes it.
async fn an_event_makes_its_product(api: &Api) {
    let product = word();
    let event = json!({ "product_id": product, "price": 49.99, "stock": 100 });
    let accepted = api.post("/api/v1/events", &event).await;
    assert_eq!((accepted.status, &accepted.json()["accepted"]), (202, &json!(1)), "{}", accepted.text);
    let made = wait::until("the product of an event", WAIT, async || {
        let read = api.get(&format!("/api/v1/products/{product}")).await;
        (read.status == 200).then(|| read.json())
    })
    .await;
    assert_eq!(
        (&made["name"], &made["price"], &made["stock"]),
        (&json!(product), &json!(49.99), &json!(100))
    );
}

/// An order whose message uses what is not given is set aside, found, tried again once the text is mended,
/// and given up.
async fn dead_letters(api: &Api) {
    let (told, product) = (word(), word());
    let text = format!("/api/v1/notifications/templates/{told}");
    let templates =
        json!({ "id": told, "template": "order_completed", "subject": "Done", "body": "{{ nobody }}" });
    assert_eq!(api.post("/api/v1/notifications/templates", &templates).await.status, 201);
    let lamp = json!({ "id": product, "name": "P", "price": 1, "stock": 2 });
    assert_eq!(api.post("/api/v1/products", &lamp).await.status, 201);
    let of = async |order: &str| {
        let page = api.get(&format!("/api/v1/dead-letters?stage=notifications&subject={order}")).await.json();
        page["items"][0]["id"].as_str().map(|id| format!("/api/v1/dead-letters/{id}"))
    };
    let aside = async |order: &str| {
        let items = json!([{ "product_id": product, "quantity": 1 }]);
        let placed =
            api.post("/api/v1/orders", &json!({ "id": order, "user_id": "u", "items": items })).await;
        assert_eq!(placed.status, 201, "{}", placed.text);
        wait::until("a dead letter", WAIT, async || of(order).await).await
    };
    let (wanted, unwanted) = (word(), word());
    let (again, never) = (aside(&wanted).await, aside(&unwanted).await);
    assert_eq!(api.get(&again).await.json()["subject"], wanted.as_str());
    let unknown = api.send(Method::POST, "/api/v1/dead-letters/none/replay", &[], &Value::Null).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    assert_eq!(api.send(Method::PATCH, &text, &[], &json!({ "body": "It is there." })).await.status, 200);
    // a replica that has not yet heard of the mended text sets the order aside once more
    wait::until("the message to be sent", WAIT, async || {
        if let Some(letter) = of(&wanted).await {
            let replayed = api.send(Method::POST, &format!("{letter}/replay"), &[], &Value::Null).await;
            assert!(matches!(replayed.status, 202 | 404 | 409), "{}", replayed.text);
        }
        let timeline = api.get(&format!("/api/v1/orders/{wanted}/timeline")).await;
        (timeline.json()["stage"] == "done").then_some(())
    })
    .await;
    assert_eq!(of(&wanted).await, None);

    assert_eq!(api.send(Method::DELETE, &never, &[], &Value::Null).await.status, 204);
    let all = api.post("/api/v1/dead-letters/replay", &json!({ "stage": "notifications" })).await;
    assert_eq!(all.status, 200, "{}", all.text);
    let figures = api.get("/api/v1/pipeline").await;
    assert!(figures.status == 200 && figures.json()["stages"].is_array(), "{}", figures.text);
    assert_eq!(api.send(Method::DELETE, &text, &[], &Value::Null).await.status, 204);
}

/// A change is told by WebSocket at both addresses and as Server-Sent Events, at every replica.
async fn feed(api: &Api) {
    let mut sockets = Vec::new();
    let mut streams = Vec::new();
    for base in api.bases() {
        for path in ["/ws", "/api/v1/ws"] {
            let url = format!("{}{path}?topics=products&client_id=contract", base.replacen("http", "ws", 1));
            // 503 until the feed is joined
            sockets
                .push(wait::until("the feed", WAIT, async || Some(connect_async(&url).await.ok()?.0)).await);
        }
        streams.push(event_stream(base).await);
    }
    let created = api.post("/api/v1/products", &json!({ "name": "Told", "price": 1 })).await.json();
    let told = |frame: &Value| {
        let same = |name: &str, value: &Value| frame[name] == *value;
        same("key", &created["id"]) && same("type", &json!("product_created")) && same("version", &json!(1))
    };
    for mut socket in sockets {
        loop {
            let message = tokio::time::timeout(WAIT, socket.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if told(&frame) {
                assert!(
                    frame["cursor"].is_string() && frame["at"].is_string() && frame["data"]["name"] == "Told"
                );
                break;
            }
        }
    }
    for mut stream in streams {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        let line = |text: &str| {
            text.lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .any(|data| serde_json::from_str(data).is_ok_and(|frame| told(&frame)))
        };
        while !line(&text) {
            let read = tokio::time::timeout(WAIT, stream.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(read, 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
}

/// A ticket opens the feed once, at whichever replica where they share a Redis, and stands in the address
/// alone.
async fn tickets(api: &Api, stage: &Stage) {
    let bases: Vec<&String> = api.bases().iter().collect();
    for (number, base) in bases.iter().enumerate() {
        let given = api.send(Method::POST, "/api/v1/ws/tickets", &[], &Value::Null).await;
        assert_eq!((given.status, given.header("cache-control")), (201, "no-store"), "{}", given.text);
        let ticket = given.json()["ticket"].as_str().unwrap().to_owned();
        let url =
            |base: &str| format!("{}/ws?topics=products&ticket={ticket}", base.replacen("http", "ws", 1));
        // the other replicas ask for it at the same time
        let tries = bases.iter().map(|base| connect_async(url(base)));
        let opened = futures::future::join_all(tries).await.iter().filter(|tried| tried.is_ok()).count();
        assert_eq!(opened, 1, "ticket {number} of {}", bases.len());
        let stream = format!("{base}/api/v1/events/stream?ticket={ticket}");
        assert_eq!(reqwest::get(stream).await.unwrap().status(), 401, "it was used");
    }
    let given = api.send(Method::POST, "/api/v1/ws/tickets", &[], &Value::Null).await.json();
    let ticket = given["ticket"].as_str().unwrap();
    let first = if stage.has_shared_tier() { bases.len() - 1 } else { 0 };
    let mut opened = 0;
    for base in &bases[first..] {
        let stream = reqwest::get(format!("{base}/api/v1/events/stream?ticket={ticket}")).await.unwrap();
        opened += usize::from(stream.status() == 200);
    }
    assert_eq!(opened, 1);
}

/// An event stream, answered.
async fn event_stream(base: &str) -> TcpStream {
    let address = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/v1/events/stream?topics=products HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(WAIT, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    stream
}
