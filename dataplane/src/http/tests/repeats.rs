//! Idempotency keys and the audit, as clients see them.

use super::*;

async fn post_keyed(server: &Server, path: &str, key: &str, body: &str) -> Answer {
    server.send(Method::POST, path, &[("idempotency-key", key)], body.to_owned()).await
}

#[tokio::test]
async fn a_repeated_create_has_one_effect_and_the_same_answer() {
    let server = Server::start().await;
    let tea = r#"{"name":"Tea","price":"1.50"}"#;
    let first = post_keyed(&server, "/products", "k-1", tea).await.expect(201);
    let path = format!("/products/{}", first.json()["id"].as_str().unwrap());
    server.patch(&path, r#"{"price":2}"#).await.expect(200);
    for _ in 0..2 {
        let again = post_keyed(&server, "/products", "k-1", tea).await.expect(201);
        assert_eq!((&again.text, again.header("etag")), (&first.text, "\"1\""));
        assert_eq!(again.header("location"), first.header("location"));
        server.send(Method::DELETE, &path, &[], "").await;
    }
    assert_eq!(server.get("/products").await.json()["total"], 0);
    let other = post_keyed(&server, "/products", "k-1", r#"{"name":"Tea","price":2}"#).await;
    assert_eq!(other.problem(422), ["Idempotency-Key"]);
    // The key is the caller's own.
    let headers = [("idempotency-key", "k-1"), ("test-roles", "any")];
    server.send(Method::POST, "/products", &headers, r#"{"name":"Cup","price":2}"#).await.expect(201);
    // What failed had no effect, and may be tried again.
    let order = r#"{"user_id":"u","items":[{"product_id":"late","quantity":1}]}"#;
    post_keyed(&server, "/orders", "k-2", order).await.problem(400);
    server.post("/products", r#"{"id":"late","name":"Late","price":3}"#).await.expect(201);
    let ordered = post_keyed(&server, "/orders", "k-2", order).await.expect(201);
    server.delete("/products/late").await.expect(204);
    assert_eq!(post_keyed(&server, "/orders", "k-2", order).await.expect(201).text, ordered.text);
}

#[tokio::test]
async fn keys_are_checked() {
    let server = Server::start().await;
    for bad in ["", "a b", &"k".repeat(256)] {
        let answer = post_keyed(&server, "/products", bad, r#"{"name":"Tea","price":1}"#).await;
        assert_eq!(answer.problem(400), ["Idempotency-Key"], "{bad}");
    }
    let change = server.send(Method::PATCH, "/products/p", &[("idempotency-key", "k")], "{}").await;
    assert_eq!(change.problem(400), ["Idempotency-Key"]);
}

#[tokio::test]
async fn the_audit_says_who_did_what() {
    let server = Server::start().await;
    let by_tester = [("test-roles", "any")];
    let tea = r#"{"id":"tea","name":"Tea","price":1}"#;
    server.send(Method::POST, "/products", &by_tester, tea).await.expect(201);
    server.patch("/products/tea", r#"{"price":2}"#).await.expect(200);
    server.post("/users", r#"{"id":"ann","email":"a@b.co","name":"Ann"}"#).await.expect(201);
    server.delete("/products/tea").await.expect(204);
    let told = async |query: &str| {
        let body = server.get(&format!("/audit{query}")).await.expect(200).json();
        let text = |item: &Json, name: &str| item[name].as_str().unwrap().to_owned();
        let items = body["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| format!("{} {} {}", text(item, "actor"), text(item, "key"), text(item, "action")))
            .collect::<Vec<_>>()
    };
    let (a, b, c, d) =
        ("tester tea created", "anonymous tea updated", "anonymous ann created", "anonymous tea deleted");
    assert_eq!(told("").await, [a, b, c, d]);
    assert_eq!(told("?entity=product&id=tea").await, [a, b, d]);
    assert_eq!(told("?entity=users").await, [c]);
    assert_eq!(told("?actor=tester").await, [a]);
    assert_eq!(told("?since=2999-01-01T00:00:00Z").await, [""; 0]);
    let items = server.get("/audit?entity=product").await.json()["items"].clone();
    assert_eq!((&items[1]["before"]["price"], &items[1]["after"]["price"]), (&1.into(), &2.into()));
    assert_eq!((&items[0]["before"], &items[2]["after"]), (&Json::Null, &Json::Null));
    let first = server.get("/audit?limit=3").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(told(&format!("?limit=3&cursor={cursor}")).await, [d]);
    for (query, field) in [
        ("entity=cars", "entity"),
        ("since=now", "since"),
        ("id=a%00b", "id"),
        ("cursor=x", "cursor"),
        ("limit=0", "limit"),
    ] {
        assert_eq!(server.get(&format!("/audit?{query}")).await.problem(400), [field]);
    }
    assert!(server.delete("/audit").await.problem(405).is_empty());
}

/// More entries than one step of an export reads.
#[tokio::test]
async fn an_export_has_each_line_of_the_audit_once_and_in_order() {
    const PRODUCTS: usize = 620;
    let server = Server::start().await;
    for n in 0..PRODUCTS {
        server.post("/products", &format!(r#"{{"id":"p{n}","name":"Tea","price":1}}"#)).await.expect(201);
    }
    let by_tester = [("test-roles", "any"), ("content-type", "application/json")];
    server.send(Method::PATCH, "/products/p7", &by_tester, r#"{"price":2}"#).await.expect(200);
    server.post("/users", r#"{"id":"ann","email":"a@b.co","name":"Ann"}"#).await.expect(201);
    let export = async |query: &str| {
        let answer = server.get(&format!("/audit/export{query}")).await.expect(200);
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        answer.text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()).collect::<Vec<_>>()
    };
    let key = |line: &Json| line["key"].as_str().unwrap().to_owned();
    let all = export("").await;
    let wanted = (0..PRODUCTS).map(|n| format!("p{n}")).chain(["p7".to_owned(), "ann".to_owned()]);
    assert_eq!(all.iter().map(key).collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    let listed = server.get("/audit?entity=product&id=p7").await.json();
    assert_eq!(Json::from(export("?entity=product&id=p7").await), listed["items"], "as a list has it");
    assert_eq!(export("?actor=tester").await.len(), 1);
    assert_eq!(export("?entity=users").await.iter().map(key).collect::<Vec<_>>(), ["ann"]);
    assert_eq!(export("?since=2999-01-01T00:00:00Z").await, [""; 0]);
    for (query, field) in [("entity=cars", "entity"), ("since=now", "since"), ("limit=5", "limit")] {
        assert_eq!(server.get(&format!("/audit/export?{query}")).await.problem(400), [field], "{query}");
    }

    let access =
        Access { read: vec!["clerk".to_owned()], write: vec!["clerk".to_owned()], ..Access::default() };
    server.policies.put([("products", Policy { access, ..Policy::open() })]);
    server.get("/audit/export?entity=product").await.problem(401);
    assert_eq!(export("").await.iter().map(key).collect::<Vec<_>>(), ["ann"], "of what the caller may read");
    let clerk = server.send(Method::GET, "/audit/export", &[("test-roles", "clerk")], "").await.expect(200);
    assert_eq!(clerk.text.lines().count(), PRODUCTS + 2);
}
