//! The gateway before two groups with no pool in common: every route of the table is answered as by one
//! process that serves all pools.

use std::collections::BTreeSet;
use std::path::PathBuf;

use axum::{body::Body, routing::get};
use crds::{
    service::gateway::BalanceStrategy,
    settings::{GroupSettings, PoolSettings, Settings},
};
use rustls::{ClientConfig, RootCertStore};

use ::testing::until;

use super::*;
use crate::{
    config,
    gateway::{client::UpstreamClient, health, proxy::Proxy},
    server::memory::ConnectionMemory,
};
use model::routes::{self, Effect, Entry};

/// What the first group serves; the second serves the others.
const FIRST: [&str; 4] = ["users", "products", "notification_templates", "stores"];
const STRATEGIES: [BalanceStrategy; 4] = [
    BalanceStrategy::RoundRobin,
    BalanceStrategy::LeastConnections,
    BalanceStrategy::WeightedRoundRobin,
    BalanceStrategy::ConsistentHash,
];

/// One process with everything, and two that share it out behind a gateway, over one store.
struct Shop {
    whole: Server,
    groups: [Server; 2],
    settings: watch::Sender<Arc<config::Loaded>>,
    proxy: Proxy,
}

impl Shop {
    /// Whether the lists of all collections are the same through the gateway as of one process.
    async fn lists_agree(&self) -> bool {
        for pool in &self.whole.pools {
            let path = &pool.resource.path;
            let (directly, through) =
                (self.directly(&Method::GET, path, "").await, self.through(&Method::GET, path, "").await);
            if directly.text != through.text {
                return false;
            }
        }
        true
    }

    async fn open() -> Self {
        let folder = Folder::new();
        let file = folder.path().join("data.db");
        declare(&file).await;
        let declared = [declared("stores", Some("version")), declared("regions", None)];
        let store: Arc<dyn RecordStore> = Arc::new(SqlStore::sqlite(&file, Arc::new(Plain)).unwrap());
        let all: Vec<_> = Entity::built_in().map(collection_of).chain(declared).collect();
        store.prepare(&all).await.unwrap();
        let (first, second): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|one| FIRST.contains(&one.pool.as_str()));
        let mut whole = Server::group(&store, &all, &all, by_app(true)).await;
        whole._folder = Some(folder);
        let groups = [
            Server::group(&store, &first, &all, by_app(false)).await,
            Server::group(&store, &second, &all, by_app(true)).await,
        ];
        let (settings, proxy) =
            gateway_before(&[("first", &groups[..1]), ("second", &groups[1..])], &all).await;
        Self { whole, groups, settings, proxy }
    }

    fn balance_by(&self, strategy: BalanceStrategy) {
        self.settings.send_modify(|loaded| {
            Arc::make_mut(loaded).settings.gateway.as_mut().unwrap().strategy = strategy;
        });
    }

    /// What the gateway answers.
    async fn through(&self, method: &Method, uri: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let memory = ConnectionMemory::default();
        let response = self.proxy.forward(request, ([127, 0, 0, 1], 1).into(), &memory).await;
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap();
        Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// What the one process answers.
    async fn directly(&self, method: &Method, uri: &str, body: &str) -> Answer {
        self.whole.with(method.clone(), &format!("/{uri}"), body).await
    }
}

/// A gateway before these groups of pods, and what changes its settings.
pub(super) async fn gateway_before(
    groups: &[(&str, &[Server])],
    all: &[Arc<Collection>],
) -> (watch::Sender<Arc<config::Loaded>>, Proxy) {
    _ = rustls::crypto::ring::default_provider().install_default();
    let (settings, follow) = watch::channel(Arc::new(loaded(groups, all)));
    let tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let proxy = Proxy::new(follow, UpstreamClient::new(tls, false), Budgets::default());
    for (group, pods) in groups {
        let addrs = pods.iter().map(|pod| pod.address.parse().unwrap()).collect();
        let new = proxy.registry.set_group(group, addrs);
        health::check_all(&proxy, &new, Duration::from_secs(5)).await;
    }
    (settings, proxy)
}

/// What stands for the routes that the app adds: those of orders are where orders are.
fn by_app(orders: bool) -> Router {
    let says = |text: &'static str| async move || axum::Json(serde_json::json!({ "says": text }));
    let mut router = Router::new();
    for route in [&routes::WEB_SOCKET, &routes::WEB_SOCKET_OF_API, &routes::EVENT_STREAM] {
        router = router.route(route.path, get(says("feed")));
    }
    router = router
        .route(routes::LETTERS.path, get(says("letters")))
        .route(routes::LETTER.path, get(says("letter")).delete(says("gone")));
    let replayed = if orders { Ok(()) } else { Err(StatusCode::CONFLICT) };
    let done =
        serde_json::json!({ "replayed": i32::from(orders), "failed": 0, "more": false, "next_cursor": null });
    router = router
        .route(routes::REPLAY_LETTER.path, axum::routing::post(async move || replayed))
        .route(routes::REPLAY_LETTERS.path, axum::routing::post(async move || axum::Json(done)));
    if orders {
        router = router
            .route(routes::TIMELINE.path, get(says("timeline")))
            .route(routes::CANCEL.path, axum::routing::post(says("cancelled")))
            .route(routes::PIPELINE.path, get(says("pipeline")));
    }
    router
}

/// The settings of a service with these pools in these groups.
fn loaded(groups: &[(&str, &[Server])], all: &[Arc<Collection>]) -> config::Loaded {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/samples"));
    let mut loaded = config::Source::Manifests { dir, service: None }.load().unwrap();
    let settings: &mut Settings = &mut loaded.settings;
    let sample = settings.pools[0].clone();
    let pool = |one: &Arc<Collection>| PoolSettings {
        name: one.pool.clone(),
        entity: entity_of(&one.schema),
        fields: Vec::new(),
        ..sample.clone()
    };
    settings.pools = all.iter().map(pool).collect();
    let group = |(name, pods): &(&str, &[Server])| {
        let pools = pods[0].pools.iter().map(|pool| pool.resource.pool().to_owned()).collect();
        GroupSettings { name: (*name).to_owned(), pools, weight: 1 }
    };
    settings.groups = groups.iter().map(group).collect();
    loaded
}

/// The record of each collection that requests are about, under a key of the asker.
fn record(entity: Entity, key: &str) -> Json {
    use serde_json::json;
    match entity {
        Entity::User => json!({ "id": key, "email": format!("{key}@example.com"), "name": "Ada" }),
        Entity::Payment => json!({ "id": key, "user_id": "u1", "amount": "5", "currency": "EUR" }),
        Entity::Order => {
            json!({ "id": key, "user_id": "u1", "items": [{ "product_id": "lamp", "quantity": 1 }] })
        }
        Entity::Product => json!({ "id": key, "name": "Cup", "price": "2", "category": "kitchen" }),
        Entity::NotificationTemplate => {
            json!({ "id": key, "template": key, "subject": "Hi", "body": "Hello", "channels": ["email"] })
        }
        Entity::Configuration => json!({ "id": key, "value": { "a": 1 } }),
        Entity::Custom => json!({ "code": key, "phone": "1" }),
        #[allow(unreachable_patterns, reason = "entities that are added have an example")]
        added => {
            let mut example: Json = serde_json::from_str(added.definition().example).unwrap();
            example["id"] = key.into();
            example
        }
    }
}

/// What a request of an entry says, about a record with this key.
fn body_of(entry: &Entry, key: &str, fresh: &str) -> Json {
    use serde_json::json;
    let (method, path) = (&entry.route.method, entry.route.path);
    let own = || entry.home.map(|home| record(home, key)).unwrap_or_default();
    match (method, path) {
        (&Method::POST, "") => entry.home.map(|home| record(home, fresh)).unwrap_or_default(),
        (&Method::PUT, "" | "/{key}") => own(),
        (&Method::PATCH, _) => {
            let mut patch = own();
            patch
                .as_object_mut()
                .unwrap()
                .retain(|name, _| matches!(name.as_str(), "name" | "phone" | "value" | "subject"));
            patch
        }
        (_, "/batch") => {
            json!({ "operations": [{ "op": "delete", "id": key }, { "op": "delete", "id": "none" }] })
        }
        _ if path == routes::EVENTS.path => json!({ "product_id": "lamp", "price": "3", "stock": 4 }),
        _ if path == routes::PAYMENT_STATUS.path => json!({ "status": "completed" }),
        _ if path == routes::RENDER.path => json!({ "variables": {} }),
        _ if path == routes::REPOSITORY_QUERY.path => json!({ "repository": "payments" }),
        _ if path == routes::CACHE_WARM.path => json!({ "repository": "users", "ids": ["u1"] }),
        _ => json!({}),
    }
}

/// What two right answers have in common: keys of the asker, times, versions of processes and counters are
/// not.
fn shape(answer: &Answer, keys: [&str; 2], counts: bool) -> (u16, Json) {
    let text = answer.text.replace(keys[0], "KEY").replace(keys[1], "FRESH");
    let mut body = serde_json::from_str(&text).unwrap_or(Json::String(text));
    if let Some(members) = body.as_object_mut().filter(|_| answer.status.is_client_error()) {
        // a group names the pools that it knows
        members.remove("detail");
        for error in members.get_mut("errors").and_then(Json::as_array_mut).into_iter().flatten() {
            error["message"] = Json::Null;
        }
    }
    settle(&mut body, counts);
    (answer.status.as_u16(), body)
}

/// Whether it reads, and of no single record.
fn is_only_read(entry: &Entry) -> bool {
    entry.route.effect == Effect::Reads && !entry.path().contains("{key}")
}

/// The first place where two documents differ, and what they have there.
fn difference(one: &Json, other: &Json, place: &str) -> Option<String> {
    match (one, other) {
        (Json::Object(ones), Json::Object(others)) => {
            let names: BTreeSet<&String> = ones.keys().chain(others.keys()).collect();
            let of = |members: &serde_json::Map<String, Json>, name: &str| {
                members.get(name).cloned().unwrap_or_else(|| "nothing".into())
            };
            names
                .into_iter()
                .find_map(|name| difference(&of(ones, name), &of(others, name), &format!("{place}/{name}")))
        }
        (Json::Array(ones), Json::Array(others)) if ones.len() == others.len() => {
            let mut pairs = ones.iter().zip(others).enumerate();
            pairs.find_map(|(at, (one, other))| difference(one, other, &format!("{place}/{at}")))
        }
        (one, other) => (one != other).then(|| format!("{place} is {one} and {other}")),
    }
}

fn settle(value: &mut Json, counts: bool) {
    match value {
        Json::Object(members) => {
            for (name, member) in members.iter_mut() {
                if name.ends_with("_at")
                    || matches!(name.as_str(), "at" | "last_cleanup" | "request_id" | "ticket" | "trace_id")
                {
                    *member = Json::Null;
                }
                settle(member, counts);
            }
        }
        Json::Array(elements) => {
            elements.iter_mut().for_each(|element| settle(element, counts));
            let named = |element: &Json| element.is_string() || element["name"].is_string();
            if elements.iter().all(named) {
                elements
                    .sort_by_key(|element| element["name"].as_str().or(element.as_str()).map(str::to_owned));
            }
        }
        Json::Number(number) if counts => *number = 0.into(),
        Json::Number(_) | Json::String(_) | Json::Bool(_) | Json::Null => (),
    }
}

/// The paths of an entry, with a record's key, and the queries to ask.
fn paths_of(entry: &Entry, key: &str, pools: &[Pool]) -> Vec<String> {
    let words = [("{user_id}", "u1"), ("{category}", "kitchen"), ("{version}", "1"), ("{type}", "mysql")];
    let path =
        words.iter().fold(entry.path(), |path, (name, word)| path.replace(name, word)).replace("{key}", key);
    let by_id = entry.route.path.is_empty() && entry.route.method != Method::POST;
    let custom = pools.iter().filter(|pool| pool.entity == Entity::Custom).map(|pool| pool.resource.pool());
    let mut paths: Vec<String> = match (path.contains("{pool}"), path.contains("{kind}")) {
        (true, _) => custom.map(|pool| path.replace("{pool}", pool)).collect(),
        (_, true) => {
            ["user_created", "payment_updated", "nothing"].map(|kind| path.replace("{kind}", kind)).into()
        }
        _ => vec![path],
    };
    match entry.route.method {
        Method::GET if by_id => paths.extend(paths.clone().iter().map(|path| format!("{path}?id={key}"))),
        _ if by_id => paths.iter_mut().for_each(|path| path.push_str(&format!("?id={key}"))),
        _ if entry.route.path.contains("/audit") => {
            let more =
                ["user", "payments", "nothing"].map(|entity| format!("{}?entity={entity}", entry.path()));
            paths.extend(more);
        }
        _ if entry.route.path == routes::EVENT_STREAM.path => {
            paths.push(format!("{}?topics=user,payment", paths[0]))
        }
        _ => (),
    }
    paths
}

#[tokio::test]
async fn every_route_is_answered_as_by_one_process_whatever_groups_serve() {
    let shop = Shop::open().await;
    assert!(
        shop.groups.iter().all(|group| !group.pools.is_empty() && group.pools.len() < shop.whole.pools.len())
    );
    shop.whole.sql("INSERT INTO regions (code, phone) VALUES ('k0', '1')").await;
    for entity in [Entity::User, Entity::Product] {
        let key = if entity == Entity::User { "u1" } else { "lamp" };
        let made =
            shop.directly(&Method::POST, routes::home_of(entity), &record(entity, key).to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let mut seen = 0;
    for (round, strategy) in STRATEGIES.into_iter().enumerate() {
        shop.balance_by(strategy);
        // a list of another process may be an event behind, so those that are only read come first
        let mut entries: Vec<Entry> = routes::all().collect();
        entries.sort_by_key(|entry| !is_only_read(entry));
        until("all processes list the same", async || shop.lists_agree().await).await;
        for (number, entry) in entries.into_iter().enumerate() {
            if entry.route.path == routes::GATEWAY_REGISTRY.path {
                continue;
            }
            let id = format!("{round}x{number}");
            let keys = [format!("k{id}"), format!("g{id}")];
            let fresh = [format!("f{id}"), format!("h{id}")];
            let count = paths_of(&entry, "", &shop.whole.pools).len();
            for at in 0..count {
                let mut answers = Vec::new();
                for side in 0..2 {
                    seed(&shop, &entry, &keys[side]).await;
                    let path = paths_of(&entry, &keys[side], &shop.whole.pools).swap_remove(at);
                    let body = body_of(&entry, &keys[side], &fresh[side]);
                    let body =
                        if entry.route.method == Method::GET { String::new() } else { body.to_string() };
                    let answer = match side {
                        0 => shop.directly(&entry.route.method, &path, &body).await,
                        _ => shop.through(&entry.route.method, &path, &body).await,
                    };
                    answers.push((path, answer));
                }
                let [(path, directly), (_, through)] = &answers[..] else { unreachable!() };
                let counts =
                    ["/factory", "/cache/", "/health", "/figures"].iter().any(|part| path.contains(part));
                let what = format!("{} {path} by {strategy:?}", entry.route.method);
                let (directly_shape, through_shape) = (
                    shape(directly, [&keys[0], &fresh[0]], counts),
                    shape(through, [&keys[1], &fresh[1]], counts),
                );
                assert_eq!(
                    directly_shape.0, through_shape.0,
                    "{what}: {} and {}",
                    directly.text, through.text
                );
                if let Some(found) = difference(&directly_shape.1, &through_shape.1, "") {
                    panic!("{what}: {found}");
                }
                assert!(directly.status.as_u16() < 500, "{what}");
                seen += usize::from(directly.status.is_success());
            }
        }
    }
    assert!(seen > 300, "only {seen} answers say more than what is wrong");
}

#[tokio::test]
async fn what_is_joined_has_a_tag_that_any_form_of_it_names() {
    let shop = Shop::open().await;
    let document = shop.through(&Method::GET, routes::OPENAPI.path, "").await;
    let tag = document.header("etag");
    for (asked, status) in [
        (tag.to_owned(), 304),
        (format!("\"x\", W/{tag}"), 304),
        ("*".to_owned(), 304),
        ("\"x\"".to_owned(), 200),
    ] {
        let request =
            Request::get(routes::OPENAPI.path).header("if-none-match", &asked).body(Body::empty()).unwrap();
        let answer =
            shop.proxy.forward(request, ([127, 0, 0, 1], 1).into(), &ConnectionMemory::default()).await;
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["etag"].to_str().unwrap()),
            (status, tag),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_group_that_is_away_is_told_of_where_that_is_the_question_and_no_half_is_given_elsewhere() {
    let shop = Shop::open().await;
    shop.proxy.registry.set_group("second", Vec::new());
    let asked = |path: &'static str| shop.through(&Method::GET, path, "");
    for (path, status) in [(routes::HEALTH.path, 503), (routes::FIGURES.path, 200)] {
        let answer = asked(path).await;
        let told = serde_json::from_str::<Json>(&answer.text).unwrap();
        assert_eq!(answer.status, status, "{path}: {told}");
        assert_eq!(
            (&told["status"], &told["checks"]["group second"]["status"]),
            (&"unhealthy".into(), &"unhealthy".into())
        );
    }
    for path in [routes::POOLS.path, routes::OPENAPI.path, routes::AUDIT.path] {
        assert_eq!(asked(path).await.status, 503, "{path}");
    }
    assert_eq!(asked("/api/v1/users").await.status, 200, "what the others serve goes on");
}

/// Makes the record that a request is about.
async fn seed(shop: &Shop, entry: &Entry, key: &str) {
    let Some(home) = entry.home else { return };
    if is_only_read(entry) || entry.route.method == Method::POST && entry.route.path.is_empty() {
        return;
    }
    let path = routes::home_of(home).replace("{pool}", "stores");
    let made = shop.directly(&Method::POST, &path, &record(home, key).to_string()).await;
    assert!(matches!(made.status.as_u16(), 201 | 409), "{path}: {}", made.text);
}

#[tokio::test]
async fn documents_of_all_groups_are_one_with_a_tag_of_its_own() {
    let shop = Shop::open().await;
    let path = routes::OPENAPI.path;
    let (directly, through) =
        (shop.directly(&Method::GET, path, "").await, shop.through(&Method::GET, path, "").await);
    let names =
        |answer: &Answer| answer.json()["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&directly), names(&through));
    let tag = through.header("etag").to_owned();
    let again = Request::builder().uri(path).header("if-none-match", &tag).body(Body::empty()).unwrap();
    let again = shop.proxy.forward(again, ([127, 0, 0, 1], 1).into(), &ConnectionMemory::default()).await;
    assert_eq!((again.status().as_u16(), again.headers()["etag"].to_str().unwrap()), (304, tag.as_str()));
}
