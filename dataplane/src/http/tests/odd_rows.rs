//! What other programs wrote, as the API shows it: any key, and records that cannot be read, which take
//! nothing else away.

use super::*;

const KEYS: [(&str, &str); 9] = [
    ("k050 b", "k050%20b"),
    ("Zürich", "Z%C3%BCrich"),
    ("AB/12", "AB%2F12"),
    ("_under", "_under"),
    ("a,b", "a%2Cb"),
    ("100%", "100%25"),
    ("\"q\"", "%22q%22"),
    ("a\nb", "a%0Ab"),
    ("trail ", "trail%20"),
];

#[tokio::test]
async fn any_key_is_named_in_the_path_or_by_the_parameter_id() {
    let server = Server::start().await;
    for (key, encoded) in KEYS {
        let (path, query) = (format!("/pools/stores/{encoded}"), format!("/pools/stores?id={encoded}"));
        let created = server.put(&path, r#"{"phone":"1"}"#).await.expect(201);
        assert_eq!(created.header("location"), format!("/api/v1{path}"));
        for target in [&path, &query] {
            // from the store, and then from memory
            let read = server.get(target).await.expect(200);
            assert_eq!((read.json()["code"].as_str(), read.header("etag")), (Some(key), "\"1\""), "{target}");
        }
        assert_eq!(server.get(&format!("/pools/stores?ids={encoded}")).await.json()["items"][0]["code"], key);
        assert_eq!(server.put(&query, r#"{"phone":"2"}"#).await.expect(200).json()["version"], 2);
        assert_eq!(server.patch(&query, r#"{"phone":"3"}"#).await.expect(200).json()["phone"], "3");
        server.send(Method::DELETE, &query, &[("if-match", "\"3\"")], "").await.expect(204);
        server.get(&path).await.problem(404);
    }
    let all: Vec<String> = KEYS.iter().map(|(_, encoded)| (*encoded).to_owned()).collect();
    assert_eq!(server.get(&format!("/pools/stores?ids={}", all.join(","))).await.json()["total"], 0);
}

#[tokio::test]
async fn the_empty_key_and_words_of_routes_are_named_by_the_parameter_id() {
    let server = Server::start().await;
    for key in ["", "search", "batch", ".."] {
        let target = format!("/pools/stores?id={key}");
        let created = server.put(&target, r#"{"phone":"1"}"#).await.expect(201);
        assert_eq!(created.header("location"), format!("/api/v1{target}"));
        assert_eq!(server.get(&target).await.expect(200).json()["code"], key);
        server.delete(&target).await.expect(204);
    }
    assert_eq!(server.put("/pools/stores", "{}").await.problem(400), ["code"]);
    assert_eq!(server.get("/pools/stores?id=a&limit=1").await.problem(400), ["limit"]);
    assert_eq!(server.get(&format!("/pools/stores?id={}", "a".repeat(256))).await.problem(400), ["id"]);
    // the service's own entities get plain keys
    assert_eq!(server.put("/configurations/a%20b", r#"{"value":1}"#).await.problem(400), ["id"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_alone_and_can_be_mended() {
    let server = Server::start().await;
    server.sql("INSERT INTO stores (code, phone, version) VALUES ('a', '1', 1), ('c', '3', 4)").await;
    server.sql("INSERT INTO stores (code, count, version) VALUES ('b', 'many', 7), ('d', 2, -5)").await;
    for _ in 0..2 {
        let answer = server.get("/pools/stores/b").await;
        assert_eq!(answer.problem(500), ["count"]);
        let body = answer.json();
        assert_eq!(body["type"], "urn:flyweight:problem:unreadable-record");
        let shown = ["key", "field", "stored_type", "length", "version"].map(|name| body[name].clone());
        let expected: [Json; 5] =
            ["b".into(), "count".into(), body["stored_type"].clone(), 4.into(), 7.into()];
        assert_eq!(shown, expected);
        assert!(body["stored_type"].is_string() && !answer.text.contains("many"), "{}", answer.text);
    }
    let named = serde_json::json!([{ "key": "b", "field": "count" }, { "key": "d", "field": "version" }]);
    let read_all = ["/pools/stores", "/pools/stores?ids=a,b,c,d"];
    for path in read_all {
        let list = server.get(path).await.expect(200).json();
        let codes: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|item| item["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["a", "c"], "{path}");
        assert_eq!((&list["unreadable"], list["total"].as_u64()), (&named, Some(4)), "{path}");
    }
    let query = r#"{"repository":"stores","where":{"field":"phone","op":"is_null"}}"#;
    assert_eq!(server.post("/repositories/query", query).await.expect(200).json()["unreadable"], named);
    assert_eq!(server.resource("stores").records.oddities().count(), 2);
    server.patch("/pools/stores/b", r#"{"phone":"2"}"#).await.problem(500);

    let stale = server.send(Method::PUT, "/pools/stores/b", &[("if-match", "\"6\"")], r#"{"count":1}"#).await;
    stale.problem(412);
    let mended =
        server.send(Method::PUT, "/pools/stores/b", &[("if-match", "\"7\"")], r#"{"count":1}"#).await;
    assert_eq!(mended.expect(200).json()["version"], 8);
    server.delete("/pools/stores/d").await.expect(204);
    for path in read_all {
        let list = server.get(path).await.expect(200).json();
        assert_eq!((list["items"].as_array().unwrap().len(), list.get("unreadable")), (3, None), "{path}");
    }
    assert_eq!(server.resource("stores").records.oddities().count(), 0);
}
