//! What a connection may read ends when the right to it does, whatever was allowed when it was made.

use axum::{extract::Request, middleware::Next};
use crds::pool::Access;

use super::*;
use crate::security::caller::{KeyEnd, Validity};
use model::value::Timestamp;

/// Stands in for the guard: who connects is found by the label.
pub async fn admit(State(callers): State<Callers>, mut request: Request, next: Next) -> Response {
    let params = Params::read(request.uri(), &["user_id", "client_id", "topics", "since"]);
    let caller = params.ok().and_then(|params| callers.lock().get(params.get("client_id")?).cloned());
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

fn now_s() -> i64 {
    Timestamp::now().0 / 1_000
}

fn readable_by(role: &str) -> Policy {
    Policy { access: Access { read: vec![role.to_owned()], ..Access::default() }, ..Policy::open() }
}

impl Service {
    /// A caller with a role, whose token ends some seconds from now.
    fn know(&self, label: &str, role: &str, seconds: i64) -> KeyEnd {
        let validity = Validity { expires_s: now_s() + seconds, key: KeyEnd::default() };
        let (key, roles) = (validity.key.clone(), vec![role.to_owned()]);
        let caller = Arc::new(Caller { subject: label.to_owned(), roles, validity });
        self.callers.lock().insert(label.to_owned(), caller);
        key
    }

    async fn stream(&self, query: &str) -> Body {
        let request = Request::get(format!("/api/v1/events/stream?{query}")).body(Body::empty()).unwrap();
        let app = routes(self.live.clone())
            .layer(axum::middleware::from_fn_with_state(self.callers.clone(), admit));
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body()
    }

    fn ended(&self) -> [u64; 2] {
        [right::TOKEN, right::POLICY]
            .map(|code| self.live.meter.ended.with_label_values(&[&code.to_string()]).get())
    }
}

/// The close code with its reason, before which no event may come.
async fn closed(socket: &mut Socket) -> (u16, String) {
    let close = async {
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Close(frame) => break frame.unwrap(),
                Message::Text(text) => assert!(text.contains("health_check"), "an event came: {text}"),
                _ => {}
            }
        }
    };
    let frame = tokio::time::timeout(WAIT, close).await.expect("a close in time");
    (frame.code.into(), frame.reason.to_string())
}

/// The last event of a stream, with which it ends.
async fn last(mut body: Body) -> Value {
    let mut text = String::new();
    while let Some(frame) = tokio::time::timeout(WAIT, body.frame()).await.expect("an end in time") {
        text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
    }
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap();
    serde_json::from_str(data).unwrap()
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_what_is_open() {
    let service = start(options()).await;
    service.policies.put([("orders", readable_by("clerk"))]);
    service.know("clerk", "clerk", 3_600);
    let mut orders = service.connect("client_id=clerk&topics=order").await;
    let mut all = service.connect("client_id=clerk").await;
    let mut products = service.connect("client_id=clerk&topics=product").await;
    let mut anonymous = service.connect("client_id=nobody").await;
    let stream = service.stream("client_id=clerk&topics=order").await;
    let order = Envelope { kind: "order_created".into(), entity: "order".into(), ..event("o", 1) };
    service.publish(&[order]).await;
    for socket in [&mut orders, &mut all] {
        assert_eq!(frame(socket).await["key"], "o");
    }

    service.policies.put([("orders", readable_by("chief"))]);
    for socket in [&mut orders, &mut all] {
        let (code, reason) = closed(socket).await;
        assert_eq!((code, reason.as_str()), (4403, "the token's roles may no longer read order"));
    }
    let end = last(stream).await;
    assert_eq!((&end["type"], &end["code"]), (&"closed".into(), &4403.into()));
    until("all three are counted", async || service.ended() == [0, 3]).await;
    let metrics = prometheus::TextEncoder::new().encode_to_string(&service.registry.gather()).unwrap();
    assert!(metrics.contains("flyweight_feed_ended_total{code=\"4403\"} 3"), "{metrics}");
    assert_eq!(service.refused("client_id=clerk&topics=order").await.0, 403);

    // whoever did not have what was taken goes on
    let order = Envelope { kind: "order_updated".into(), entity: "order".into(), ..event("o", 2) };
    service.publish(&[order, event("p", 1)]).await;
    for socket in [&mut products, &mut anonymous] {
        assert_eq!(frame(socket).await["key"], "p", "and gets no order");
    }
}

/// On one thread: events are in the queue of a client when its right ends, and the client has not been asked
/// since.
#[tokio::test]
async fn what_is_queued_when_a_right_ends_is_not_sent() {
    let bus = Arc::new(FakeBus::new());
    let service = serve(bus.clone(), options(), Folder::new()).await;
    let catalogue = &service.live.catalogue;
    let right = Right::new(catalogue, service.policies.changes(), Some("product"), None).unwrap();
    let filter = Filter { user: None, topics: right.topics().clone(), asked: true };
    let mut client = Client::connect(service.live.clone(), "c".into(), filter, right, None).await.unwrap();
    (1..=3).for_each(|version| bus.send_live(event("a", version)));
    assert!(matches!(client.next().await, client::Item::Frame(_)));
    assert!(client.next_now().is_some(), "more is queued");
    service.policies.put([("products", readable_by("chief"))]);
    assert!(client.next_now().is_none(), "the right is asked for at each frame");
    assert!(matches!(client.next().await, client::Item::Ended(_)));
    assert!(matches!(client.next().await, client::Item::Ended(_)), "and it stays ended");
}

#[tokio::test]
async fn a_connection_ends_with_its_token_and_with_the_key_that_signed_it() {
    let service = start(options()).await;
    service.know("short", "any", 5);
    let key = service.know("long", "any", 3_600);
    let mut short = service.connect("client_id=short").await;
    let stream = service.stream("client_id=short").await;
    let mut long = service.connect("client_id=long&topics=product").await;
    let (code, reason) = closed(&mut short).await;
    assert_eq!((code, reason.as_str()), (4401, "the token has ended: connect with a new one"));
    assert_eq!(last(stream).await["code"], 4401);
    assert_eq!(service.refused("client_id=short").await.0, 401, "it would end at once");
    until("both are counted", async || service.ended() == [2, 0]).await;

    service.publish(&[event("p", 1)]).await;
    assert_eq!(frame(&mut long).await["key"], "p");
    key.set(now_s());
    service.publish(&[event("p", 2)]).await;
    assert_eq!(closed(&mut long).await.0, 4401, "at the next frame at the latest");
}

#[tokio::test]
async fn the_event_of_a_deleted_record_reaches_its_user_alone() {
    let service = start(options()).await;
    let mut ann = service.connect("user_id=ann").await;
    let mut bob = service.connect("user_id=bob").await;
    let deleted = |key: &str, owner: &str| Envelope {
        kind: "order_deleted".into(),
        entity: "order".into(),
        owner: Some(owner.to_owned()),
        data: None,
        ..event(key, 2)
    };
    service.publish(&[deleted("of-ann", "ann"), deleted("of-bob", "bob")]).await;
    assert_eq!(frame(&mut bob).await["key"], "of-bob");
    let seen = frame(&mut ann).await;
    assert_eq!((&seen["key"], &seen["owner"]), (&"of-ann".into(), &"ann".into()));
}
