//! Searches by specification, searches by words, pages that are kept, answers that are compressed.

use super::*;

async fn shop() -> Server {
    let server = Server::start().await;
    for (id, name, price, brand, stock) in [
        ("a", "Green Tea", "1.10", r#""Leaf""#, 5),
        ("b", "Black tea, loose", "2.50", r#""Leaf""#, 0),
        ("c", "Teapot", "19.90", "null", 3),
        ("d", "Élan mug 100%", "7", r#""Clay_1""#, 9),
    ] {
        let body =
            format!(r#"{{"id":"{id}","name":"{name}","price":"{price}","brand":{brand},"stock":{stock}}}"#);
        server.post("/products", &body).await.expect(201);
    }
    server
}

async fn found(server: &Server, rest: &str) -> Vec<String> {
    server
        .post("/repositories/query", &format!(r#"{{"repository":"products",{rest}}}"#))
        .await
        .expect(200)
        .ids()
}

#[tokio::test]
async fn records_are_found_by_specification() {
    let server = shop().await;
    for (rest, ids) in [
        (r#""where":{"field":"price","op":"gt","value":"2.5"}"#, vec!["c", "d"]),
        (r#""where":{"field":"brand","op":"is_null"}"#, vec!["c"]),
        (r#""where":{"not":{"field":"brand","op":"eq","value":"Leaf"}}"#, vec!["c", "d"]),
        (r#""where":{"field":"name","op":"like","value":"%tea%"}"#, vec!["b"]),
        (r#""where":{"field":"name","op":"like","value":"%100\\%"}"#, vec!["d"]),
        (r#""where":{"field":"stock","op":"between","value":[1,5]},"order_by":["-stock"]"#, vec!["a", "c"]),
        (
            r#""where":{"or":[{"field":"id","op":"in","value":["a","d"]},{"field":"stock","op":"eq","value":0}]}"#,
            vec!["a", "b", "d"],
        ),
        (r#""order_by":["brand","-price"]"#, vec!["c", "d", "b", "a"]),
        (r#""where":null,"limit":2"#, vec!["a", "b"]),
    ] {
        assert_eq!(found(&server, rest).await, ids, "{rest}");
    }
    let all = r#"{"repository":"product","where":{"and":[]},"order_by":["-price"],"limit":3}"#;
    let first = server.post("/repositories/query", all).await.expect(200).json();
    assert_eq!((&first["total"], &first["items"][0]["id"]), (&4.into(), &"c".into()));
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(
        found(&server, &format!(r#""order_by":["-price"],"where":{{"and":[]}},"cursor":"{cursor}""#)).await,
        ["a"]
    );
    let other = format!(r#"{{"repository":"products","order_by":["price"],"cursor":"{cursor}"}}"#);
    assert_eq!(server.post("/repositories/query", &other).await.problem(400), ["cursor"]);
    let count =
        r#"{"repository":"products","where":{"field":"stock","op":"gt","value":0},"count_only":true}"#;
    assert_eq!(server.post("/repositories/query", count).await.expect(200).text, r#"{"total":3}"#);
}

#[tokio::test]
async fn wrong_searches_are_refused_by_name() {
    let server = shop().await;
    for (body, field) in [
        (r#"{"repository":"cars"}"#, "repository"),
        (r#"{"repository":"products","limit":1001}"#, "limit"),
        (r#"{"repository":"products","where":{"field":"x","op":"eq","value":1}}"#, "where.field"),
        (r#"{"repository":"products","where":{"field":"name","op":"eq","value":{"$gt":""}}}"#, "where.value"),
        (r#"{"repository":"products","order_by":["name; --"]}"#, "order_by[0]"),
        (
            r#"{"repository":"products","where":{"field":"price","field":"id","op":"eq","value":1}}"#,
            "where.field",
        ),
    ] {
        assert_eq!(server.post("/repositories/query", body).await.problem(400), [field], "{body}");
    }
}

#[tokio::test]
async fn repositories_are_described() {
    let server = shop().await;
    let all = server.get("/repositories").await.expect(200).json();
    let types: Vec<&str> =
        all["repositories"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["mysql", "mongodb", "cached", "specification"]);
    let mysql = server.get("/repositories/mysql").await.expect(200).json();
    assert_eq!((mysql["health"].as_str(), mysql["entities"].as_array().unwrap().len()), (Some("healthy"), 8));
    assert_eq!(server.get("/repositories/mongodb").await.json()["health"], Json::Null);
    server.get("/repositories/oracle").await.problem(404);
}

#[tokio::test]
async fn products_are_found_by_words() {
    let server = shop().await;
    for (query, ids) in [
        ("q=tea", vec!["a", "b", "c"]),
        ("q=TEA+leaf", vec!["a", "b"]),
        ("q=loose+black", vec!["b"]),
        ("q=%C3%A9lan", vec!["d"]),
        ("q=100%25", vec!["d"]),
        ("q=clay_", vec!["d"]),
        ("q=green+mug", vec![]),
        ("q=tea&brand=Leaf&limit=1", vec!["a"]),
    ] {
        assert_eq!(server.get(&format!("/products/search?{query}")).await.expect(200).ids(), ids, "{query}");
    }
    assert_eq!(server.get("/products/search?q=%20").await.problem(400), ["q"]);
    assert_eq!(server.get("/products/search?q=a+b+c+d+e+f+g+h+i").await.problem(400), ["q"]);
}

#[tokio::test]
async fn no_page_shows_what_is_gone() {
    let server = shop().await;
    for round in 0..20 {
        let id = format!("x{round}");
        server.post("/products", &format!(r#"{{"id":"{id}","name":"X","price":1}}"#)).await.expect(201);
        assert!(server.get("/products").await.ids().contains(&id), "a page of before");
        // the same page once more, which is kept now
        assert!(server.get("/products").await.ids().contains(&id));
        server.delete(&format!("/products/{id}")).await.expect(204);
        assert!(!server.get("/products").await.ids().contains(&id), "a page shows what is gone");
    }
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let server = shop().await;
    let long = "tea ".repeat(2_000);
    let body = format!(r#"{{"id":"long","name":"Long","price":1,"description":"{long}"}}"#);
    server.post("/products", &body).await.expect(201);
    let plain = server.get("/products/long").await.expect(200);
    for encoding in ["gzip", "zstd"] {
        let uri = format!("http://{}/api/v1/products/long", server.address);
        let request = Request::builder().uri(uri).header("accept-encoding", encoding);
        let response = server.client.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], encoding);
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(tag, format!("\"1-{encoding}\""), "other bytes, another strong tag");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < plain.text.len() / 10, "{}", bytes.len());
        let small = server.send(Method::GET, "/products/a", &[("accept-encoding", encoding)], "").await;
        assert_eq!(small.header("content-encoding"), "");
    }
}

#[tokio::test]
async fn declared_pools_are_created_patched_and_listed() {
    let server = Server::start().await;
    server.post("/pools/stores", r#"{"code":"b1","phone":"1"}"#).await.expect(201);
    server.post("/pools/stores", r#"{"code":"b1","phone":"1"}"#).await.problem(409);
    let patched = server.patch("/pools/stores/b1", r#"{"phone":"2"}"#).await.expect(200);
    assert_eq!((&patched.json()["phone"], patched.header("etag")), (&"2".into(), "\"2\""));
    let results =
        server.post("/pools/stores/batch", r#"{"operations":[{"op":"delete","id":"b1"}]}"#).await.expect(207);
    assert_eq!(results.json()["results"][0]["status"], 204);
    assert_eq!(server.post("/pools/regions", r#"{"code":"r"}"#).await.status, StatusCode::METHOD_NOT_ALLOWED);
}
