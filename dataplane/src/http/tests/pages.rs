//! Pages, reads of many, searches.

use super::*;

async fn with_users(count: u32) -> Server {
    let server = Server::start().await;
    for index in 0..count {
        let body = format!(r#"{{"id":"u{index:02}","email":"u{index}@example.org","name":"User {index}"}}"#);
        server.post("/users", &body).await.expect(201);
    }
    server
}

#[tokio::test]
async fn pages_by_offset_and_by_cursor_see_the_same_records() {
    let server = with_users(25).await;
    let all: Vec<String> = (0..25).map(|index| format!("u{index:02}")).collect();
    let page = server.get("/users?limit=10&offset=20").await.expect(200);
    assert_eq!(page.ids(), all[20..]);
    let body = page.json();
    assert_eq!((&body["total"], &body["limit"], &body["offset"]), (&25.into(), &10.into(), &20.into()));
    assert_eq!(body["next_cursor"], Json::Null);

    let (mut seen, mut path) = (Vec::new(), "/users?limit=10".to_owned());
    loop {
        let page = server.get(&path).await.expect(200);
        let body = page.json();
        assert_eq!((&body["total"], &body["offset"]), (&25.into(), &seen.len().into()));
        seen.extend(page.ids());
        // A record that comes before the cursor moves nothing.
        let early = format!(r#"{{"id":"a{}","email":"a{}@example.org","name":"A"}}"#, seen.len(), seen.len());
        server.post("/users", &early).await.expect(201);
        let Some(cursor) = body["next_cursor"].as_str() else { break };
        path = format!("/users?limit=10&cursor={cursor}");
    }
    assert_eq!(seen, all);
    assert_eq!(server.get("/users").await.ids().len(), 28);
}

#[tokio::test]
async fn a_cursor_of_another_list_or_an_altered_one_is_refused() {
    let server = with_users(2).await;
    let cursor = server.get("/users?limit=1").await.json()["next_cursor"].as_str().unwrap().to_owned();
    for path in [
        format!("/products?cursor={cursor}"),
        format!("/users/search?q=User&cursor={cursor}"),
        format!("/users?cursor={}A", cursor),
        format!("/users?cursor=A{}", &cursor[1..]),
        "/users?cursor=".to_owned(),
    ] {
        assert_eq!(server.get(&path).await.problem(400), ["cursor"], "{path}");
    }
}

#[tokio::test]
async fn many_are_read_at_once_in_the_order_of_their_keys() {
    let server = with_users(3).await;
    let page = server.get("/users?ids=u02,none,u00").await.expect(200);
    assert_eq!(page.ids(), ["u02", "u00"]);
    assert_eq!((page.json()["total"].clone(), page.json()["next_cursor"].clone()), (2.into(), Json::Null));
    let many = (0..1_000).map(|index| format!("u{index:02}")).collect::<Vec<_>>().join(",");
    assert_eq!(server.get(&format!("/users?ids={many}")).await.expect(200).ids().len(), 3);
    assert_eq!(server.get(&format!("/users?ids={many},x")).await.problem(400), ["ids"]);
}

#[tokio::test]
async fn users_are_found_by_text_taken_literally() {
    let server = Server::start().await;
    for (id, name) in [("a", "100% Ada"), ("b", "Ada_Bob"), ("c", "AdaXBob")] {
        let body = format!(r#"{{"id":"{id}","email":"{id}@example.org","name":"{name}"}}"#);
        server.post("/users", &body).await.expect(201);
    }
    for (query, found) in [
        ("q=Ada", vec!["a", "b", "c"]),
        ("name=a_B", vec!["b"]),
        ("q=ADA", vec!["a", "b", "c"]),
        ("name=ada_b", vec!["b"]),
        ("email=C@Example.ORG", vec!["c"]),
        ("name=100%25", vec!["a"]),
        ("email=c@example.org", vec!["c"]),
        ("q=b@example", vec!["b"]),
        ("q=Ada&email=b%40example.org", vec!["b"]),
        ("q=%27%20OR%201%3D1%20--", vec![]),
        ("q=Ada&limit=1", vec!["a"]),
    ] {
        assert_eq!(server.get(&format!("/users/search?{query}")).await.expect(200).ids(), found, "{query}");
    }
}

#[tokio::test]
async fn addresses_are_unique_without_case() {
    let server = Server::start().await;
    server.post("/users", r#"{"id":"a","email":"Bob@Example.test","name":"Bob"}"#).await.expect(201);
    let twin = server.post("/users", r#"{"email":"BOB@example.test","name":"Bob"}"#).await;
    assert_eq!(twin.problem(409), ["email"]);
    assert_eq!(
        server.get("/users/a").await.json()["email"],
        "Bob@Example.test",
        "it is kept as it was written"
    );
    server.patch("/users/a", r#"{"email":"bob@example.test"}"#).await.expect(200);
    server.put("/users/a", r#"{"email":"BOB@EXAMPLE.TEST","name":"Bob"}"#).await.expect(200);
    server.post("/users", r#"{"id":"b","email":"eve@example.test","name":"Eve"}"#).await.expect(201);
    assert_eq!(server.patch("/users/b", r#"{"email":"Bob@example.test"}"#).await.problem(409), ["email"]);
    server.patch("/users/a", r#"{"email":"rob@example.test"}"#).await.expect(200);
    server.patch("/users/b", r#"{"email":"Bob@example.test"}"#).await.expect(200);
    // rows of before that differ by case alone stay, and can be changed
    let users = server.resource("users").records.clone();
    for (key, email) in [("c", "old@example.test"), ("d", "OLD@example.test")] {
        let text = |text: &str| model::value::Value::Text(text.to_owned());
        let values = users.schema().row_of([("name", text("Old")), ("email", text(email))]);
        users.insert(&key.parse().unwrap(), values, "test").await.unwrap();
        server.patch(&format!("/users/{key}"), r#"{"name":"Older"}"#).await.expect(200);
    }
    assert_eq!(server.get("/users/search?email=Old@Example.test").await.expect(200).ids(), ["c", "d"]);
}

#[tokio::test]
async fn lists_by_a_field_of_the_path() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"x","name":"Cup","price":1}"#).await.expect(201);
    for (id, user) in [("p1", "u1"), ("p2", "u2"), ("p3", "u1")] {
        let body = format!(r#"{{"id":"{id}","user_id":"{user}","amount":1,"currency":"EUR"}}"#);
        server.post("/payments", &body).await.expect(201);
        let body = format!(
            r#"{{"id":"{id}","user_id":"{user}","items":[{{"product_id":"x","quantity":1,"price":1}}]}}"#
        );
        server.post("/orders", &body).await.expect(201);
    }
    server
        .post("/products", r#"{"id":"t","name":"Tea","price":1,"category":"Drinks & more"}"#)
        .await
        .expect(201);
    for path in ["/payments/user/u1", "/users/u1/payments", "/orders/user/u1"] {
        let page = server.get(path).await.expect(200);
        assert_eq!(
            (page.ids(), page.json()["total"].clone()),
            (vec!["p1".to_owned(), "p3".to_owned()], 2.into()),
            "{path}"
        );
    }
    assert_eq!(server.get("/products/category/Drinks%20%26%20more").await.expect(200).ids(), ["t"]);
    assert_eq!(server.get("/products/category/none").await.expect(200).ids(), Vec::<String>::new());
    assert_eq!(server.get("/payments/user/a%20b").await.problem(400), ["user_id"]);
    assert_eq!(server.get("/products/category/%ff").await.problem(400), ["category"]);
    assert_eq!(
        server.get(&format!("/products/category/{}", "a".repeat(129))).await.problem(400),
        ["category"]
    );
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let server = Server::start().await;
    for (path, field) in [
        ("/users?limit=0", "limit"),
        ("/users?limit=1001", "limit"),
        ("/users?limit=ten", "limit"),
        ("/users?offset=-1", "offset"),
        ("/users?page=2", "page"),
        ("/users?limit=1&limit=2", "limit"),
        ("/users?ids=a%00b", "ids"),
        ("/users?ids=a&limit=1", "limit"),
        ("/users/search?q=", "q"),
        ("/users/search?q=%ff", "q"),
        ("/users/search?q=a%00", "q"),
        ("/users/search?colour=red", "colour"),
        ("/users/a?fields=name", "fields"),
        ("/pools/stores?limit=x", "limit"),
    ] {
        assert_eq!(server.get(path).await.problem(400), [field], "{path}");
    }
}
