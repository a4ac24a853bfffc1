//! Batches: each operation by itself, or all as one unit of work.

use super::*;

async fn batch(server: &Server, path: &str, body: &str) -> Vec<(u64, Json)> {
    let answer = server.post(path, body).await.expect(207);
    let results = answer.json()["results"].as_array().unwrap().clone();
    results.into_iter().map(|result| (result["status"].as_u64().unwrap(), result)).collect()
}

fn statuses(results: &[(u64, Json)]) -> Vec<u64> {
    results.iter().map(|(status, _)| *status).collect()
}

#[tokio::test]
async fn each_operation_has_its_own_result() {
    let server = Server::start().await;
    server.post("/products", r#"{"id":"old","name":"Old","price":1}"#).await.expect(201);
    let results = batch(
        &server,
        "/products/batch",
        r#"{"operations":[
            {"op":"create","id":"tea","data":{"name":"Tea","price":"1.10"}},
            {"op":"patch","id":"tea","data":{"price":2}},
            {"op":"patch","id":"tea","version":1,"data":{"price":3}},
            {"op":"update","id":"tea","version":2,"data":{"name":"Tea 2","price":4}},
            {"op":"create","data":{"name":"","price":-1}},
            {"op":"delete","id":"none"},
            {"op":"delete","id":"old"},
            {"op":"create","data":{"name":"Cup","price":5}}
        ]}"#,
    )
    .await;
    assert_eq!(statuses(&results), [201, 200, 412, 200, 400, 404, 204, 201]);
    let versions: Vec<u64> = [0, 1, 3, 6].iter().map(|index| results[*index].1["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [1, 2, 3, 2]);
    assert_eq!(results[4].1["error"]["errors"].as_array().unwrap().len(), 2);
    assert_eq!(results[2].1["error"]["status"], 412);
    assert_eq!(server.get("/products/tea").await.json()["name"], "Tea 2");
    let cup = results[7].1["id"].as_str().unwrap();
    server.get(&format!("/products/{cup}")).await.expect(200);
    server.get("/products/old").await.problem(404);
}

#[tokio::test]
async fn an_atomic_batch_is_all_or_nothing() {
    let server = Server::start().await;
    server.post("/users", r#"{"id":"ann","email":"a@b.co","name":"Ann"}"#).await.expect(201);
    let failing = r#"{"atomic":true,"operations":[
        {"op":"create","id":"bob","data":{"email":"b@b.co","name":"Bob"}},
        {"op":"patch","id":"ann","version":7,"data":{"name":"Anna"}},
        {"op":"delete","id":"ann"}
    ]}"#;
    assert_eq!(statuses(&batch(&server, "/users/batch", failing).await), [424, 412, 424]);
    let taken = r#"{"atomic":true,"operations":[
        {"op":"create","id":"bob","data":{"email":"b@b.co","name":"Bob"}},
        {"op":"create","id":"eve","data":{"email":"a@b.co","name":"Eve"}}
    ]}"#;
    assert_eq!(server.post("/users/batch", taken).await.problem(409), ["email"]);
    server.get("/users/bob").await.problem(404);
    assert_eq!(server.get("/users/ann").await.json()["version"], 1);
    let sound = r#"{"atomic":true,"operations":[
        {"op":"create","id":"bob","data":{"email":"b@b.co","name":"Bob"}},
        {"op":"patch","id":"bob","version":1,"data":{"name":"Bobby"}},
        {"op":"delete","id":"ann"},
        {"op":"create","id":"cleo","data":{"email":"a@b.co","name":"Cleo"}},
        {"op":"create","id":"ann","data":{"email":"c@b.co","name":"Ann"}}
    ]}"#;
    let results = batch(&server, "/users/batch", sound).await;
    assert_eq!(statuses(&results), [201, 200, 204, 201, 201]);
    assert_eq!(
        results.iter().map(|(_, result)| result["version"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 2, 1, 3]
    );
    assert_eq!(server.get("/users/bob").await.json()["name"], "Bobby");
    let upserts = r#"{"atomic":true,"operations":[
        {"op":"update","id":"theme","data":{"value":1}},{"op":"update","id":"theme","data":{"value":2}}]}"#;
    assert_eq!(statuses(&batch(&server, "/configurations/batch", upserts).await), [201, 200]);
    assert_eq!(server.get("/configurations/theme").await.json()["value"], 2);
}

#[tokio::test]
async fn a_repeated_batch_has_one_effect() {
    let server = Server::start().await;
    for atomic in [false, true] {
        let body = format!(
            r#"{{"atomic":{atomic},"operations":[{{"op":"create","data":{{"name":"Tea","price":1}}}},{{"op":"create","data":{{"name":"Cup","price":1}}}}]}}"#
        );
        let key = format!("batch-{atomic}");
        let headers = [("idempotency-key", key.as_str())];
        let first = server.send(Method::POST, "/products/batch", &headers, body.clone()).await.expect(207);
        let again = server.send(Method::POST, "/products/batch", &headers, body.clone()).await.expect(207);
        assert_eq!(first.text, again.text);
        let other = server.send(Method::POST, "/products/batch", &headers, body.replace("Cup", "Mug")).await;
        match atomic {
            true => assert_eq!(other.problem(422), ["Idempotency-Key"]),
            false => assert_eq!(other.json()["results"][0]["status"], 422),
        }
    }
    assert_eq!(server.get("/products").await.json()["total"], 4);
}

#[tokio::test]
async fn a_thousand_operations_and_no_more() {
    let server = Server::start().await;
    let one = |index: usize| format!(r#"{{"op":"create","id":"p{index}","data":{{"name":"P","price":1}}}}"#);
    let body = |count: usize| {
        let list = (0..count).map(one).collect::<Vec<_>>().join(",");
        format!(r#"{{"atomic":true,"operations":[{list}]}}"#)
    };
    let results = batch(&server, "/products/batch", &body(1_000)).await;
    assert!(results.len() == 1_000 && results.iter().all(|(status, _)| *status == 201));
    assert_eq!(server.get("/products").await.json()["total"], 1_000);
    assert_eq!(server.post("/products/batch", &body(1_001)).await.problem(400), ["operations"]);
    assert_eq!(server.post("/products/batch", "{}").await.problem(400), ["operations"]);
    server.post("/products/batch", "[]").await.problem(400);
}

#[tokio::test]
async fn templates_are_rendered_and_checked() {
    let server = Server::start().await;
    let welcome = r#"{"id":"w","template":"welcome","subject":"Hi {{ name }}","body":"{{ n }} items for {{ name }}","channels":["mail"]}"#;
    server.post("/notifications/templates", welcome).await.expect(201);
    let path = "/notifications/templates/w/render";
    let filled = server.post(path, r#"{"variables":{"name":"Ann","n":3}}"#).await.expect(200).json();
    assert_eq!((&filled["subject"], &filled["body"]), (&"Hi Ann".into(), &"3 items for Ann".into()));
    assert_eq!(filled["channels"][0], "mail");
    assert_eq!(server.post(path, r#"{"variables":{"name":"Ann"}}"#).await.problem(400), ["variables.n"]);
    assert_eq!(server.post(path, "{}").await.problem(400), ["variables.name", "variables.n"]);
    assert_eq!(server.post(path, r#"{"variables":[]}"#).await.problem(400), ["variables"]);
    assert_eq!(server.post(path, r#"{"values":{}}"#).await.problem(400), ["values"]);
    server.post("/notifications/templates/none/render", "{}").await.problem(404);
    let broken = r#"{"template":"x","body":"{% if a %}"}"#;
    assert_eq!(server.post("/notifications/templates", broken).await.problem(400), ["body"]);
}
