//! `POST /events`: what is refused before the 202, and what people's own counts make of a stock.

use crds::service::messaging::UnknownProducts;

use super::*;

#[tokio::test]
async fn events_of_unknown_products_are_taken_or_refused_as_the_settings_say() {
    let server = Server::start().await;
    let event = |product: &str| format!(r#"{{"product_id":"{product}","price":49.99,"stock":100}}"#);
    server.post("/events", &event("abc123")).await.expect(202);
    server.ingest.set_unknown(UnknownProducts::Reject);
    assert_eq!(server.post("/events", &event("abc123")).await.problem(404), ["product_id"]);
    server.post("/products", r#"{"id":"abc123","name":"P","price":1}"#).await.expect(201);
    server.post("/events", &event("abc123")).await.expect(202);
    let lines = format!("{}\n\n{}\n", event("abc123"), event("gone"));
    let headers = [("content-type", "application/x-ndjson")];
    let answer = server.send(Method::POST, "/events", &headers, lines).await;
    assert_eq!(answer.problem(404), ["line 3: product_id"]);
    assert!(answer.text.contains("gone"), "{}", answer.text);
    server.delete("/products/abc123").await.expect(204);
    assert_eq!(server.post("/events", &event("abc123")).await.problem(404), ["product_id"]);
    for bad in ["a/b", ""] {
        assert_eq!(server.post("/events", &event(bad)).await.problem(400), ["product_id"]);
    }
    let ahead = r#"{"product_id":"abc123","price":1,"stock":1,"at":"2999-01-01T00:00:00Z"}"#;
    assert_eq!(server.post("/events", ahead).await.problem(400), ["at"]);
}

#[tokio::test]
async fn what_curl_sends_without_being_told_a_type_is_taken() {
    let server = Server::start().await;
    let event = r#"{"product_id": "abc123", "price": 49.99, "stock": 100}"#;
    for headers in [&[("content-type", "application/x-www-form-urlencoded")] as &[_], &[]] {
        server.send(Method::POST, "/events", headers, event).await.expect(202);
    }
}

#[tokio::test]
async fn a_stock_that_is_written_is_the_stock_that_is_read_where_nothing_is_held() {
    let server = Server::start().await;
    let stock = async |answer: Answer| answer.json()["stock"].as_i64().unwrap();
    server.post("/products", r#"{"id":"p","name":"P","price":1,"stock":3}"#).await.expect(201);
    assert_eq!(stock(server.get("/products/p").await).await, 3);
    assert_eq!(
        stock(server.put("/products/p", r#"{"name":"P","price":1,"stock":4}"#).await.expect(200)).await,
        4
    );
    assert_eq!(stock(server.patch("/products/p", r#"{"stock":5}"#).await.expect(200)).await, 5);
    for (op, data) in [("update", r#"{"name":"P","price":1,"stock":6}"#), ("patch", r#"{"stock":7}"#)] {
        for atomic in [true, false] {
            let body =
                format!(r#"{{"atomic":{atomic},"operations":[{{"op":"{op}","id":"p","data":{data}}}]}}"#);
            server.post("/products/batch", &body).await.expect(207);
        }
        let read = server.get("/products/p").await;
        assert!(data.contains(&format!("\"stock\":{}", read.json()["stock"])), "{}", read.text);
        assert!(!read.text.contains("counted"), "{}", read.text);
    }
}
