//! Bad input: refused with a 4xx problem that names the field; nothing changes.

use reqwest::Method;
use serde_json::json;

use crate::stage::Stage;

#[tokio::test]
async fn bad_bodies_are_refused_by_name() {
    let stage = Stage::embedded();
    let api = &stage.api;
    let long = "x".repeat(1 << 20);
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let cases: Vec<(&str, Vec<u8>, u16, Option<&str>)> = vec![
        ("unknown field", br#"{"name":"a","price":1,"colour":"red"}"#.to_vec(), 400, Some("colour")),
        ("wrong type", br#"{"name":"a","price":"cheap"}"#.to_vec(), 400, Some("price")),
        ("number for text", br#"{"name":7,"price":1}"#.to_vec(), 400, Some("name")),
        ("missing field", br#"{"price":1}"#.to_vec(), 400, Some("name")),
        ("duplicate key", br#"{"name":"a","name":"b","price":1}"#.to_vec(), 400, Some("name")),
        ("NUL", br#"{"name":"a\u0000b","price":1}"#.to_vec(), 400, Some("name")),
        ("overflow", br#"{"name":"a","price":1e400}"#.to_vec(), 400, Some("price")),
        (
            "overflowing stock",
            br#"{"name":"a","price":1,"stock":99999999999999999999}"#.to_vec(),
            400,
            Some("stock"),
        ),
        ("negative stock", br#"{"name":"a","price":1,"stock":-1}"#.to_vec(), 400, Some("stock")),
        ("too fine a price", br#"{"name":"a","price":1.123456789}"#.to_vec(), 400, Some("price")),
        (
            "long name",
            json!({ "name": &long[..300], "price": 1 }).to_string().into_bytes(),
            400,
            Some("name"),
        ),
        ("malformed id", br#"{"id":"a/b","name":"a","price":1}"#.to_vec(), 400, Some("id")),
        ("not JSON", b"name=a".to_vec(), 400, None),
        ("cut off", br#"{"name":"a","#.to_vec(), 400, None),
        ("a list", b"[1,2]".to_vec(), 400, None),
        ("empty", Vec::new(), 400, None),
        ("invalid UTF-8", b"{\"name\":\"a\xff\xfe\",\"price\":1}".to_vec(), 400, None),
        ("deep", format!(r#"{{"name":"a","price":1,"attributes":{{"x":{deep}}}}}"#).into_bytes(), 400, None),
        (
            "2 MiB",
            json!({ "name": "a", "price": 1, "description": "x".repeat(2 << 20) }).to_string().into_bytes(),
            413,
            None,
        ),
    ];
    for (what, body, status, field) in cases {
        let answer = api.call(Method::POST, "/api/v1/products", &[], Some(body)).await.unwrap();
        assert_eq!(answer.status, status, "{what}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
        if let Some(field) = field {
            assert!(answer.fields().iter().any(|name| name == field), "{what}: {}", answer.text);
        }
        for leak in ["SELECT", "INSERT", "sqlx", "panicked", ".rs:"] {
            assert!(!answer.text.contains(leak), "{what}: {}", answer.text);
        }
    }
    assert_eq!(api.get("/api/v1/products").await.json()["total"], 0, "nothing was created");
}

#[tokio::test]
async fn all_faults_of_a_body_are_named_at_once() {
    let stage = Stage::embedded();
    let answer =
        stage.api.post("/api/v1/products", &json!({ "price": -1, "stock": "many", "size": 3 })).await;
    let mut fields = answer.fields();
    fields.sort();
    assert_eq!(
        (answer.status, fields),
        (400, ["name", "price", "size", "stock"].map(str::to_owned).to_vec()),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn bad_paths_queries_and_headers_are_refused_by_name() {
    let stage = Stage::embedded();
    let api = &stage.api;
    for (path, field) in [
        (&*format!("/api/v1/products/{}", "a".repeat(256)), "id"),
        ("/api/v1/products/a%00b", "id"),
        ("/api/v1/products/%ff", "id"),
        ("/api/v1/products?limit=many", "limit"),
        ("/api/v1/products?limit=1001", "limit"),
        ("/api/v1/products?offset=-1", "offset"),
        ("/api/v1/products?cursor=%27%3B--", "cursor"),
        ("/api/v1/products?colour=red", "colour"),
        ("/api/v1/events/stream?topics=nothing", "topics"),
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert!(answer.fields().iter().any(|name| name == field), "{path}: {}", answer.text);
    }
    let text = api
        .call(
            Method::POST,
            "/api/v1/products",
            &[("content-type", "application/json-patch+json")],
            Some(b"{}".to_vec()),
        )
        .await
        .unwrap();
    assert_eq!(text.status, 415, "{}", text.text);
    let version = api.get_with("/api/v1/products/a", &[("if-min-version", "new")]).await;
    assert_eq!(version.status, 400, "{}", version.text);
}
