//! Create, replace, patch, delete, of every entity.

use super::*;

#[tokio::test]
async fn a_product_lives_from_create_to_delete() {
    let server = Server::start().await;
    let created = server.post("/products", r#"{"name":"Tea","price":"19.90","stock":3}"#).await.expect(201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), format!("/api/v1/products/{id}"));
    assert_eq!(created.header("etag"), "\"1\"");
    assert!(created.text.contains("\"price\":19.9,"), "{}", created.text);
    assert_eq!(created.json()["currency"], "USD");

    let path = format!("/products/{id}");
    let read = server.get(&path).await.expect(200);
    assert_eq!((read.text.as_str(), read.header("etag")), (created.text.as_str(), "\"1\""));
    assert_eq!(read.header("content-type"), "application/json");

    let replaced = server.put(&path, r#"{"name":"Green tea","price":5}"#).await.expect(200);
    assert_eq!((replaced.json()["version"].clone(), replaced.json()["stock"].clone()), (2.into(), 0.into()));
    assert_eq!(replaced.json()["created_at"], created.json()["created_at"]);

    let patched = server.patch(&path, r#"{"stock":7,"attributes":{"a":{"b":1}}}"#).await.expect(200);
    assert_eq!(patched.header("etag"), "\"3\"");
    let merged = server.patch(&path, r#"{"attributes":{"a":{"c":2}}}"#).await.expect(200);
    assert_eq!(merged.json()["attributes"], serde_json::json!({ "a": { "b": 1, "c": 2 } }));
    assert_eq!(merged.json()["name"], "Green tea");

    let deleted = server.delete(&path).await.expect(204);
    assert_eq!((deleted.text.as_str(), deleted.header("etag")), ("", "\"5\""), "the version of the delete");
    server.get(&path).await.problem(404);
    server.send(Method::GET, &path, &[("if-min-version", "5")], "").await.problem(404);
    server.delete(&path).await.problem(404);
    server.put(&path, r#"{"name":"x","price":1}"#).await.problem(404);
    server.patch(&path, "{}").await.problem(404);
    assert_eq!(server.commits.load(Ordering::SeqCst), 5);

    let again =
        server.post("/products", &format!(r#"{{"id":"{id}","name":"Tea","price":1}}"#)).await.expect(201);
    assert_eq!(again.header("etag"), "\"6\"", "a created key goes on counting after its delete");
}

#[tokio::test]
async fn every_entity_can_be_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let cases = [
        ("/users", r#"{"email":"a@b.co","name":"Ada"}"#, r#"{"name":"Eve"}"#),
        ("/payments", r#"{"user_id":"u","amount":"0.1","currency":"EUR"}"#, r#"{"metadata":{"a":1}}"#),
        (
            "/orders",
            r#"{"user_id":"u","items":[{"product_id":"p","quantity":2,"price":1.5}]}"#,
            r#"{"metadata":{"a":1}}"#,
        ),
        ("/products", r#"{"name":"Tea","price":0}"#, r#"{"stock":1}"#),
        (
            "/notifications/templates",
            r#"{"template":"hi","body":"Hi {{name}}","channels":["mail"]}"#,
            r#"{"subject":"Hi"}"#,
        ),
        ("/configurations", r#"{"value":[1,{"a":null}]}"#, r#"{"value":7}"#),
    ];
    server.post("/products", r#"{"id":"p","name":"Pen","price":1.5}"#).await.expect(201);
    for (path, body, patch) in cases {
        let created = server.post(path, body).await.expect(201);
        let one = format!("{path}/{}", created.json()["id"].as_str().unwrap());
        assert_eq!(server.get(&one).await.expect(200).text, created.text);
        let patched = server.patch(&one, patch).await.expect(200);
        assert_eq!(patched.json()["version"], 2);
        // What was read may be sent back as it is.
        let back = server.put(&one, &server.get(&one).await.text).await.expect(200);
        assert_eq!(back.json()["version"], 3, "{path}");
        let (mut before, mut after) = (patched.json(), back.json());
        for json in [&mut before, &mut after] {
            json["version"] = Json::Null;
            json["updated_at"] = Json::Null;
        }
        assert_eq!(before, after, "{path}");
        server.delete(&one).await.expect(204);
    }
}

#[tokio::test]
async fn unique_values_are_taken_once() {
    let server = Server::start().await;
    server.post("/users", r#"{"id":"a","email":"a@b.co","name":"Ada","username":"ada"}"#).await.expect(201);
    server.post("/users", r#"{"id":"b","email":"b@b.co","name":"Bob"}"#).await.expect(201);
    let taken = server.post("/users", r#"{"email":"a@b.co","name":"Eve"}"#).await;
    assert_eq!(taken.problem(409), ["email"]);
    assert_eq!(server.patch("/users/b", r#"{"username":"ada"}"#).await.problem(409), ["username"]);
    server.post("/users", r#"{"id":"a","email":"c@b.co","name":"Eve"}"#).await.problem(409);
    server.delete("/users/a").await.expect(204);
    server.post("/users", r#"{"email":"a@b.co","name":"Eve"}"#).await.expect(201);
}

#[tokio::test]
async fn the_servers_fields_are_not_the_clients() {
    let server = Server::start().await;
    let faults = server
        .post("/users", r#"{"email":"a@b.co","name":"A","version":1,"created_at":"2026-01-01T00:00:00Z"}"#)
        .await;
    assert_eq!(faults.problem(400), ["version", "created_at"]);
    server.post("/users", r#"{"id":"a","email":"a@b.co","name":"A"}"#).await.expect(201);
    let user = |extra: &str| format!(r#"{{"email":"a@b.co","name":"A",{extra}}}"#);
    assert_eq!(server.put("/users/a", &user(r#""id":"b""#)).await.problem(400), ["id"]);
    assert_eq!(server.patch("/users/a", r#"{"id":"b"}"#).await.problem(400), ["id"]);
    assert_eq!(
        server.put("/users/a", &user(r#""updated_at":"2026-01-01T00:00:00Z""#)).await.problem(400),
        ["updated_at"]
    );
    assert!(server.put("/users/a", &user(r#""version":9"#)).await.problem(412).is_empty());
    server.put("/users/a", &user(r#""version":1,"id":"a""#)).await.expect(200);
    assert_eq!(
        server
            .post("/payments", r#"{"user_id":"u","amount":1,"currency":"EUR","status":"completed"}"#)
            .await
            .problem(400),
        ["status"]
    );
}

#[tokio::test]
async fn a_payment_moves_only_forward() {
    let server = Server::start().await;
    server.post("/payments", r#"{"id":"p","user_id":"u","amount":1,"currency":"EUR"}"#).await.expect(201);
    let status =
        async |status: &str| server.put("/payments/p/status", &format!(r#"{{"status":"{status}"}}"#)).await;
    status("refunded").await.problem(409);
    assert_eq!(status("paid").await.problem(400), ["status"]);
    assert_eq!(server.put("/payments/p/status", "{}").await.problem(400), ["status"]);
    let done = status("completed").await.expect(200);
    assert_eq!((done.json()["status"].as_str(), done.header("etag")), (Some("completed"), "\"2\""));
    assert_eq!(status("completed").await.expect(200).header("etag"), "\"2\"", "a repeat changes nothing");
    // A replace keeps what only the server sets.
    let body = r#"{"user_id":"u","amount":1,"currency":"EUR","metadata":{"a":1}}"#;
    let replaced = server.put("/payments/p", body).await.expect(200);
    assert_eq!(replaced.json()["status"], "completed");
    status("refunded").await.expect(200);
    status("pending").await.problem(409);
    server.put("/payments/none/status", r#"{"status":"failed"}"#).await.problem(404);
}

#[tokio::test]
async fn an_orders_total_is_computed_and_its_prices_come_from_the_catalogue() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"tea","name":"Tea","price":"0.1"}"#).await.expect(201);
    server.post("/products", r#"{"id":"cup","name":"Cup","price":"19.90"}"#).await.expect(201);
    let order = |items: &str| format!(r#"{{"id":"o","user_id":"u","items":{items}}}"#);
    let items = r#"[{"product_id":"tea","quantity":3},{"product_id":"cup","quantity":1,"price":"19.90"}]"#;
    let created = server.post("/orders", &order(items)).await.expect(201);
    assert!(created.text.contains("\"total\":20.2,"), "{}", created.text);
    assert_eq!(created.json()["items"][0]["price"].to_string(), "0.1");
    assert_eq!(created.json()["items"][1]["price"].to_string(), "19.9", "a number, however it was written");
    assert_eq!(created.json()["status"], "pending");
    let patched =
        server.patch("/orders/o", r#"{"items":[{"product_id":"tea","quantity":1}]}"#).await.expect(200);
    assert!(patched.text.contains("\"total\":0.1,"), "{}", patched.text);
    let unknown =
        server.post("/orders", r#"{"user_id":"u","items":[{"product_id":"none","quantity":1}]}"#).await;
    assert_eq!(unknown.problem(400), ["items[0].product_id"]);
    assert_eq!(server.patch("/orders/o", r#"{"total":1}"#).await.problem(400), ["total"]);
}

#[tokio::test]
async fn configurations_and_declared_pools_are_put_under_their_key() {
    let server = Server::start().await;
    let created = server.put("/configurations/theme", r#"{"value":{"dark":true}}"#).await.expect(201);
    assert_eq!(
        (created.header("location"), created.header("etag")),
        ("/api/v1/configurations/theme", "\"1\"")
    );
    server.put("/configurations/theme", r#"{"value":false}"#).await.expect(200);
    assert_eq!(server.get("/configurations/theme").await.json()["value"], false);

    let created = server.put("/pools/stores/b1", r#"{"code":"b1","phone":"1"}"#).await.expect(201);
    assert_eq!(created.json()["code"], "b1");
    assert_eq!(server.put("/pools/stores/b1", r#"{"code":"b2","phone":"1"}"#).await.problem(400), ["code"]);
    let read = server.get("/pools/stores/b1").await.expect(200);
    assert_eq!(read.json()["phone"], "1");
    server.put("/pools/stores/b1", r#"{"phone":"2"}"#).await.expect(200);
    server.delete("/pools/stores/b1").await.expect(204);
    server.get("/pools/stores/b1").await.problem(404);
}

#[tokio::test]
async fn writers_of_one_record_all_get_their_turn() {
    let server = Arc::new(Server::start().await);
    server.post("/products", r#"{"id":"p","name":"Tea","price":1,"attributes":{}}"#).await.expect(201);
    let writers = (0..8).map(|writer| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            server.patch("/products/p", &format!(r#"{{"attributes":{{"w{writer}":1}}}}"#)).await.expect(200);
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let product = server.get("/products/p").await.json();
    assert_eq!(product["version"], 9);
    assert_eq!(product["attributes"].as_object().unwrap().len(), 8);
}
