//! `/livez` on the admin port is answered at once, whatever callers send.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use harness::{client::Api, scale};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

use super::{Shop, TOKENS, address, authorization, probing::Probing};

/// How long an attack goes on.
const SECONDS: (usize, usize) = (4, 30);
/// Connections with one byte of a body, and with half a head.
const BODIES: usize = 600;
const HEADS: usize = 500;
/// The time of a head, and how much later all of those that took longer have ended.
const HEAD_MAX: Duration = Duration::from_secs(10);
const HEADS_END: Duration = Duration::from_secs(20);
/// Clients that send bad tokens as fast as they are answered.
const LIARS: usize = 8;
/// How long the write of another client may take.
const WRITE: Duration = Duration::from_secs(2);

type Statuses = BTreeMap<u16, usize>;

fn duration() -> Duration {
    Duration::from_secs(scale::of(SECONDS.0, SECONDS.1) as u64)
}

fn probing(shop: &Shop) -> [Probing; 2] {
    [Probing::start("pod", &shop.pods[0]), Probing::start("gateway", &shop.gateway)]
}

/// Both doors, by turns.
fn doors(shop: &Shop) -> impl Iterator<Item = &str> {
    [shop.pods[0].url.as_str(), shop.gateway.url.as_str()].into_iter().cycle()
}

async fn open(url: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(url)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Creates a product; how long that took.
async fn create(api: &Api, token: &str) -> Duration {
    let (begun, product) = (Instant::now(), json!({ "name": "Lamp", "price": 1 }));
    let created = api.send(Method::POST, "/api/v1/products", &[("authorization", token)], &product).await;
    assert_eq!(created.status, 201, "{}", created.text);
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn livez_is_answered_at_once_during_every_attack() {
    let shop = Shop::open(1, TOKENS).await;
    one_byte_of_each_body(&shop).await;
    half_of_each_head(&shop).await;
    renders_of_much(&shop).await;
    bad_tokens(&shop).await;
}

async fn one_byte_of_each_body(shop: &Shop) {
    let (probing, token) = (probing(shop), authorization());
    let head = format!(
        "POST /api/v1/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: {token}\r\n\
         content-length: 100\r\n\r\n{{"
    );
    let mut bodies = Vec::new();
    for url in doors(shop).take(BODIES) {
        bodies.push(open(url, &head).await);
    }
    let (mut writes, until) = (Vec::new(), Instant::now() + duration());
    let apis: Vec<Api> = doors(shop).take(2).map(Api::at).collect();
    for api in apis.iter().cycle() {
        writes.push(create(api, &token).await);
        if Instant::now() > until {
            break;
        }
    }
    let waiting = bodies.iter().filter(|body| body.try_read(&mut [0]).is_err()).count();
    let slowest = writes.iter().max().copied().unwrap_or_default();
    for probing in probing {
        probing.end("one byte of each body");
    }
    eprintln!(
        "{waiting} of {BODIES} bodies were still awaited; {} writes beside them, the slowest in {slowest:.1?}",
        writes.len()
    );
    // pods wait for 10 s, the gateway for 30 s
    assert!(scale::is_soak() || waiting == BODIES, "the attack went on to the end: {waiting}");
    assert!(slowest < WRITE, "{slowest:?}");
}

async fn half_of_each_head(shop: &Shop) {
    let probing = probing(shop);
    let mut heads = JoinSet::new();
    for url in doors(shop).take(HEADS) {
        let mut stream = open(url, "GET /api/v1/products HTTP/1.1\r\nhost: localhost\r\nx: ").await;
        heads.spawn(async move {
            let begun = Instant::now();
            let (mut read, mut write) = stream.split();
            let steadily = async {
                let mut ticks = interval(Duration::from_secs(1));
                loop {
                    ticks.tick().await;
                    if write.write_all(b"x").await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            let mut answer = [0; 64];
            let length = tokio::select! {
                length = read.read(&mut answer) => length.unwrap_or(0),
                () = steadily => 0,
            };
            (begun.elapsed(), status(&answer[..length]))
        });
    }
    let ended = timeout(HEADS_END, heads.join_all())
        .await
        .unwrap_or_else(|_| panic!("not all ended within {HEADS_END:?}"));
    for probing in probing {
        probing.end("half of each head");
    }
    let times: Vec<Duration> = ended.iter().map(|(time, _)| *time).collect();
    let (first, last) = (times.iter().min().copied().unwrap(), times.iter().max().copied().unwrap());
    let statuses = counted(ended.iter().map(|(_, status)| *status));
    eprintln!("{HEADS} halves of heads were answered with {statuses:?}, after {first:.1?} to {last:.1?}");
    assert_eq!(statuses, [(408, HEADS)].into());
    assert!(first > HEAD_MAX.mul_f64(0.9), "{first:?}");
}

async fn renders_of_much(shop: &Shop) {
    let (token, api) = (authorization(), Api::at(&shop.pods[0].url));
    let body = "{% for a in items %}{% for b in items %}{{ a }}{{ b | upper }}{% endfor %}{% endfor %}";
    let template =
        json!({ "id": "much", "template": "t", "subject": "s", "body": body, "channels": ["email"] });
    let made = api
        .send(Method::POST, "/api/v1/notifications/templates", &[("authorization", &token)], &template)
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let probing = probing(shop);
    let until = Instant::now() + duration();
    let mut renders = JoinSet::new();
    // more than variables may have, and as much as they may
    for bytes in [400_000, 200_000] {
        for url in doors(shop).take(2) {
            let (api, token) = (Api::at(url), token.clone());
            let variables: Vec<String> =
                (0..1_000).map(|item| format!("{item:04}").repeat(bytes / 4_000)).collect();
            let variables = json!({ "variables": { "items": variables } });
            renders.spawn(async move {
                let mut statuses = Vec::new();
                while Instant::now() < until {
                    let path = "/api/v1/notifications/templates/much/render";
                    let answer = api.send(Method::POST, path, &[("authorization", &token)], &variables).await;
                    statuses.push((bytes, answer.status));
                }
                statuses
            });
        }
    }
    let all = renders.join_all().await.concat();
    for probing in probing {
        probing.end("renders of much");
    }
    let of = |bytes: usize| counted(all.iter().filter(|(of, _)| *of == bytes).map(|(_, status)| *status));
    let (large, fitting) = (of(400_000), of(200_000));
    eprintln!("renders with 400 kB of variables: {large:?}; with 200 kB: {fitting:?}");
    assert!(large.keys().eq(&[413]), "{large:?}");
    assert!(!fitting.is_empty() && fitting.keys().all(|status| [400, 503].contains(status)), "{fitting:?}");
}

async fn bad_tokens(shop: &Shop) {
    let probing = probing(shop);
    let until = Instant::now() + duration();
    let mut liars = JoinSet::new();
    for (number, url) in doors(shop).take(LIARS).enumerate() {
        let api = Api::at(url);
        liars.spawn(async move {
            let mut statuses = Vec::new();
            while Instant::now() < until {
                let token = format!("{}{number}", authorization());
                let answer = api
                    .send(Method::GET, "/api/v1/products", &[("authorization", &token)], &Value::Null)
                    .await;
                statuses.push(answer.status);
            }
            statuses
        });
    }
    let statuses = counted(liars.join_all().await.concat());
    for probing in probing {
        probing.end("bad tokens");
    }
    let count: usize = statuses.values().sum();
    eprintln!("{count} bad tokens in {:?}: {statuses:?}", duration());
    assert!(statuses.keys().eq(&[401, 429]), "{statuses:?}");
    assert!(count > 500, "a high rate: {count}");
}

fn status(answer: &[u8]) -> u16 {
    String::from_utf8_lossy(answer).split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn counted(statuses: impl IntoIterator<Item = u16>) -> Statuses {
    let mut counts = Statuses::new();
    for status in statuses {
        *counts.entry(status).or_default() += 1;
    }
    counts
}
