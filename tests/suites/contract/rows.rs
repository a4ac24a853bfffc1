//! The rows of the contract beyond single records: repeats, batches, the audit, specifications, templates,
//! searches, lists.

use harness::client::Api;
use reqwest::Method;
use serde_json::{Value, json};

use super::listed;
use crate::{feed, stage::Stage};

/// A word that no other part of the suite uses.
pub fn word() -> String {
    format!("w{}", rand::random::<u32>())
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// `Idempotency-Key` on creates: the same answer, one effect, 422 for another body.
pub async fn repeats(api: &Api) {
    for (path, body) in [
        ("/api/v1/users", json!({ "email": format!("{}@example.com", word()), "name": "R" })),
        ("/api/v1/products", json!({ "name": "R", "price": 1 })),
    ] {
        let key = word();
        let header = [("idempotency-key", key.as_str())];
        let first = api.send(Method::POST, path, &header, &body).await;
        assert_eq!(first.status, 201, "{}", first.text);
        let one = first.header("location").to_owned();
        assert_eq!(api.send(Method::PATCH, &one, &[], &json!({ "name": "S" })).await.status, 200);
        let again = api.send(Method::POST, path, &header, &body).await;
        assert_eq!((again.status, &again.text, again.header("etag")), (201, &first.text, "\"1\""));
        assert_eq!(api.send(Method::DELETE, &one, &[], &Value::Null).await.status, 204);
        assert_eq!(api.send(Method::POST, path, &header, &body).await.text, first.text);
        let other = api.send(Method::POST, path, &header, &json!({ "name": "other" })).await;
        assert!([400, 422].contains(&other.status), "{}", other.text);
        let mut other = body.clone();
        other["name"] = "other".into();
        let other = api.send(Method::POST, path, &header, &other).await;
        assert_eq!(
            (other.status, other.fields()),
            (422, vec!["Idempotency-Key".to_owned()]),
            "{}",
            other.text
        );
    }
}

/// `POST /{collection}/batch`: 207 with a result for each operation; atomic where the store can.
pub async fn batches(api: &Api, stage: &Stage) {
    let (a, b) = (word(), word());
    let operations = json!({ "operations": [
        { "op": "create", "id": a, "data": { "name": "A", "price": 1 } },
        { "op": "patch", "id": a, "version": 1, "data": { "price": 2 } },
        { "op": "update", "id": b, "data": { "name": "B", "price": 1 } },
        { "op": "delete", "id": a, "version": 1 },
        { "op": "delete", "id": a, "version": 2 },
    ] });
    let answer = api.post("/api/v1/products/batch", &operations).await;
    assert_eq!(answer.status, 207, "{}", answer.text);
    let results = answer.json()["results"].as_array().cloned().unwrap();
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 200, 404, 412, 204], "{}", answer.text);
    assert_eq!(results[1]["version"], 2);

    let user =
        |id: &str, email: &str| json!({ "op": "create", "id": id, "data": { "email": email, "name": "U" } });
    let (ann, bob) = (format!("{a}@example.com"), format!("{b}@example.com"));
    let twice = json!({ "atomic": true, "operations": [user(&a, &ann), user(&b, &ann)] });
    let refused = api.post("/api/v1/users/batch", &twice).await;
    assert_eq!((refused.status, refused.fields()), (409, vec!["email".to_owned()]), "{}", refused.text);
    assert_eq!(refused.json()["operation"], json!({ "index": 1, "op": "create", "id": b }));
    assert_eq!(api.get(&format!("/api/v1/users/{a}")).await.status, 404, "all or nothing");
    let both = json!({ "atomic": true, "operations": [user(&a, &ann), user(&b, &bob)] });
    assert_eq!(api.post("/api/v1/users/batch", &both).await.status, 207);
    assert_eq!(api.get(&format!("/api/v1/users/{b}")).await.status, 200);

    let product = |id: &str| json!({ "op": "create", "id": id, "data": { "name": "P", "price": 1 } });
    let atomic = json!({ "atomic": true, "operations": [product(&word()), product(&word())] });
    let answer = api.post("/api/v1/products/batch", &atomic).await;
    // a document store cannot, and says so; nor can what stands in for it
    match stage.has_documents() {
        true => assert!(answer.status == 422 && answer.text.contains("MongoDB"), "{}", answer.text),
        false => assert_eq!(answer.status, 207, "{}", answer.text),
    }
}

/// `GET /audit`: who did what when, over all stores.
pub async fn audit(api: &Api) {
    for (path, body) in [
        ("/api/v1/users", json!({ "email": format!("{}@example.com", word()), "name": "before" })),
        ("/api/v1/products", json!({ "name": "before", "price": 1 })),
    ] {
        let one = api.post(path, &body).await.header("location").to_owned();
        let id = one.rsplit('/').next().unwrap().to_owned();
        api.send(Method::PATCH, &one, &[], &json!({ "name": "after" })).await;
        api.send(Method::DELETE, &one, &[], &Value::Null).await;
        let entity = if path.ends_with("users") { "user" } else { "product" };
        let page = api.get(&format!("/api/v1/audit?entity={entity}&id={id}")).await.json();
        let items = page["items"].as_array().cloned().unwrap_or_default();
        let actions: Vec<&str> = items.iter().map(|item| item["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["created", "updated", "deleted"]);
        assert_eq!(
            (&items[1]["before"]["name"], &items[1]["after"]["name"]),
            (&json!("before"), &json!("after"))
        );
        assert_eq!((&items[0]["before"], &items[2]["after"]), (&Value::Null, &Value::Null));
        assert_eq!(items[0]["actor"], "anonymous");
    }
    let page = api.get("/api/v1/audit?limit=2").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = api.get(&format!("/api/v1/audit?limit=2&cursor={cursor}")).await;
    assert_eq!(next.status, 200, "{}", next.text);
    assert_ne!(next.json()["items"][0]["id"], page["items"][0]["id"]);
    assert_eq!(api.send(Method::DELETE, "/api/v1/audit", &[], &Value::Null).await.status, 405);
}

/// `/repositories`, and searches that find the same in every store.
pub async fn repositories(api: &Api, stage: &Stage) {
    let all = api.get("/api/v1/repositories").await.json();
    assert_eq!(all["repositories"].as_array().unwrap().len(), 4, "{all}");
    feed::healthy(api).await;
    for kind in ["mysql", "mongodb", "cached", "specification"] {
        let one = api.get(&format!("/api/v1/repositories/{kind}")).await.json();
        // of a store that is not declared there is nothing to be said
        let is_there = kind != "mongodb" || stage.has_documents();
        let health = if is_there { json!("healthy") } else { Value::Null };
        assert_eq!((&one["type"], &one["health"]), (&json!(kind), &health), "{one}");
    }
    assert_eq!(api.get("/api/v1/repositories/oracle").await.status, 404);

    let brand = word();
    for (id, price, stock) in [("a", "1.10", 1), ("b", "19.90", 0), ("c", "100", 7)] {
        let body = json!({ "id": format!("{brand}-{id}"), "name": format!("{id}%_Name"), "price": price, "stock": stock, "brand": brand });
        assert_eq!(api.post("/api/v1/products", &body).await.status, 201);
    }
    let own = json!({ "field": "brand", "op": "eq", "value": brand });
    for (filter, order, found) in [
        (json!({ "field": "price", "op": "gte", "value": 19.9 }), json!(["-price"]), "cb"),
        (json!({ "field": "price", "op": "between", "value": ["1.1", "20"] }), json!(["price"]), "ab"),
        (json!({ "not": { "field": "stock", "op": "eq", "value": 0 } }), json!([]), "ac"),
        (json!({ "field": "name", "op": "like", "value": "_\\%\\_N%" }), json!(["-id"]), "cba"),
        (json!({ "field": "name", "op": "like", "value": "%name" }), json!([]), ""),
        (
            json!({ "or": [{ "field": "stock", "op": "gt", "value": 5 }, { "field": "stock", "op": "in", "value": [0] }] }),
            json!(["stock"]),
            "bc",
        ),
        (json!({ "field": "category", "op": "is_null" }), json!(["-stock"]), "cab"),
    ] {
        let body = json!({ "repository": "products", "where": { "and": [own, filter] }, "order_by": order });
        let page = api.post("/api/v1/repositories/query", &body).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let expected: Vec<String> = found.chars().map(|id| format!("{brand}-{id}")).collect();
        assert_eq!(ids(&page.json()), expected, "{filter}");
    }
    let count = json!({ "repository": "product", "where": own, "count_only": true });
    assert_eq!(api.post("/api/v1/repositories/query", &count).await.json(), json!({ "total": 3 }));
    let found = api.get(&format!("/api/v1/products/search?q={}%20_name", brand.to_uppercase())).await;
    assert_eq!(ids(&found.json()).len(), 3, "{}", found.text);
    let bad = json!({ "repository": "products", "where": { "and": [{ "field": "colour", "op": "eq", "value": 1 }] } });
    let refused = api.post("/api/v1/repositories/query", &bad).await;
    assert_eq!((refused.status, refused.fields()), (400, vec!["where.and[0].field".to_owned()]));
}

/// `POST /notifications/templates/{id}/render`.
pub async fn templates(api: &Api) {
    let body = json!({ "template": word(), "subject": "Hi {{ name }}", "body": "{% for n in list %}{{ n }};{% endfor %}" });
    let created = api.post("/api/v1/notifications/templates", &body).await;
    let render = format!("{}/render", created.header("location"));
    let filled = api.post(&render, &json!({ "variables": { "name": "Ann", "list": [1, 2] } })).await;
    assert_eq!(filled.status, 200, "{}", filled.text);
    assert_eq!((&filled.json()["subject"], &filled.json()["body"]), (&json!("Hi Ann"), &json!("1;2;")));
    let missing = api.post(&render, &json!({ "variables": { "list": [] } })).await;
    assert_eq!(
        (missing.status, missing.fields()),
        (400, vec!["variables.name".to_owned()]),
        "{}",
        missing.text
    );
}

/// No list shows what is gone; large answers are compressed; a declared pool can be patched.
pub async fn lists(api: &Api) {
    let category = word();
    let list = format!("/api/v1/products/category/{category}");
    for _ in 0..10 {
        let body =
            json!({ "name": "L", "price": 1, "category": category, "description": "long ".repeat(2_000) });
        let one = api.post("/api/v1/products", &body).await.header("location").to_owned();
        listed(api, &list, |page| page["total"] == 1).await;
        let packed = api.get_with(&list, &[("accept-encoding", "gzip")]).await;
        assert_eq!(packed.header("content-encoding"), "gzip", "{} {}", packed.status, packed.text);
        assert_eq!(api.send(Method::DELETE, &one, &[], &Value::Null).await.status, 204);
        // in one process no list shows a record after its delete was answered
        listed(api, &list, |page| page["total"] == 0).await;
    }
    let store = format!("/api/v1/pools/stores/{}", word());
    let body = json!({ "city": "Berlin", "phone": "1" });
    assert_eq!(api.send(Method::PUT, &store, &[], &body).await.status, 201);
    let patched = api.send(Method::PATCH, &store, &[], &json!({ "phone": "2" })).await;
    assert_eq!((patched.status, &patched.json()["phone"]), (200, &json!("2")), "{}", patched.text);
}
