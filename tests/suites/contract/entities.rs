//! Every entity from its creation to its end, in each of the ways that the contract has.

use std::time::Duration;

use harness::{client::Api, wait};
use reqwest::Method;
use serde_json::{Value, json};

use super::{listed, rows::word};

/// A collection, with what its records may be.
struct Life {
    path: &'static str,
    create: Value,
    replace: Value,
    patch: Value,
    /// Whether PUT creates what is not there.
    upserts: bool,
}

/// All of them.
pub async fn all(api: &Api) {
    let (user, product) = (word(), word());
    let ann = json!({ "id": user, "email": format!("{user}@example.com"), "name": "Ann" });
    assert_eq!(api.post("/api/v1/users", &ann).await.status, 201);
    let lamp = json!({ "id": product, "name": "Lamp", "price": "19.90", "stock": 1_000_000 });
    assert_eq!(api.post("/api/v1/products", &lamp).await.status, 201);
    for one in lives() {
        life(api, &one).await;
    }
    payments(api, &user).await;
    orders(api, &user, &product).await;
    searches(api).await;
}

fn lives() -> Vec<Life> {
    let email = format!("{}@example.com", word());
    vec![
        Life {
            path: "/api/v1/users",
            create: json!({ "email": email, "name": "Ann", "username": word(), "profile": { "a": 1 } }),
            replace: json!({ "email": email, "name": "Bea", "preferences": { "b": [2] } }),
            patch: json!({ "name": "Cleo" }),
            upserts: false,
        },
        Life {
            path: "/api/v1/payments",
            create: json!({ "user_id": "u", "amount": "0.1", "currency": "EUR", "gateway": "g", "method": "card" }),
            replace: json!({ "user_id": "u", "amount": "12345678.25", "currency": "EUR" }),
            patch: json!({ "metadata": { "a": 1 } }),
            upserts: false,
        },
        Life {
            path: "/api/v1/products",
            create: json!({ "name": "Tea", "price": 1.5, "description": "d", "brand": "b", "currency": "EUR" }),
            replace: json!({ "name": "Green tea", "price": 2 }),
            patch: json!({ "stock": 7, "attributes": { "leaf": true } }),
            upserts: false,
        },
        Life {
            path: "/api/v1/notifications/templates",
            create: json!({ "template": "t", "subject": "s", "body": "b", "channels": ["mail"], "metadata": { "a": 1 } }),
            replace: json!({ "template": "t", "body": "c" }),
            patch: json!({ "subject": "Hi" }),
            upserts: false,
        },
        Life {
            path: "/api/v1/configurations",
            create: json!({ "value": [1, { "a": null }], "description": "d", "category": "c", "metadata": {} }),
            replace: json!({ "value": "text" }),
            patch: json!({ "value": 7 }),
            upserts: true,
        },
        Life {
            path: "/api/v1/pools/stores",
            create: json!({ "code": word(), "city": "Berlin", "opening_hours": { "mon": "9-17" }, "phone": "1" }),
            replace: json!({ "city": "Bonn", "phone": "2" }),
            patch: json!({ "phone": null }),
            upserts: true,
        },
    ]
}

async fn life(api: &Api, Life { path, create, replace, patch, upserts }: &Life) {
    let created = api.post(path, create).await;
    assert_eq!((created.status, created.header("etag")), (201, "\"1\""), "{path}: {}", created.text);
    let one = created.header("location").to_owned();
    let key = one.strip_prefix(&format!("{path}/")).unwrap().to_owned();
    let record = created.json();
    assert!(record["created_at"].is_string() && record["created_at"] == record["updated_at"], "{record}");
    holds(&record, create, path);
    assert_eq!(api.get(&one).await.json(), record, "{path}");
    let found = listed(api, &format!("{path}?ids={key},{}", word()), |page| page["items"][0] == record).await;
    assert_eq!(found.json()["total"], 1, "{}", found.text);

    let replaced = api.send(Method::PUT, &one, &[("if-match", "\"1\"")], replace).await;
    assert_eq!((replaced.status, replaced.header("etag")), (200, "\"2\""), "{path}: {}", replaced.text);
    holds(&replaced.json(), replace, path);
    assert_eq!(replaced.json()["created_at"], record["created_at"], "{path}");
    let patched = api.send(Method::PATCH, &one, &[], patch).await;
    assert_eq!((patched.status, patched.header("etag")), (200, "\"3\""), "{path}: {}", patched.text);
    holds(&patched.json(), patch, path);
    let read = api.get(&one).await;
    assert_eq!((read.json(), read.header("etag")), (patched.json(), "\"3\""), "{path}");
    assert_eq!(api.get_with(&one, &[("if-none-match", "\"3\"")]).await.status, 304, "{path}");
    for (method, body) in [(Method::PUT, replace), (Method::PATCH, patch), (Method::DELETE, &Value::Null)] {
        let stale = api.send(method.clone(), &one, &[("if-match", "\"2\"")], body).await;
        assert_eq!(stale.status, 412, "{method} {path}: {}", stale.text);
    }
    let page = api.get(&format!("{path}?limit=1&offset=0")).await;
    assert_eq!(
        (page.status, &page.json()["limit"], &page.json()["offset"]),
        (200, &json!(1), &json!(0)),
        "{path}"
    );

    let deleted = api.send(Method::DELETE, &one, &[], &Value::Null).await;
    assert_eq!((deleted.status, deleted.header("etag")), (204, "\"4\""), "{path}: {}", deleted.text);
    for _ in 0..api.replicas() {
        assert_eq!(api.get(&one).await.status, 404, "{path}: what is gone is gone at every replica");
    }
    assert_eq!(api.send(Method::DELETE, &one, &[], &Value::Null).await.status, 404, "{path}");
    assert_eq!(api.send(Method::PATCH, &one, &[], patch).await.status, 404, "{path}");
    let again = api.send(Method::PUT, &one, &[], replace).await;
    assert_eq!(again.status, if *upserts { 201 } else { 404 }, "{path}: {}", again.text);

    let id = word();
    let mut data = replace.clone();
    if let Some(email) = data.get_mut("email") {
        *email = format!("{id}@example.com").into();
    }
    let operations =
        json!([{ "op": "create", "id": id, "data": data }, { "op": "delete", "id": id, "version": 1 }]);
    let batch = api.post(&format!("{path}/batch"), &json!({ "operations": operations })).await;
    let results = batch.json()["results"].clone();
    let statuses = [&results[0]["status"], &results[1]["status"]];
    assert_eq!((batch.status, statuses), (207, [&json!(201), &json!(204)]), "{path}: {}", batch.text);
}

/// Checks that a record has what was sent. Amounts may be sent as text, and come as numbers.
fn holds(record: &Value, sent: &Value, path: &str) {
    for (name, value) in sent.as_object().unwrap() {
        match (record[name].as_f64(), value.as_str().and_then(|text| text.parse::<f64>().ok())) {
            (Some(number), Some(text)) => assert!((number - text).abs() < 1e-9, "{path}: {name} of {record}"),
            _ => assert_eq!(record[name], *value, "{path}: {name} of {record}"),
        }
    }
}

/// The states of a payment, and the payments of a user.
async fn payments(api: &Api, user: &str) {
    let mut made = Vec::new();
    for _ in 0..3 {
        let body = json!({ "user_id": user, "amount": "43.00", "currency": "EUR" });
        made.push(api.post("/api/v1/payments", &body).await.header("location").to_owned());
    }
    let set = async |one: &str, status: &str| {
        api.send(Method::PUT, &format!("{one}/status"), &[], &json!({ "status": status })).await
    };
    for (one, ways) in made.iter().zip([
        vec![("completed", 200), ("cancelled", 409), ("refunded", 200), ("completed", 409)],
        vec![("refunded", 409), ("failed", 200), ("completed", 409)],
        vec![("cancelled", 200), ("pending", 409), ("lost", 400)],
    ]) {
        for (status, wanted) in ways {
            let answer = set(one, status).await;
            assert_eq!(answer.status, wanted, "{status}: {}", answer.text);
            if wanted == 200 {
                assert_eq!(api.get(one).await.json()["status"], status);
            }
        }
    }
    assert_eq!(set("/api/v1/payments/none", "completed").await.status, 404);
    for path in [format!("/api/v1/payments/user/{user}"), format!("/api/v1/users/{user}/payments")] {
        let page = listed(api, &path, |page| page["total"] == 3).await;
        assert_eq!(page.json()["items"].as_array().unwrap().len(), 3, "{}", page.text);
    }
}

/// An order is priced by the catalogue, goes its way, can be called off, and can be deleted when it has
/// ended.
async fn orders(api: &Api, user: &str, product: &str) {
    let items = json!([{ "product_id": product, "quantity": 2 }]);
    let body = json!({ "user_id": user, "items": items, "currency": "USD" });
    let created = api.post("/api/v1/orders", &body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert!(created.text.contains("\"total\":39.8"), "{}", created.text);
    let one = created.header("location").to_owned();
    let ended = wait::until("the end of an order", Duration::from_secs(30), async || {
        let order = api.get(&one).await.json();
        ["completed", "failed"].contains(&order["status"].as_str()?).then_some(order)
    })
    .await;
    let timeline = api.get(&format!("{one}/timeline")).await;
    assert_eq!((timeline.status, &timeline.json()["status"]), (200, &ended["status"]), "{}", timeline.text);
    let late = api.send(Method::POST, &format!("{one}/cancel"), &[], &Value::Null).await;
    assert_eq!(late.status, 409, "{}", late.text);
    let patched = api.send(Method::PATCH, &one, &[], &json!({ "metadata": { "gift": true } })).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    let mut same = json!({ "user_id": user, "items": patched.json()["items"], "currency": "USD" });
    same["shipping_address"] = json!({ "city": "Bonn" });
    let replaced = api.send(Method::PUT, &one, &[], &same).await;
    assert_eq!((replaced.status, &replaced.json()["metadata"]), (200, &Value::Null), "{}", replaced.text);
    let page = listed(api, &format!("/api/v1/orders/user/{user}"), |page| page["total"] == 1).await;
    assert_eq!(page.json()["items"][0]["user_id"], user);
    assert_eq!(api.get("/api/v1/orders?limit=1").await.status, 200);
    assert_eq!(api.send(Method::DELETE, &one, &[], &Value::Null).await.status, 204);
    assert_eq!(api.get(&one).await.status, 404);

    cancelled(api, &body).await;
    let data = json!({ "user_id": user, "items": items });
    let batch =
        api.post("/api/v1/orders/batch", &json!({ "operations": [{ "op": "create", "data": data }] })).await;
    assert_eq!((batch.status, &batch.json()["results"][0]["status"]), (207, &json!(201)), "{}", batch.text);
    let negative = json!({ "user_id": user, "items": [{ "product_id": product, "quantity": 0 }] });
    let refused = api.post("/api/v1/orders", &negative).await;
    assert_eq!(
        (refused.status, refused.fields()),
        (400, vec!["items[0].quantity".to_owned()]),
        "{}",
        refused.text
    );
}

/// An order that is called off before it is fulfilled ends so; one that is faster cannot be called off.
async fn cancelled(api: &Api, body: &Value) {
    for _ in 0..200 {
        let one = api.post("/api/v1/orders", body).await.header("location").to_owned();
        let answer = api.send(Method::POST, &format!("{one}/cancel"), &[], &Value::Null).await;
        if answer.status == 202 {
            wait::until("the order to be called off", Duration::from_secs(30), async || {
                (api.get(&one).await.json()["status"] == "cancelled").then_some(())
            })
            .await;
            return;
        }
        assert_eq!(answer.status, 409, "{}", answer.text);
    }
    panic!("no order could be called off");
}

/// Searches by text and by whole fields.
async fn searches(api: &Api) {
    let own = word();
    let email = format!("{own}@example.com");
    assert_eq!(
        api.post("/api/v1/users", &json!({ "email": email, "name": format!("N {own}") })).await.status,
        201
    );
    let tea =
        json!({ "name": format!("Green {own}"), "price": 1, "category": own, "brand": format!("b-{own}") });
    assert_eq!(api.post("/api/v1/products", &tea).await.status, 201);
    for search in [
        format!("users/search?q={own}"),
        format!("users/search?email={email}&limit=5"),
        format!("users/search?name={own}"),
        format!("products/search?q={}%20gREEN", own.to_uppercase()),
        format!("products/search?category={own}"),
        format!("products/search?brand=b-{own}"),
        format!("products/category/{own}"),
    ] {
        let page = api.get(&format!("/api/v1/{search}")).await;
        assert_eq!((page.status, &page.json()["total"]), (200, &json!(1)), "{search}: {}", page.text);
    }
}

/// Every record answers by the parameter `id` of its collection as it does by its path.
pub async fn named_in_the_query(api: &Api) {
    let (product, user) = (word(), word());
    let lamp = json!({ "id": product, "name": "Lamp", "price": 1 });
    assert_eq!(api.post("/api/v1/products", &lamp).await.status, 201);
    let items = json!([{ "product_id": product, "quantity": 1 }]);
    for (collection, body, patch) in [
        ("products", json!({ "name": "Cup", "price": 2 }), json!({ "price": 3 })),
        ("users", json!({ "email": format!("{user}@example.test"), "name": "U" }), json!({ "name": "V" })),
        ("payments", json!({ "user_id": user, "amount": 1, "currency": "EUR" }), json!({ "amount": 2 })),
        ("orders", json!({ "user_id": user, "items": items }), json!({ "metadata": { "gift": true } })),
        ("notifications/templates", json!({ "template": word(), "body": "b" }), json!({ "body": "c" })),
        ("configurations", json!({ "value": 1 }), json!({ "value": 2 })),
        ("pools/stores", json!({ "city": "Bonn" }), json!({ "city": "Cologne" })),
    ] {
        let path = format!("/api/v1/{collection}");
        let id = word();
        let named = format!("{path}?id={id}");
        let upserts = ["configurations", "pools/stores"].contains(&collection);
        let made = if upserts {
            api.send(Method::PUT, &named, &[], &body).await
        } else {
            let mut with_id = body.clone();
            with_id["id"] = id.clone().into();
            api.post(&path, &with_id).await
        };
        assert_eq!(made.status, 201, "{named}: {}", made.text);
        // an order of what is not there comes to its end by itself
        let read = wait::until("the record at rest", Duration::from_secs(30), async || {
            let read = api.get(&named).await;
            assert_eq!(read.status, 200, "{named}: {}", read.text);
            (collection != "orders" || read.json()["status"] == "failed").then_some(read)
        })
        .await;
        assert!(read.header("etag").starts_with('"'), "{named}");
        let mut whole = body.clone();
        if collection == "orders" {
            whole["items"] = read.json()["items"].clone();
        }
        for (method, body, status) in
            [(Method::PATCH, &patch, 200), (Method::PUT, &whole, 200), (Method::DELETE, &Value::Null, 204)]
        {
            let answer = api.send(method.clone(), &named, &[], body).await;
            assert_eq!(answer.status, status, "{method} {named}: {}", answer.text);
        }
        assert_eq!(api.get(&named).await.status, 404);
    }
}
