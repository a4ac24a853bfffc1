//! One connection before two pods that know nothing of each other's writes: what it has read or written, by
//! whichever route, is never older in a later read.

use super::{groups::gateway_before, *};
use crate::{
    config,
    gateway::proxy::Proxy,
    server::memory::{ABOUT, ConnectionMemory},
};

const PRODUCTS: &str = "/api/v1/products";
const KEYS: [&str; 3] = ["p0", "p1", "p2"];

/// The pods, a gateway before them, and what the connection has seen.
struct Connected {
    pods: [Server; 2],
    proxy: Proxy,
    memory: ConnectionMemory,
    seen: BTreeMap<String, u64>,
    _settings: watch::Sender<Arc<config::Loaded>>,
}

impl Connected {
    async fn open() -> Self {
        let folder = Folder::new();
        let store: Arc<dyn RecordStore> =
            Arc::new(SqlStore::sqlite(&folder.path().join("data.db"), Arc::new(Plain)).unwrap());
        let all = [collection_of(Entity::Product)];
        store.prepare(&all).await.unwrap();
        let mut pods = [Server::over(&store, &all).await, Server::over(&store, &all).await];
        pods[0]._folder = Some(folder);
        let (settings, proxy) = gateway_before(&[("main", &pods)], &all).await;
        Self { pods, proxy, memory: ConnectionMemory::default(), seen: BTreeMap::new(), _settings: settings }
    }

    async fn call(&mut self, method: Method, path: &str, body: &str) -> Json {
        let request = Request::builder().method(&method).uri(path).header("content-type", "application/json");
        let request = request.body(axum::body::Body::from(body.to_owned())).unwrap();
        let answer = self.proxy.forward(request, ([127, 0, 0, 1], 1).into(), &self.memory).await;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes));
        assert!(!headers.contains_key(ABOUT), "what pods tell the gateway is no client's");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Notes the versions of an answer; one record alone must be as new as it was seen before.
    fn see(&mut self, records: &[Json], alone: bool, what: &str) {
        for record in records {
            let (key, version) =
                (record["id"].as_str().unwrap().to_owned(), record["version"].as_u64().unwrap());
            let known = self.seen.entry(key).or_default();
            assert!(!alone || version >= *known, "{what}: version {version} after {known}");
            *known = version.max(*known);
        }
    }
}

#[tokio::test]
async fn no_read_of_a_connection_is_older_than_what_it_has_seen_by_any_route() {
    let mut connected = Connected::open().await;
    for key in KEYS {
        let body = format!(r#"{{"id":"{key}","name":"Cup","price":"1"}}"#);
        connected.call(Method::POST, PRODUCTS, &body).await;
    }
    let mut draw = 7_u64;
    for round in 0..600 {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = KEYS[(draw >> 33) as usize % KEYS.len()];
        let price = round + 1;
        // somebody else, at one of the pods: the other one does not learn of it
        let pod = &connected.pods[(draw >> 40) as usize % 2];
        pod.patch(&format!("/products/{key}"), &format!(r#"{{"price":"{price}"}}"#)).await.expect(200);
        let (route, answer) = match (draw >> 45) % 6 {
            0 => ("list", connected.call(Method::GET, PRODUCTS, "").await["items"].take()),
            1 => (
                "ids",
                connected.call(Method::GET, &format!("{PRODUCTS}?ids=p0,p1,p2"), "").await["items"].take(),
            ),
            2 => {
                let body = r#"{"repository":"products"}"#;
                (
                    "query",
                    connected.call(Method::POST, "/api/v1/repositories/query", body).await["items"].take(),
                )
            }
            3 => {
                let body = format!(
                    r#"{{"operations":[{{"op":"patch","id":"{key}","data":{{"price":"{price}.5"}}}}]}}"#
                );
                (
                    "batch",
                    connected.call(Method::POST, &format!("{PRODUCTS}/batch"), &body).await["results"].take(),
                )
            }
            4 => (
                "search",
                connected.call(Method::GET, &format!("{PRODUCTS}/search?q=cup"), "").await["items"].take(),
            ),
            _ => ("one", Json::Null),
        };
        let records = answer.as_array().cloned().unwrap_or_default();
        assert_eq!(route == "one", records.is_empty(), "{route}");
        connected.see(&records, false, route);
        for key in KEYS {
            let read = connected.call(Method::GET, &format!("{PRODUCTS}/{key}"), "").await;
            connected.see(&[read], true, route);
        }
    }
}
