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
    let versions: Vec<u64> =
        [0, 1, 3, 6].iter().map(|index| results[*index].1["version"].as_u64().unwrap()).collect();
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
    let refused = server.post("/users/batch", taken).await;
    assert_eq!(refused.problem(409), ["email"]);
    assert_eq!(refused.json()["operation"], serde_json::json!({ "index": 1, "op": "create", "id": "eve" }));
    assert!(refused.text.contains("operation 1 (create eve): "), "{}", refused.text);
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
async fn a_value_that_one_operation_gives_up_is_free_for_the_next_and_not_before() {
    let server = Server::start().await;
    for atomic in [false, true] {
        let many: Vec<String> = (0..40)
            .flat_map(|index| {
                [
                    format!(r#"{{"op":"create","id":"u{index}","data":{{"email":"one@b.co","name":"U"}}}}"#),
                    format!(r#"{{"op":"delete","id":"u{index}"}}"#),
                ]
            })
            .collect();
        let body = format!(r#"{{"atomic":{atomic},"operations":[{}]}}"#, many.join(","));
        let statuses = statuses(&batch(&server, "/users/batch", &body).await);
        assert!(statuses.chunks(2).all(|pair| pair == [201, 204]), "{atomic}: {statuses:?}");
    }
    server.post("/users", r#"{"id":"ann","email":"a@b.co","name":"Ann"}"#).await.expect(201);
    let early = |atomic: bool| {
        format!(
            r#"{{"atomic":{atomic},"operations":[{{"op":"create","id":"eve","data":{{"email":"a@b.co","name":"Eve"}}}},{{"op":"delete","id":"ann"}}]}}"#
        )
    };
    let refused = server.post("/users/batch", &early(true)).await;
    assert_eq!(refused.problem(409), ["email"]);
    assert_eq!(refused.json()["operation"]["index"], 0);
    server.get("/users/ann").await.expect(200);
    let results = batch(&server, "/users/batch", &early(false)).await;
    assert_eq!(statuses(&results), [409, 204]);
    assert_eq!(
        results[0].1["error"]["operation"],
        serde_json::json!({ "index": 0, "op": "create", "id": "eve" })
    );
}

#[tokio::test]
async fn one_record_may_come_twice_with_guards_of_the_steps_before() {
    let server = Server::start().await;
    for atomic in [false, true] {
        server.post("/products", r#"{"id":"p","name":"P","price":1}"#).await.expect(201);
        let version = server.get("/products/p").await.json()["version"].as_u64().unwrap();
        let (next, last) = (version + 1, version + 3);
        let body = format!(
            r#"{{"atomic":{atomic},"operations":[
            {{"op":"patch","id":"p","version":{version},"data":{{"price":2}}}},
            {{"op":"update","id":"p","version":{next},"data":{{"name":"Q","price":3,"version":{next}}}}},
            {{"op":"delete","id":"p"}},
            {{"op":"create","id":"p","data":{{"name":"R","price":4}}}},
            {{"op":"delete","id":"p","version":{}}}]}}"#,
            last + 1
        );
        let results = batch(&server, "/products/batch", &body).await;
        assert_eq!(statuses(&results), [200, 200, 204, 201, 204], "{results:?}");
        let stale = r#"{"atomic":true,"operations":[
            {"op":"create","id":"p","data":{"name":"S","price":1}},{"op":"patch","id":"p","version":1,"data":{"price":2}}]}"#;
        let results = batch(&server, "/products/batch", stale).await;
        assert_eq!(statuses(&results), [424, 412]);
        assert_eq!(
            results[1].1["error"]["operation"],
            serde_json::json!({ "index": 1, "op": "patch", "id": "p" })
        );
        server.get("/products/p").await.problem(404);
    }
}

#[tokio::test]
async fn data_of_an_operation_is_bounded_as_the_body_of_a_request() {
    let server = Server::start().await;
    let large = format!(r#"{{"name":"P","price":1,"description":"{}"}}"#, " ".repeat(1 << 20));
    assert_eq!(server.post("/products", &large).await.problem(413), Vec::<String>::new());
    let body = |atomic: bool| {
        format!(
            r#"{{"atomic":{atomic},"operations":[{{"op":"create","data":{{"name":"A","price":1}}}},{{"op":"create","data":{large}}}]}}"#
        )
    };
    assert_eq!(statuses(&batch(&server, "/products/batch", &body(false)).await), [201, 413]);
    assert_eq!(statuses(&batch(&server, "/products/batch", &body(true)).await), [424, 413]);
}

#[tokio::test]
async fn a_refused_batch_leaves_its_key_free() {
    let server = Server::start().await;
    let headers = [("idempotency-key", "once")];
    let body = |id: &str| {
        format!(
            r#"{{"atomic":true,"operations":[{{"op":"create","id":"b","data":{{"name":"B","price":1}}}},{{"op":"patch","id":"{id}","data":{{"price":2}}}}]}}"#
        )
    };
    let send = async |body: String| server.send(Method::POST, "/products/batch", &headers, body).await;
    assert_eq!(statuses(&results_of(&send(body("none")).await)), [424, 404]);
    let done = send(body("b")).await;
    assert_eq!(statuses(&results_of(&done)), [201, 200]);
    assert_eq!(send(body("b")).await.text, done.text);
    assert_eq!(send(body("none")).await.problem(422), ["Idempotency-Key"]);
}

fn results_of(answer: &Answer) -> Vec<(u64, Json)> {
    let results = answer.json()["results"].as_array().unwrap().clone();
    results.into_iter().map(|result| (result["status"].as_u64().unwrap(), result)).collect()
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
