//! The HTTP contract, written once: the same answers over embedded stores and over real servers, from one
//! process and from three replicas that a client calls in turn. Replicas promise what one process does, but
//! for lists, which may be behind for a moment.

use std::time::Duration;

use harness::{
    client::{Answer, Api},
    wait,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{feed, stage::Stage};

mod document;
mod entities;
mod parts;
mod rows;

/// How far a list of another replica may be behind where an event is lost.
const LISTS_BEHIND_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_over_embedded_stores() {
    let stage = Stage::embedded();
    contract(&Api::session(&[&stage.data_plane.url]), &stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_over_real_servers_from_one_process_and_from_three() {
    let Some(stage) = Stage::real("the contract over real servers").await else { return };
    contract(&Api::session(&[&stage.data_plane.url]), &stage).await;
    let others = tokio::task::block_in_place(|| [stage.replica(), stage.replica()]);
    contract(&Api::session(&[&stage.data_plane.url, &others[0].url, &others[1].url]), &stage).await;
}

/// All that the API promises.
pub async fn contract(api: &Api, stage: &Stage) {
    eprintln!("{}, replicas: {}", stage.name, api.replicas());
    // one that joins the feed late drops what it has in memory once more
    for replica in api.bases() {
        feed::place(&Api::at(replica)).await;
    }
    products(api).await;
    users(api).await;
    conditions(api).await;
    pages(api).await;
    every_entity(api).await;
    declared_table(api).await;
    problems(api).await;
    rows::repeats(api).await;
    rows::batches(api, stage).await;
    rows::audit(api).await;
    rows::repositories(api, stage).await;
    rows::templates(api).await;
    rows::lists(api).await;
    entities::all(api).await;
    entities::named_in_the_query(api).await;
    parts::all(api, stage).await;
    health(api, stage).await;
    document::every_operation_refuses_what_makes_no_sense(api).await;
    document::every_operation_was_called_and_is_exact(api).await;
}

/// A list, once it is as it should be everywhere: of one process at once, of all replicas, which are asked in
/// turn, within their promise.
async fn listed(api: &Api, path: &str, right: impl Fn(&Value) -> bool) -> Answer {
    let mut in_a_row = 0;
    wait::until(&format!("{path} at each replica"), LISTS_BEHIND_MAX, async || {
        loop {
            let answer = api.get(path).await;
            if !right(&answer.json()) {
                assert!(api.replicas() > 1, "{path}: {} {}", answer.status, answer.text);
                in_a_row = 0;
                return None;
            }
            in_a_row += 1;
            if in_a_row == api.replicas() {
                return Some(answer);
            }
        }
    })
    .await
}

async fn products(api: &Api) {
    let body = json!({ "name": "Lamp", "price": 19.90, "category": "light", "stock": 3, "attributes": { "colour": "red" } });
    let created = api.post("/api/v1/products", &body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.header("etag"), "\"1\"");
    let record = created.json();
    let id = record["id"].as_str().unwrap();
    let path = format!("/api/v1/products/{id}");
    assert_eq!(created.header("location"), path);
    assert_eq!(record["version"], 1);
    assert_eq!(record["currency"], "USD");
    assert!(created.text.contains("\"price\":19.9"), "{}", created.text);

    let first = api.get(&path).await;
    assert_eq!((first.status, first.header("etag")), (200, "\"1\""));
    assert_eq!(sorted(&first.json()), sorted(&record));
    for _ in 1..api.replicas() {
        api.get(&path).await;
    }
    wait::until("the record to be in memory", LISTS_BEHIND_MAX, async || {
        let read = api.get_with(&path, &[("flyweight-explain", "1")]).await;
        let explain = read.header("flyweight-explain");
        let is_in_memory = explain.contains("tier=hot") && explain.contains("version=1");
        // a load during which the event of the change came to another replica fills nothing
        assert!(is_in_memory || api.replicas() > 1, "{explain}");
        is_in_memory.then_some(())
    })
    .await;

    let patched = api
        .send(
            Method::PATCH,
            &path,
            &[],
            &json!({ "price": "21.50", "attributes": { "colour": null, "watts": 5 } }),
        )
        .await;
    assert_eq!((patched.status, patched.header("etag")), (200, "\"2\""), "{}", patched.text);
    assert_eq!(patched.json()["attributes"], json!({ "watts": 5 }));
    let read = api.get_with(&path, &[("if-min-version", "2")]).await;
    assert_eq!(read.status, 200);
    assert!(read.text.contains("\"price\":21.5"), "{}", read.text);

    let replaced = api.send(Method::PUT, &path, &[], &json!({ "name": "Lamp 2", "price": 1 })).await;
    assert_eq!((replaced.status, replaced.header("etag")), (200, "\"3\""), "{}", replaced.text);
    assert_eq!(replaced.json()["category"], Value::Null);

    let deleted = api.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(deleted.status, 204);
    assert_eq!(api.get(&path).await.status, 404);
    let again = api.post("/api/v1/products", &json!({ "id": id, "name": "Lamp 3", "price": 1 })).await;
    assert_eq!(again.status, 201);
    assert_eq!(again.json()["version"], 5, "a key that comes back goes on counting after its tombstone");
    assert_eq!(api.post("/api/v1/products", &json!({ "id": id, "name": "x", "price": 1 })).await.status, 409);
}

async fn users(api: &Api) {
    let email = format!("ann-{}@example.com", rand::random::<u32>());
    let created = api.post("/api/v1/users", &json!({ "email": email, "name": "Ann" })).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let twice = api.post("/api/v1/users", &json!({ "email": email, "name": "Other" })).await;
    assert_eq!(twice.status, 409);
    assert_eq!(twice.fields(), ["email"], "{}", twice.text);
    let found = api.get(&format!("/api/v1/users/search?email={email}")).await;
    assert_eq!(found.json()["items"][0]["email"], email.as_str(), "{}", found.text);
}

async fn conditions(api: &Api) {
    let created = api.post("/api/v1/products", &json!({ "name": "Cup", "price": 2 })).await;
    let path = created.header("location").to_owned();
    let unchanged = api.get_with(&path, &[("if-none-match", "\"1\"")]).await;
    assert_eq!((unchanged.status, unchanged.text.as_str()), (304, ""));
    let changed = api.send(Method::PATCH, &path, &[("if-match", "\"1\"")], &json!({ "price": 3 })).await;
    assert_eq!(changed.status, 200);
    let stale = api.send(Method::PATCH, &path, &[("if-match", "\"1\"")], &json!({ "price": 4 })).await;
    assert_eq!(stale.status, 412, "{}", stale.text);
    assert_eq!(stale.header("content-type"), "application/problem+json");
    assert_eq!(api.send(Method::DELETE, &path, &[("if-match", "\"1\"")], &Value::Null).await.status, 412);
    let future = api.get_with(&path, &[("if-min-version", "99")]).await;
    assert_eq!(future.status, 503, "never an older version than the one asked for");
    assert!(!future.header("retry-after").is_empty());
}

async fn pages(api: &Api) {
    let category = format!("c{}", rand::random::<u32>());
    let mut ids = Vec::new();
    for n in 0..7 {
        let created = api
            .post("/api/v1/products", &json!({ "name": format!("p{n}"), "price": n, "category": category }))
            .await;
        ids.push(created.json()["id"].as_str().unwrap().to_owned());
    }
    let mut found = Vec::new();
    let mut path = format!("/api/v1/products/category/{category}?limit=3");
    loop {
        let page = api.get(&path).await.json();
        assert_eq!(page["total"], 7, "{page}");
        found.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/products/category/{category}?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    let mut expected = ids.clone();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let many = api.get(&format!("/api/v1/products?ids={},{}", ids[3], ids[0])).await.json();
    assert_eq!(many["items"].as_array().unwrap().len(), 2, "{many}");
    let bad = api.get("/api/v1/products?limit=0").await;
    assert_eq!((bad.status, bad.fields()), (400, vec!["limit".to_owned()]));
}

async fn every_entity(api: &Api) {
    let user = api
        .post(
            "/api/v1/users",
            &json!({ "email": format!("e{}@example.com", rand::random::<u32>()), "name": "E" }),
        )
        .await;
    let user_id = user.json()["id"].as_str().unwrap().to_owned();
    let product = api.post("/api/v1/products", &json!({ "name": "Pen", "price": "1.25", "stock": 10 })).await;
    let product_id = product.json()["id"].as_str().unwrap().to_owned();
    for (path, body) in [
        ("/api/v1/payments", json!({ "user_id": user_id, "amount": "12.34", "currency": "EUR" })),
        (
            "/api/v1/notifications/templates",
            json!({ "template": "welcome", "subject": "Hi", "body": "Hello {{ name }}" }),
        ),
        (
            "/api/v1/configurations",
            json!({ "id": format!("k{}", rand::random::<u32>()), "value": { "on": true } }),
        ),
    ] {
        let created = api.post(path, &body).await;
        assert_eq!(created.status, 201, "{path}: {}", created.text);
        let read = api.get(created.header("location")).await;
        assert_eq!((read.status, sorted(&read.json())), (200, sorted(&created.json())), "{path}");
    }
    let payments = api.get(&format!("/api/v1/users/{user_id}/payments")).await.json();
    assert_eq!(payments["total"], 1, "{payments}");
    // last: the pipeline goes on with the order, and makes a payment of its own, while it is looked at
    let order = json!({ "user_id": user_id, "items": [{ "product_id": product_id, "quantity": 2 }] });
    let created = api.post("/api/v1/orders", &order).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let read = api.get(created.header("location")).await;
    for field in ["id", "user_id", "items", "total", "created_at"] {
        assert_eq!(read.json()[field], created.json()[field], "{field}: {}", read.text);
    }
    let orders = api.get(&format!("/api/v1/orders/user/{user_id}")).await.json();
    assert_eq!(orders["total"], 1, "{orders}");
}

async fn declared_table(api: &Api) {
    let key = format!("s{}", rand::random::<u32>());
    let path = format!("/api/v1/pools/stores/{key}");
    let body = json!({ "city": "Berlin", "opening_hours": { "mon": "9-17" }, "phone": "+49 30 1234" });
    let created = api.send(Method::PUT, &path, &[], &body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let read = api.get(&path).await;
    assert_eq!(read.status, 200, "{}", read.text);
    assert_eq!((&read.json()["code"], &read.json()["phone"]), (&json!(key), &json!("+49 30 1234")));
    assert_eq!(api.send(Method::DELETE, &path, &[], &Value::Null).await.status, 204);
    assert_eq!(api.get(&path).await.status, 404);
}

async fn problems(api: &Api) {
    for (path, status) in
        [("/api/v1/nothing", 404), ("/api/v1/products/no-such-id", 404), ("/api/v1/pools/none/1", 404)]
    {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{path}"
        );
        assert_eq!(answer.json()["status"], status);
    }
    let refused = api.send(Method::DELETE, "/api/v1/pools", &[], &Value::Null).await;
    assert_eq!(refused.status, 405);
    assert!(refused.header("allow").contains("GET"), "{:?}", refused.headers);
}

async fn health(api: &Api, stage: &Stage) {
    let health = feed::healthy(api).await;
    assert_eq!(health["checks"]["mysql"]["status"], "healthy", "{health}");
    let admin = Api::at(&stage.data_plane.admin);
    let metrics = admin.get("/metrics").await.text;
    for name in ["flyweight_http_requests_total", "flyweight_tier_hits_total", "flyweight_outbox_backlog"] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
}

/// An object with its keys in order: JSON objects have none, and tiers may part fields differently.
fn sorted(value: &Value) -> String {
    value.to_string()
}
