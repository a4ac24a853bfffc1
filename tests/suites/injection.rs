//! Bad input in every place where a client can put any: injection strings, 1 MB strings, deep JSON,
//! overflowing numbers, NUL, keys given twice. Always a 4xx that names the field where there is one, or an
//! answer that takes the text as text; never a 5xx, SQL or a stack.

use harness::client::{Answer, Api};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    described::{FEED, Operation, operations},
    stage::Stage,
};

const HOSTILE: [&str; 14] = [
    "' OR '1'='1",
    "1; DROP TABLE users; --",
    "\" OR \"\"=\"",
    "admin'/*",
    "\\'; SELECT sleep(5); --",
    "{\"$gt\":\"\"}",
    "$where: 1 == 1",
    "a\u{0}b",
    "../../../../etc/passwd",
    "%00%0a%0d",
    "<script>alert(1)</script>",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}{% set a = 1 %}",
    "\u{202e}\u{feff}\u{10ffff}",
];

#[tokio::test]
async fn hostile_input_is_refused_or_taken_as_text_over_embedded_stores() {
    hostile(&Stage::embedded()).await;
}

#[tokio::test]
async fn hostile_input_is_refused_or_taken_as_text_over_real_servers() {
    let Some(stage) = Stage::real("hostile input over real servers").await else { return };
    hostile(&stage).await;
}

async fn hostile(stage: &Stage) {
    let api = &stage.api;
    api.post("/api/v1/products", &json!({ "id": "keep", "name": "Keep", "price": 1 })).await;
    let long = "x".repeat(1 << 20);
    let operations = operations(api).await;
    for text in HOSTILE.iter().copied().chain([long.as_str()]) {
        in_parameters(stage, &operations, text).await;
        in_bodies(api, text).await;
        in_headers(api, text).await;
    }
    malformed(api).await;
    let kept = api.get("/api/v1/products/keep").await;
    assert_eq!((kept.status, &kept.json()["name"]), (200, &json!("Keep")));
    crate::feed::healthy(api).await;
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every parameter that the document has: of queries, of paths, of headers.
async fn in_parameters(stage: &Stage, operations: &[Operation], text: &str) {
    let api = &stage.api;
    // an address of megabytes is cut by the server before any handler sees it
    let encoded = encode(text.get(..2_000).unwrap_or(text));
    let visible: String = text.chars().filter(|c| (' '..='~').contains(c)).take(4_000).collect();
    for operation in operations.iter().filter(|one| !FEED.contains(&one.path.as_str())) {
        let reads = operation.method == Method::GET;
        let body = if reads || operation.method == Method::DELETE { Value::Null } else { json!({}) };
        let plain = operation.path_with("none");
        let send = async |path: &str, headers: &[(&str, &str)]| {
            api.send(operation.method.clone(), path, headers, &body).await
        };
        for parameter in operation.parameters("query") {
            let answer = send(&format!("{plain}?{parameter}={encoded}"), &[]).await;
            sound(&answer, &format!("{}?{parameter}", operation.name()), Some(&*parameter).filter(|_| reads));
        }
        if plain != operation.path {
            sound(&send(&operation.path_with(&encoded), &[]).await, &operation.name(), None);
        }
        // headers are read before any store is asked: it does not matter which
        let headers = if stage.servers.is_none() { operation.parameters("header") } else { Vec::new() };
        for header in headers {
            let answer = send(&plain, &[(&header, &visible)]).await;
            sound(&answer, &format!("{} {header}", operation.name()), None);
        }
    }
}

/// Every text of every body.
async fn in_bodies(api: &Api, text: &str) {
    for (path, body, field) in [
        ("products", json!({ "id": text, "name": "n", "price": 1 }), "id"),
        ("products", json!({ "name": "n", "price": text }), "price"),
        ("products", json!({ "name": "n", "price": 1, "stock": text }), "stock"),
        ("products", json!({ "name": "n", "price": 1, "currency": text }), "currency"),
        ("products", json!({ "name": "n", "price": 1, "attributes": text }), "attributes"),
        ("users", json!({ "email": text, "name": "n" }), "email"),
        ("payments", json!({ "user_id": text, "amount": 1, "currency": "EUR" }), "user_id"),
        (
            "orders",
            json!({ "user_id": "u", "items": [{ "product_id": text, "quantity": 1 }] }),
            "items[0].product_id",
        ),
        ("repositories/query", json!({ "repository": text }), "repository"),
        ("repositories/query", json!({ "repository": "products", "cursor": text }), "cursor"),
        ("repositories/query", json!({ "repository": "products", "order_by": [text] }), "order_by[0]"),
        ("repositories/query", json!({ "repository": "products", "where": text }), "where"),
        (
            "repositories/query",
            json!({ "repository": "products", "where": { "field": text, "op": "eq", "value": 1 } }),
            "where.field",
        ),
        (
            "repositories/query",
            json!({ "repository": "products", "where": { "field": "id", "op": text, "value": 1 } }),
            "where.op",
        ),
        (
            "repositories/query",
            json!({ "repository": "products", "where": { "field": "stock", "op": "eq", "value": text } }),
            "where.value",
        ),
        ("products/batch", json!({ "operations": [{ "op": text, "id": "x" }] }), "operations[0].op"),
    ] {
        let answer = api.post(&format!("/api/v1/{path}"), &body).await;
        assert!((400..500).contains(&answer.status), "{path} {field}: {}", answer.text);
        sound(&answer, &format!("{path} {field}"), Some(field));
    }
    // a key may be any text: there is no such record
    let deleted =
        api.post("/api/v1/products/batch", &json!({ "operations": [{ "op": "delete", "id": text }] })).await;
    sound(&deleted, "products/batch", None);
    assert!(matches!(deleted.status, 207 | 400), "{}", deleted.text);
    assert!(deleted.status == 400 || deleted.json()["results"][0]["status"] == 404, "{}", deleted.text);
    // what is text stays text, in every store
    for (path, body) in [
        ("products", json!({ "name": text, "price": 1, "description": text, "attributes": { "a": text } })),
        ("notifications/templates", json!({ "template": text, "body": "x" })),
        ("configurations", json!({ "value": { text: text } })),
    ] {
        let answer = api.post(&format!("/api/v1/{path}"), &body).await;
        sound(&answer, path, None);
        if answer.status == 201 {
            let read = api.get(answer.header("location")).await;
            assert_eq!(read.json(), answer.json(), "{path}");
        }
    }
    for op in ["eq", "lt", "like"] {
        let body = json!({ "repository": "products", "where": { "field": "name", "op": op, "value": text } });
        sound(&api.post("/api/v1/repositories/query", &body).await, op, Some("where.value"));
    }
}

/// Every header that is read.
async fn in_headers(api: &Api, text: &str) {
    let visible: String = text.chars().filter(|c| (' '..='~').contains(c)).take(4_000).collect();
    for (name, field) in [
        ("if-match", "If-Match"),
        ("if-min-version", "If-Min-Version"),
        ("idempotency-key", "Idempotency-Key"),
    ] {
        let headers = [(name, visible.as_str())];
        let answer = match name {
            "if-min-version" => api.get_with("/api/v1/products/keep", &headers).await,
            "if-match" => {
                api.send(Method::PATCH, "/api/v1/products/keep", &headers, &json!({ "price": 2 })).await
            }
            _ => {
                api.send(Method::POST, "/api/v1/products", &headers, &json!({ "name": "", "price": 1 })).await
            }
        };
        assert!((400..500).contains(&answer.status), "{name}: {} {}", answer.status, answer.text);
        if name != "idempotency-key" {
            sound(&answer, name, Some(field));
        }
    }
}

/// Bodies that are no bodies.
async fn malformed(api: &Api) {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (path, body) in [
        ("products", r#"{"name":"a","price":1e999}"#.to_owned()),
        ("products", r#"{"name":"a","price":1,"stock":1e18}"#.to_owned()),
        ("products", r#"{"name":"a","name":"b","price":1}"#.to_owned()),
        ("products", format!(r#"{{"name":"a","price":1,"attributes":{{"x":{deep}}}}}"#)),
        ("products", deep.clone()),
        ("products/batch", format!(r#"{{"operations":{deep}}}"#)),
        ("products/batch", r#"{"operations":[{"op":"create","data":{}}],"operations":[]}"#.to_owned()),
        ("repositories/query", format!(r#"{{"repository":"products","where":{deep}}}"#)),
        ("repositories/query", r#"{"repository":"products","limit":1e400}"#.to_owned()),
        ("notifications/templates/x/render", format!(r#"{{"variables":{deep}}}"#)),
        ("configurations", format!(r#"{{"value":{deep}}}"#)),
    ] {
        let answer =
            api.call(Method::POST, &format!("/api/v1/{path}"), &[], Some(body.into_bytes())).await.unwrap();
        assert!((400..500).contains(&answer.status), "{path}: {} {}", answer.status, answer.text);
        sound(&answer, path, None);
    }
}

/// No failure of this side, nothing of the inside; and a refusal for a field names it.
fn sound(answer: &Answer, what: &str, field: Option<&str>) {
    let shown: String = answer.text.chars().take(400).collect();
    assert!(answer.status < 500, "{what}: {} {shown}", answer.status);
    if answer.status >= 400 {
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}: {shown}");
        for leak in ["SELECT ", "INSERT ", "sqlx", "panicked", ".rs:", "bson", "Exception"] {
            assert!(!answer.json()["detail"].as_str().unwrap_or_default().contains(leak), "{what}: {shown}");
        }
        assert!(answer.text.len() < 64 << 10, "{what}: an answer of {} bytes", answer.text.len());
    }
    if let (400, Some(field)) = (answer.status, field) {
        let fields: Value = answer.fields().into();
        assert!(
            answer.fields().iter().any(|name| name == field || name.starts_with(field)),
            "{what}: {fields} {shown}"
        );
    }
}
