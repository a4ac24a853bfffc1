//! Conditional requests.

use super::*;

#[tokio::test]
async fn reads_answer_304_for_the_known_version() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"p","name":"Tea","price":1}"#).await.expect(201);
    for known in ["\"1\"", "W/\"1\"", "\"7\", \"1\"", "*"] {
        let answer =
            server.send(Method::GET, "/products/p", &[("if-none-match", known)], "").await.expect(304);
        assert_eq!((answer.text.as_str(), answer.header("etag")), ("", "\"1\""));
    }
    for other in ["\"2\"", "1", "\"x\""] {
        server.send(Method::GET, "/products/p", &[("if-none-match", other)], "").await.expect(200);
    }
}

#[tokio::test]
async fn writes_are_refused_when_the_record_is_another() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"p","name":"Tea","price":1}"#).await.expect(201);
    let json = ("content-type", "application/json");
    let put = r#"{"name":"x","price":2}"#;
    for stale in ["\"2\"", "\"x\"", "W/\"1\"", "\"2\", \"3\""] {
        let with = async |method, body: &'static str| {
            server.send(method, "/products/p", &[("if-match", stale), json], body).await
        };
        with(Method::PUT, put).await.problem(412);
        with(Method::PATCH, "{}").await.problem(412);
        with(Method::DELETE, "").await.problem(412);
    }
    assert_eq!(
        server.send(Method::DELETE, "/products/p", &[("if-match", "1")], "").await.problem(400),
        ["If-Match"]
    );
    let with = async |tag, method, body: &'static str| {
        server.send(method, "/products/p", &[("if-match", tag), json], body).await
    };
    with("\"1\"", Method::PUT, put).await.expect(200);
    with("\"9\", \"2\"", Method::PATCH, r#"{"stock":1}"#).await.expect(200);
    with("*", Method::PATCH, r#"{"stock":2}"#).await.expect(200);
    with("\"4\"", Method::DELETE, "").await.expect(204);
}

#[tokio::test]
async fn who_reads_again_after_a_refusal_gets_the_version_that_was_in_the_way() {
    let folder = Folder::new();
    let store: Arc<dyn RecordStore> =
        Arc::new(SqlStore::sqlite(&folder.path().join("data.db"), Arc::new(Plain)).unwrap());
    let collections: Vec<_> = Entity::built_in().map(collection_of).collect();
    store.prepare(&collections).await.unwrap();
    // No bus is between them, as where a process is killed after its commit.
    let (one, other) = (Server::over(&store, &collections).await, Server::over(&store, &collections).await);
    one.post("/products", r#"{"id":"p","name":"Tea","price":1}"#).await.expect(201);
    let json = ("content-type", "application/json");
    for (method, body) in
        [(Method::PATCH, "{}"), (Method::PUT, r#"{"name":"x","price":2}"#), (Method::DELETE, "")]
    {
        let known = one.get("/products/p").await.expect(200).header("etag").to_owned();
        let stock = format!(r#"{{"stock":{}}}"#, known.len() + body.len());
        let newer = other
            .send(Method::PATCH, "/products/p", &[json], stock)
            .await
            .expect(200)
            .header("etag")
            .to_owned();
        assert_eq!(one.get("/products/p").await.header("etag"), known, "it was not told");
        one.send(method, "/products/p", &[("if-match", &known), json], body).await.problem(412);
        assert_eq!(one.get("/products/p").await.header("etag"), newer);
    }
}

#[tokio::test]
async fn a_key_can_be_put_only_where_nothing_is() {
    let server = Server::start().await;
    let only_new = [("if-none-match", "*"), ("content-type", "application/json")];
    server.send(Method::PUT, "/configurations/c", &only_new, r#"{"value":1}"#).await.expect(201);
    server.send(Method::PUT, "/configurations/c", &only_new, r#"{"value":2}"#).await.problem(412);
    let only_old = [("if-match", "*"), ("content-type", "application/json")];
    server.send(Method::PUT, "/configurations/d", &only_old, r#"{"value":1}"#).await.problem(412);
    assert_eq!(server.get("/configurations/c").await.json()["value"], 1);
}

#[tokio::test]
async fn a_read_is_never_older_than_asked() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"p","name":"Tea","price":1}"#).await.expect(201);
    let at_least =
        async |path, version| server.send(Method::GET, path, &[("if-min-version", version)], "").await;
    at_least("/products/p", "1").await.expect(200);
    let early = at_least("/products/p", "2").await;
    early.problem(503);
    assert_eq!(early.header("retry-after"), "1");
    at_least("/products/none", "1").await.problem(503);
    assert_eq!(at_least("/products/p", "x").await.problem(400), ["If-Min-Version"]);
    assert_eq!(at_least("/products", "1").await.problem(400), ["If-Min-Version"]);
    server.delete("/products/p").await.expect(204);
    at_least("/products/p", "2").await.problem(404);
}

#[tokio::test]
async fn the_answer_explains_itself_when_asked() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"p","name":"Tea","price":1}"#).await.expect(201);
    let explain = async || {
        let answer =
            server.send(Method::GET, "/products/p", &[("flyweight-explain", "1")], "").await.expect(200);
        let text = answer.header("flyweight-explain").to_owned();
        text.split("; age=").next().unwrap().to_owned()
    };
    assert_eq!(explain().await, "tier=store; version=1");
    assert_eq!(explain().await, "tier=hot; version=1");
    server.patch("/products/p", r#"{"stock":1}"#).await.expect(200);
    assert_eq!(explain().await, "tier=store; version=2");
    assert_eq!(explain().await, "tier=hot; version=2");
    assert_eq!(server.get("/products/p").await.header("flyweight-explain"), "");
}
