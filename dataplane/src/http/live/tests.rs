//! The feed over a real server on a free port, with the embedded bus behind it.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use axum::body::Body;
use crds::units::Span;
use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error as WsError, Message},
};
use tower::ServiceExt;

use super::*;
use crate::{http::health::Condition, security::policy::Policy};
use ::testing::{Folder, until};

use crate::testing::events::{FakeBus, event, events};
use events::local::{LocalBus, LocalOptions};
use model::{
    entities::{order, product, user},
    event::Envelope,
    schema::Schema,
};

mod rfc6455;
mod rights;

const WAIT: Duration = Duration::from_secs(60);

/// Who connects, by the label that they give.
type Callers = Arc<parking_lot::Mutex<HashMap<String, Arc<Caller>>>>;
type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Service {
    live: Arc<Live>,
    bus: Arc<dyn EventBus>,
    address: SocketAddr,
    shutdown: CancellationToken,
    options: watch::Sender<LiveOptions>,
    checks: watch::Sender<BTreeMap<String, Check>>,
    policies: Arc<Policies>,
    callers: Callers,
    registry: Registry,
    _folder: Folder,
}

fn options() -> LiveOptions {
    LiveOptions { max_connections: 100, queue_size: 1_000, ping_interval: Span::from_secs(20) }
}

async fn start(options: LiveOptions) -> Service {
    let folder = Folder::new();
    let bus = LocalBus::open(folder.path(), LocalOptions::default()).await.unwrap();
    serve(Arc::new(bus), options, folder).await
}

async fn serve(bus: Arc<dyn EventBus>, options: LiveOptions, folder: Folder) -> Service {
    let schemas = [product::schema(), order::schema(), user::schema()];
    let policies = Policies::none();
    policies.put(schemas.iter().map(|schema| (&*schema.collection, Policy::open())));
    let entity = |schema: &Schema| LiveEntity::of(schema, policies.of_pool(&schema.collection));
    let (shutdown, (options, receiver)) = (CancellationToken::new(), watch::channel(options));
    let (checks, checked) = watch::channel(BTreeMap::new());
    let parts = LiveParts {
        bus: bus.clone(),
        entities: schemas.iter().map(entity).collect(),
        policies: policies.clone(),
        options: receiver,
        checks: checked,
        shutdown: shutdown.clone(),
    };
    let registry = Registry::new();
    let live = Live::start(parts, &registry).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let callers: Callers = Arc::default();
    let app =
        routes(live.clone()).layer(axum::middleware::from_fn_with_state(callers.clone(), rights::admit));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Service { live, bus, address, shutdown, options, checks, policies, callers, registry, _folder: folder }
}

impl Service {
    async fn connect(&self, query: &str) -> Socket {
        connect_async(format!("ws://{}/api/v1/ws?{query}", self.address)).await.unwrap().0
    }

    /// The status and the body of a refused connection.
    async fn refused(&self, query: &str) -> (u16, Value) {
        match connect_async(format!("ws://{}/ws?{query}", self.address)).await {
            Err(WsError::Http(response)) => {
                assert_eq!(response.headers()["content-type"], "application/problem+json");
                (
                    response.status().as_u16(),
                    serde_json::from_slice(response.body().as_ref().unwrap()).unwrap(),
                )
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn publish(&self, events: &[Envelope]) {
        self.bus.publish(events).await.unwrap();
    }
}

async fn frame(socket: &mut Socket) -> Value {
    loop {
        match tokio::time::timeout(WAIT, socket.next()).await.expect("a frame in time").unwrap().unwrap() {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["type"] != "health_check" {
                    return frame;
                }
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("not a frame: {other:?}"),
        }
    }
}

async fn frames(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        all.push(frame(socket).await);
    }
    all
}

/// The code with which the server closes, whatever comes before.
async fn close_code(socket: &mut (impl StreamExt<Item = Result<Message, WsError>> + Unpin)) -> u16 {
    loop {
        match tokio::time::timeout(WAIT, socket.next()).await.expect("a close in time").unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code.into(),
            _ => continue,
        }
    }
}

fn ids<'a>(frames: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    frames.into_iter().map(|frame| frame["id"].as_str().unwrap().to_owned()).collect()
}

fn ids_of(events: &[Envelope]) -> Vec<String> {
    events.iter().map(|event| event.id.to_string()).collect()
}

#[tokio::test]
async fn a_client_gets_every_change_after_it_connected() {
    let service = start(options()).await;
    let mut socket = service.connect("client_id=shop&topics=products").await;
    let published = events(3, 10);
    service.publish(&published).await;
    let got = frames(&mut socket, 30).await;
    assert_eq!(ids(&got), ids_of(&published));
    let first = &got[0];
    assert_eq!(
        (&first["type"], &first["entity"], &first["key"]),
        (&"product_created".into(), &"product".into(), &"k0".into())
    );
    assert_eq!((&first["version"], &first["data"]["id"]), (&1.into(), &"k0".into()));
    assert_eq!(got[29]["cursor"], service.bus.head().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_while_events_are_published_miss_and_repeat_nothing() {
    let service = Arc::new(start(options()).await);
    let start = service.bus.head().await.unwrap();
    let published = events(10, 60);
    let mut watcher = service.connect(&format!("since={start}")).await;
    let publisher = tokio::spawn({
        let (service, published) = (service.clone(), published.clone());
        async move {
            for batch in published.chunks(7) {
                service.publish(batch).await;
            }
        }
    });
    let mut readers = Vec::new();
    for at in [0, 90, 250, 400, 550] {
        let cursor = match at {
            0 => start.clone(),
            _ => loop {
                let seen = frame(&mut watcher).await;
                if seen["id"] == published[at - 1].id.to_string() {
                    break seen["cursor"].as_str().unwrap().to_owned();
                }
            },
        };
        let (service, expected) = (service.clone(), ids_of(&published[at..]));
        readers.push(tokio::spawn(async move {
            let mut socket = service.connect(&format!("since={cursor}")).await;
            let got = frames(&mut socket, expected.len()).await;
            assert_eq!(ids(&got), expected, "from {at}");
        }));
    }
    publisher.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn topics_and_users_are_kept_apart() {
    let service = start(options()).await;
    let change = |entity: &str, key: &str, data: &str| Envelope {
        kind: format!("{entity}_updated"),
        entity: entity.to_owned(),
        data: Some(serde_json::value::RawValue::from_string(data.to_owned()).unwrap()),
        ..event(key, 1)
    };
    let mut ann = service.connect("user_id=ann").await;
    let mut bob = service.connect("user_id=bob&topics=order,product").await;
    let mut orders = service.connect("topics=order_updated").await;
    service
        .publish(&[
            change("order", "o1", r#"{"user_id":"ann"}"#),
            change("product", "p1", "{}"),
            change("order", "o2", r#"{"user_id":"bob"}"#),
            change("user", "ann", "{}"),
            change("user", "bob", "{}"),
            change("stranger", "x", "{}"),
            change("order", "last", r#"{"user_id":"ann"}"#),
            change("product", "last", "{}"),
        ])
        .await;
    let keys = |frames: Vec<Value>| {
        frames.iter().map(|frame| frame["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(frames(&mut ann, 3).await), ["o1", "ann", "last"]);
    assert_eq!(keys(frames(&mut bob, 3).await), ["p1", "o2", "last"]);
    assert_eq!(keys(frames(&mut orders, 3).await), ["o1", "o2", "last"]);
}

/// Publishes more than a client that does not read, and the buffers on the way to it, can take. Returns once
/// the hub handed all out.
async fn overflow(service: &Service, key: &str) -> Vec<Envelope> {
    let mut watcher = service.connect("topics=user").await;
    let text = serde_json::to_string(&"x".repeat(100_000)).unwrap();
    let large = |version| Envelope {
        data: Some(serde_json::value::RawValue::from_string(text.clone()).unwrap()),
        ..event(key, version)
    };
    let published: Vec<Envelope> = (1..=200).map(large).collect();
    for batch in published.chunks(20) {
        service.publish(batch).await;
    }
    let last = Envelope { kind: "user_updated".into(), entity: "user".into(), ..event("ann", 1) };
    service.publish(std::slice::from_ref(&last)).await;
    assert_eq!(frame(&mut watcher).await["id"], last.id.to_string());
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_is_told_what_it_missed() {
    let service = start(LiveOptions { queue_size: 10, ..options() }).await;
    let mut slow = service.connect("topics=product").await;
    let published = overflow(&service, "big").await;
    let mut got = Vec::new();
    let cursor = loop {
        let seen = frame(&mut slow).await;
        if seen["type"] == "resync" {
            break seen["cursor"].as_str().unwrap().to_owned();
        }
        got.push(seen);
    };
    assert!(service.live.figures().resyncs >= 1);
    assert!(got.len() < published.len(), "the queue overflowed");
    assert_eq!(ids(&got), ids_of(&published[..got.len()]), "everything before the resync");
    assert_eq!(got.last().unwrap()["cursor"], cursor.as_str(), "it has everything up to the cursor");

    // what it missed is there for the asking
    let mut again = service.connect(&format!("topics=product&since={cursor}")).await;
    let missed = frames(&mut again, published.len() - got.len()).await;
    assert_eq!(ids(&missed), ids_of(&published[got.len()..]));
}

/// On one thread, so that nobody reads while the queue overflows.
#[tokio::test]
async fn a_client_that_fell_behind_goes_on_from_now() {
    let bus = Arc::new(FakeBus::new());
    let service = serve(bus.clone(), LiveOptions { queue_size: 5, ..options() }, Folder::new()).await;
    let mut socket = service.connect("").await;
    let at = |number: u64| Envelope { cursor: Some(format!("c{number}")), ..event("a", number) };
    let sent: Vec<Envelope> = (1..=9).map(at).collect();
    sent.iter().for_each(|event| bus.send_live(event.clone()));
    assert_eq!(ids(&frames(&mut socket, 5).await), ids_of(&sent[..5]));
    let resync = frame(&mut socket).await;
    assert_eq!((&resync["type"], &resync["cursor"]), (&"resync".into(), &"c5".into()));
    bus.send_live(at(10));
    assert_eq!(frame(&mut socket).await["cursor"], "c10");
    assert_eq!(service.live.figures().resyncs, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_always_too_slow_is_closed() {
    let service =
        start(LiveOptions { queue_size: 5, ping_interval: Span::from_secs(600), ..options() }).await;
    let mut slow = service.connect("topics=product").await;
    overflow(&service, "a").await;
    while frame(&mut slow).await["type"] != "resync" {}
    overflow(&service, "b").await;
    while frame(&mut slow).await["type"] != "resync" {}
    assert_eq!(close_code(&mut slow).await, 1013);
}

#[tokio::test]
async fn a_gap_in_the_feed_is_told() {
    let bus = Arc::new(FakeBus::new());
    let service = serve(bus.clone(), options(), Folder::new()).await;
    let mut socket = service.connect("").await;
    let (before, after) = (Envelope { cursor: Some("c1".into()), ..event("a", 1) }, event("a", 9));
    bus.send_live(before.clone());
    assert_eq!(frame(&mut socket).await["id"], before.id.to_string());
    bus.gap();
    let resync = frame(&mut socket).await;
    assert_eq!((&resync["type"], &resync["cursor"]), (&"resync".into(), &"c1".into()));
    bus.send_live(after.clone());
    assert_eq!(frame(&mut socket).await["id"], after.id.to_string());
}

#[tokio::test]
async fn a_change_of_the_service_s_state_is_told() {
    let service = start(options()).await;
    let mut socket = service.connect("topics=health_check").await;
    let mut bus = service.bus.live();
    let mut state = async || loop {
        let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&frame["type"], &frame["entity"], &frame["version"]),
            (&"health_check".into(), &"health_check".into(), &0.into())
        );
        break frame["data"].clone();
    };
    let check = |status, latency_ms| Check { status, latency_ms, ..Check::default() };
    let tell =
        |name: &str, check| service.checks.send_modify(|checks| _ = checks.insert(name.to_owned(), check));
    tell("redis", check(Condition::Unhealthy, 1.0));
    let degraded = serde_json::json!({ "status": "degraded", "checks": { "redis": "unhealthy" } });
    while state().await != degraded {}
    // and so it is told to those who read the bus
    let told = tokio::time::timeout(WAIT, bus.recv()).await.unwrap().unwrap();
    assert_eq!((told.kind.as_str(), told.entity.as_str(), told.version), ("health_check", "health_check", 0));
    assert_eq!(serde_json::from_str::<Value>(told.data.as_ref().unwrap().get()).unwrap(), degraded);
    // another latency is no news; the hub has looked at it when it tells an event that came later
    tell("redis", check(Condition::Unhealthy, 2.0));
    let mut watcher = service.connect("topics=product").await;
    service.publish(&events(1, 1)).await;
    frame(&mut watcher).await;
    tell("redis", check(Condition::Healthy, 2.0));
    assert_eq!(state().await, serde_json::json!({ "status": "healthy", "checks": { "redis": "healthy" } }));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let service = start(LiveOptions { max_connections: 2, ..options() }).await;
    let long = format!("user_id={}", "a".repeat(Key::MAX + 1));
    for (query, field) in [
        ("topics=product,nonsense", "topics"),
        ("since=nonsense", "since"),
        ("since=", "since"),
        ("user_id=a%00b", "user_id"),
        ("user_id=%ff", "user_id"),
        (long.as_str(), "user_id"),
        ("client_id=", "client_id"),
        ("topic=product", "topic"),
    ] {
        let (status, problem) = service.refused(query).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &field.into()), "{query}: {problem}");
    }
    let other = start(options()).await;
    let cursor = other.bus.head().await.unwrap();
    assert_eq!(service.refused(&format!("since={cursor}")).await.0, 410);

    let response =
        routes(service.live.clone()).oneshot(Request::get("/ws").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 426);

    let one = service.connect("").await;
    let _two = service.connect("").await;
    assert_eq!(service.live.figures().connections, 2);
    assert_eq!(service.refused("").await.0, 503);
    assert_eq!(service.live.figures().refused, 1);
    drop(one);
    until("the client is gone", async || service.live.figures().connections == 1).await;
    // a user's key may be any text
    service.connect("user_id=a%20b").await;
    // a hot change
    service.options.send_modify(|options| options.max_connections = 0);
    assert_eq!(service.refused("").await.0, 503);
}

#[tokio::test]
async fn closes_say_why() {
    let service = start(options()).await;
    let close_after = async |message: Message| {
        let (mut sending, mut receiving) = service.connect("").await.split();
        // what is too large is not read to its end: a client that reads while it sends sees the reason
        let sender = tokio::spawn(async move { sending.send(message).await });
        let code = close_code(&mut receiving).await;
        sender.abort();
        code
    };
    assert_eq!(close_after(Message::binary(vec![1, 2, 3])).await, 1003);
    assert_eq!(close_after(Message::text("x".repeat(handshake::MESSAGE_BYTES_MAX + 1))).await, 1009);
    assert_eq!(close_after(Message::text("x".repeat(4 << 20))).await, 1009);

    let mut talker = service.connect("").await;
    talker.send(Message::text("hello?")).await.unwrap();
    assert_eq!(frame(&mut talker).await["type"], "error");
    talker.send(Message::text("x".repeat(handshake::MESSAGE_BYTES_MAX))).await.unwrap();
    let last = event("a", 1);
    service.publish(std::slice::from_ref(&last)).await;
    assert_eq!(frame(&mut talker).await["id"], last.id.to_string(), "it is told once, and stays");

    let mut leaver = service.connect("").await;
    leaver.close(None).await.unwrap();
    let mut stayer = service.connect("").await;
    service.shutdown.cancel();
    assert_eq!(close_code(&mut stayer).await, 1001);
    assert_eq!(close_code(&mut talker).await, 1001);
    until("all are gone", async || service.live.figures().connections == 0).await;
}

#[tokio::test]
async fn an_event_stream_shows_the_same() {
    let service = start(LiveOptions { ping_interval: Span::from_millis(50), ..options() }).await;
    let start = service.bus.head().await.unwrap();
    let published = events(2, 10);
    service.publish(&published).await;
    let open = async |query: &str, last: Option<&str>| {
        let mut request = Request::get(format!("/api/v1/events/stream?topics=product&{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        routes(service.live.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let read = async |body: &mut Body, enough: &dyn Fn(&str) -> bool| {
        let mut text = String::new();
        while !enough(&text) {
            let frame =
                tokio::time::timeout(WAIT, body.frame()).await.expect("more in time").unwrap().unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
        text
    };
    let data = |text: &str| -> Vec<Value> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    let response = open(&format!("since={start}"), None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let text = read(&mut body, &|text| text.matches("data: ").count() == 20).await;
    assert_eq!(ids(&data(&text)), ids_of(&published));
    let cursors: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(cursors[19], service.bus.head().await.unwrap());
    assert!(read(&mut body, &|text| text.contains("alive")).await.contains(": alive\n\n"));

    // a browser comes back with the address of the first time and the last id
    let mut again = open(&format!("since={start}"), Some(cursors[14])).await.into_body();
    let text = read(&mut again, &|text| text.matches("data: ").count() == 5).await;
    assert_eq!(ids(&data(&text)), ids_of(&published[15..]));
    assert_eq!(open("", Some("nonsense")).await.status(), 400);

    service.shutdown.cancel();
    while let Some(frame) = tokio::time::timeout(WAIT, again.frame()).await.expect("an end") {
        frame.unwrap();
    }
    drop(body);
    until("all are gone", async || service.live.figures().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_one_text() {
    let service = start(LiveOptions { max_connections: 1_000, ..options() }).await;
    let mut sockets = Vec::new();
    for number in 0..200 {
        sockets.push(service.connect(&format!("client_id=c{number}")).await);
    }
    let published = events(5, 20);
    service.publish(&published).await;
    let expected = ids_of(&published);
    for socket in &mut sockets {
        assert_eq!(ids(&frames(socket, 100).await), expected);
    }
    assert_eq!(expected.iter().collect::<HashSet<_>>().len(), 100);
}
