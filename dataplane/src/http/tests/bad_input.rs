//! Input that is wrong in every way: 4xx, a problem, and the field named.

use super::*;

#[tokio::test]
async fn malformed_keys_are_named() {
    let server = Server::start().await;
    let body = r#"{"name":"a","price":1}"#;
    for id in ["%00", "%ff", &"a".repeat(256)] {
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = server.with(method, &format!("/products/{id}"), body).await;
            assert_eq!(answer.problem(400), ["id"], "{id}");
        }
    }
    // other programs may have made such a one, but none is made here
    for id in ["a%20b", "-a", "a%2Fb", "%27%20OR%201%3D1", &"a".repeat(129), "%7B%7D"] {
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
            server.with(method, &format!("/products/{id}"), body).await.problem(404);
        }
    }
    assert_eq!(server.post("/products", r#"{"id":"a b","name":"a","price":1}"#).await.problem(400), ["id"]);
}

#[tokio::test]
async fn every_wrong_field_is_listed() {
    let server = Server::start().await;
    let body =
        r#"{"name":"","price":"x","currency":"Euro","stock":-1,"attributes":7,"colour":"red","name":"b"}"#;
    let named = server.post("/products", body).await.problem(400);
    assert_eq!(named, ["name", "name", "price", "currency", "stock", "attributes", "colour"]);
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused_with_their_place() {
    let server = Server::start().await;
    for body in ["", "[]", "null", "{", "{\"name\":}", "{} x", "\u{feff}{}", "{\"name\":\"a\u{0}\"}"] {
        let answer = server.post("/products", body).await;
        answer.problem(400);
        assert!(answer.json()["detail"].as_str().unwrap().contains("column"), "{}", answer.text);
    }
    let json = [("content-type", "application/json")];
    let answer = server.send(Method::POST, "/products", &json, &b"{\"name\":\"\xff\"}"[..]).await;
    answer.problem(400);
    assert!(answer.json()["detail"].as_str().unwrap().contains("byte 9"), "{}", answer.text);
}

#[tokio::test]
async fn large_bodies_and_large_values_are_refused() {
    let server = Server::start().await;
    let large = format!(r#"{{"name":"{}","price":1}}"#, "a".repeat(1_000_000));
    assert_eq!(server.post("/products", &large).await.problem(400), ["name"]);
    let huge = format!(r#"{{"name":"{}","price":1}}"#, "a".repeat(2 << 20));
    assert!(server.post("/products", &huge).await.problem(413).is_empty());
    let deep = format!(
        r#"{{"name":"a","price":1,"attributes":{{"a":{}1{}}}}}"#,
        "[".repeat(9_000),
        "]".repeat(9_000)
    );
    let answer = server.post("/products", &deep).await;
    assert!(answer.problem(400)[0].starts_with("attributes.a[0]"), "{}", answer.text);
    for (attributes, field) in [
        (r#"{"a":1e400}"#, "attributes.a"),
        (r#"{"a":9223372036854775808}"#, "attributes"),
        (r#"{"a":"\u0000"}"#, "attributes.a"),
        (r#"{"a":{"b":1,"b":2}}"#, "attributes.a.b"),
        (r#"{"a":"\ud800"}"#, "attributes.a"),
    ] {
        let body = format!(r#"{{"name":"a","price":1,"attributes":{attributes}}}"#);
        assert_eq!(server.post("/products", &body).await.problem(400), [field], "{attributes}");
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    let (mut reader, mut writer) =
        tokio::net::TcpStream::connect(&server.address).await.unwrap().into_split();
    let head = "POST /api/v1/products HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 1 << 16], b"\r\n".to_vec()].concat();
    // Four times the limit, unless the server closes before.
    let sender = tokio::spawn(async move {
        for _ in 0..64 {
            if writer.write_all(&chunk).await.is_err() {
                break;
            }
        }
        writer
    });
    let mut status = [0; 12];
    tokio::time::timeout(Duration::from_secs(5), reader.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    drop(reader);
    _ = sender.await;
}

#[tokio::test]
async fn what_says_that_it_is_other_json_is_not_read() {
    let server = Server::start().await;
    let body = r#"{"name":"Tea","price":1}"#;
    for wrong in
        ["application/json-patch+json", "application/json; charset=latin1", "application/merge-patch+json"]
    {
        server.send(Method::POST, "/products", &[("content-type", wrong)], body).await.problem(415);
    }
    let zipped = [("content-type", "application/json"), ("content-encoding", "gzip")];
    server.send(Method::POST, "/products", &zipped, body).await.problem(415);
    for right in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        // as curl and hey send what they are given
        "application/x-www-form-urlencoded",
        "text/html",
    ] {
        server.send(Method::POST, "/products", &[("content-type", right)], body).await.expect(201);
    }
    let created = server.send(Method::POST, "/products", &[], body).await.expect(201);
    let path = format!("/products/{}", created.json()["id"].as_str().unwrap());
    server
        .send(Method::PATCH, &path, &[("content-type", "application/merge-patch+json")], "{}")
        .await
        .expect(200);
}

#[tokio::test]
async fn hostile_text_is_only_text() {
    let server = Server::start().await;
    for name in [
        "'; DROP TABLE users; --",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "<script>",
        "\\\"",
        "\u{202e}",
        "NULL",
        "%s%n",
    ] {
        let body = serde_json::json!({ "name": name, "price": 1 }).to_string();
        let created = server.post("/products", &body).await.expect(201);
        let path = format!("/products/{}", created.json()["id"].as_str().unwrap());
        assert_eq!(server.get(&path).await.json()["name"], name);
    }
}
