//! Paths and methods: what is served, what is not, and what the answer says then.

use super::*;

#[tokio::test]
async fn unknown_paths_and_pools_say_what_is_served() {
    let server = Server::start().await;
    for path in ["/", "/nothing", "///", "//users", "/users/a/b/c", "/products/"] {
        server.get(path).await.problem(404);
    }
    for path in ["/pools/none", "/pools/none/key", "/pools/products"] {
        let answer = server.get(path).await;
        answer.problem(404);
        assert!(
            answer.json()["detail"].as_str().unwrap().contains("stores at /api/v1/pools/stores"),
            "{}",
            answer.text
        );
    }
    let pools = server.get("/pools").await.expect(200).json();
    let of = |name: &str| {
        pools["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == name).cloned().unwrap()
    };
    assert_eq!(of("users")["path"], "/api/v1/users");
    assert_eq!(
        (of("stores")["writable"].clone(), of("regions")["writable"].clone()),
        (true.into(), false.into())
    );
}

#[tokio::test]
async fn an_entity_without_a_pool_is_named() {
    let folder = Folder::new();
    let store: Arc<dyn RecordStore> =
        Arc::new(SqlStore::sqlite(&folder.path().join("data.db"), Arc::new(Plain)).unwrap());
    let collections = [collection_of(Entity::Payment), collection_of(Entity::Order)];
    store.prepare(&collections).await.unwrap();
    let server = Server::over(&store, &collections).await;
    for (method, path) in
        [(Method::GET, "/users/u"), (Method::POST, "/users"), (Method::GET, "/notifications/templates/x")]
    {
        let answer = server.with(method, path, "{}").await;
        answer.problem(404);
        assert!(
            answer.json()["detail"].as_str().unwrap().contains("payments at /api/v1/payments"),
            "{}",
            answer.text
        );
    }
    assert_eq!(server.get("/users/u/payments").await.expect(200).json()["total"], 0);
    // Without a catalogue an item needs its price.
    let order = server.post("/orders", r#"{"user_id":"u","items":[{"product_id":"p","quantity":1}]}"#).await;
    assert_eq!(order.problem(400), ["items[0].price"]);
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_are_allowed() {
    let server = Server::start().await;
    for (method, path, allowed) in [
        (Method::TRACE, "/users", "GET,HEAD,POST,PUT,PATCH,DELETE"),
        (Method::POST, "/users/a", "GET,HEAD,PUT,DELETE,PATCH"),
        (Method::GET, "/payments/a/status", "PUT"),
        (Method::POST, "/pools/stores/a", "GET,HEAD,PUT,DELETE,PATCH"),
        (Method::PUT, "/pools/regions/a", "GET,HEAD"),
        (Method::DELETE, "/pools", "GET,HEAD"),
    ] {
        let sorted = |list: &str| {
            let mut list: Vec<String> = list.split(',').map(|method| method.trim().to_owned()).collect();
            list.sort();
            list
        };
        let answer = server.with(method, path, "{}").await;
        answer.problem(405);
        assert_eq!(sorted(answer.header("allow")), sorted(allowed), "{path}");
        let options = server.send(Method::OPTIONS, path, &[], "").await.expect(204);
        assert_eq!(sorted(options.header("allow")), sorted(allowed), "{path}");
    }
}

#[tokio::test]
async fn head_is_a_read_without_its_body() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"p","name":"Tea","price":1}"#).await.expect(201);
    let read = server.get("/products/p").await;
    let head = server.send(Method::HEAD, "/products/p", &[], "").await.expect(200);
    assert_eq!((head.text.as_str(), head.header("etag")), ("", "\"1\""));
    assert_eq!(head.header("content-length"), read.text.len().to_string());
    server.send(Method::HEAD, "/products/none", &[], "").await.expect(404);
}

#[tokio::test]
async fn health_is_at_both_places() {
    let server = Server::start().await;
    for base in ["/", "//"] {
        assert_eq!(server.get(&format!("{base}health")).await.expect(200).json()["status"], "healthy");
        server.get(&format!("{base}livez")).await.expect(200);
        server.get(&format!("{base}readyz")).await.expect(200);
    }
}

/// A key with a digit goes the direct way, any other through the router: nobody can tell.
#[tokio::test]
async fn the_direct_way_to_a_record_answers_as_the_router_does() {
    let server = Server::start().await;
    for id in ["lamp", "lamp-1"] {
        let body = format!("{{\"id\":\"{id}\",\"name\":\"Lamp\",\"price\":\"1.5\"}}");
        server.with(Method::POST, "/products", &body).await.expect(201);
    }
    for path in ["", "?x=1", "?", "/", "/x", "%20", "%31"] {
        let [routed, direct] = [
            server.get(&format!("/products/lamp{path}")).await,
            server.get(&format!("/products/lamp-1{path}")).await,
        ];
        let unnamed = |answer: &Answer| answer.text.replace("lamp-1", "lamp");
        assert_eq!(routed.status, direct.status, "{path}");
        let times = |text: &str| text.split("\"created_at\"").next().unwrap_or_default().to_owned();
        assert_eq!(times(&unnamed(&routed)), times(&unnamed(&direct)), "{path}");
        let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&routed), names(&direct), "{path}");
    }
    for other in ["/users/search?q=1", "/products/category/1", "/orders/user/1"] {
        assert_eq!(server.get(other).await.expect(200).json()["total"], 0, "{other}");
    }
}
