//! Money: currencies, amounts, prices of the catalogue, and payments that are closed.

use super::*;
use model::value::Value;

async fn shop() -> Server {
    let server = Server::start().await;
    for (id, price, currency) in [
        ("yen", "10000", "JPY"),
        ("euro", "19.90", "EUR"),
        ("dollar", "1000", "USD"),
        ("dinar", "1.234", "KWD"),
    ] {
        let body =
            format!(r#"{{"id":"{id}","name":"{id}","price":"{price}","currency":"{currency}","stock":9}}"#);
        server.post("/products", &body).await.expect(201);
    }
    server
}

fn order(items: &str, more: &str) -> String {
    format!(r#"{{"user_id":"u","items":[{items}]{more}}}"#)
}

#[tokio::test]
async fn an_orders_currency_is_that_of_its_products() {
    let server = shop().await;
    let yen =
        server.post("/orders", &order(r#"{"product_id":"yen","quantity":2}"#, "")).await.expect(201).json();
    assert_eq!((&yen["currency"], &yen["total"]), (&"JPY".into(), &20_000.into()));
    for (items, more, field) in [
        (r#"{"product_id":"dollar","quantity":1}"#, r#","currency":"IDR""#, "currency"),
        (r#"{"product_id":"dollar","quantity":1}"#, r#","currency":"ZZZ""#, "currency"),
        (
            r#"{"product_id":"dollar","quantity":1},{"product_id":"dollar","quantity":1},{"product_id":"euro","quantity":1}"#,
            "",
            "items[2].product_id",
        ),
        (r#"{"product_id":"gone","quantity":1}"#, "", "items[0].product_id"),
        (r#"{"product_id":"gone","quantity":1,"price":1}"#, "", "items[0].product_id"),
        (r#"{"product_id":"yen","quantity":1,"price":-1}"#, "", "items[0].price"),
    ] {
        let fields = server.post("/orders", &order(items, more)).await.problem(400);
        assert!(fields.contains(&field.to_owned()), "{items}{more}: {fields:?}");
    }
    let named = order(r#"{"product_id":"dinar","quantity":1}"#, r#","currency":"KWD""#);
    assert_eq!(server.post("/orders", &named).await.expect(201).json()["total"], 1.234);
}

#[tokio::test]
async fn prices_are_those_of_the_catalogue() {
    let server = shop().await;
    for price in ["0", "19.89", "20"] {
        let items = format!(r#"{{"product_id":"euro","quantity":1,"price":{price}}}"#);
        let refused = server.post("/orders", &order(&items, "")).await;
        assert_eq!(refused.problem(409), ["items[0].price"]);
        assert!(
            refused.text.contains("19.9") && refused.text.contains(&format!("is {price},")),
            "{}",
            refused.text
        );
        let batch = format!(r#"{{"operations":[{{"op":"create","data":{}}}]}}"#, order(&items, ""));
        assert_eq!(
            server.post("/orders/batch", &batch).await.expect(207).json()["results"][0]["status"],
            409
        );
    }
    for same in [r#""19.9""#, "19.90", r#""19.900""#] {
        let items = format!(r#"{{"product_id":"euro","quantity":1,"price":{same}}}"#);
        server.post("/orders", &order(&items, "")).await.expect(201);
    }
    let cheap = order(r#"{"product_id":"euro","quantity":1,"price":5}"#, "");
    let by = |roles: &'static str| [("test-roles", roles), ("content-type", "application/json")];
    server.send(Method::POST, "/orders", &by("buyer"), cheap.clone()).await.expect(409);
    let sold = server.send(Method::POST, "/orders", &by("sales"), cheap).await.expect(201).json();
    assert_eq!((&sold["total"], &sold["currency"]), (&5.into(), &"EUR".into()));
    let odd = order(r#"{"product_id":"yen","quantity":1,"price":10.5}"#, "");
    assert_eq!(
        server.send(Method::POST, "/orders", &by("sales"), odd).await.problem(400),
        ["items[0].price"]
    );
}

#[tokio::test]
async fn a_pending_order_keeps_the_prices_of_its_lines_and_gets_todays_for_others() {
    let server = shop().await;
    let lines = r#"{"product_id":"euro","quantity":2}"#;
    let id =
        server.post("/orders", &order(lines, "")).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    let path = format!("/orders/{id}");
    server.patch("/products/euro", r#"{"price":30}"#).await.expect(200);
    let same =
        order(r#"{"product_id":"euro","quantity":2,"price":19.9}"#, r#","shipping_address":{"city":"Bonn"}"#);
    assert_eq!(server.put(&path, &same).await.expect(200).json()["total"], 39.8);
    server.patch(&path, r#"{"metadata":{"gift":true}}"#).await.expect(200);
    let more = r#"{"items":[{"product_id":"euro","quantity":3,"price":19.9}]}"#;
    assert_eq!(server.patch(&path, more).await.problem(409), ["items[0].price"]);
    let today =
        server.patch(&path, r#"{"items":[{"product_id":"euro","quantity":3}]}"#).await.expect(200).json();
    assert_eq!(today["total"], 90);
    assert_eq!(server.patch(&path, r#"{"currency":"USD"}"#).await.problem(400), ["currency"]);
    let other =
        server.patch(&path, r#"{"items":[{"product_id":"yen","quantity":1}]}"#).await.expect(200).json();
    assert_eq!((&other["currency"], &other["total"]), (&"JPY".into(), &10_000.into()));
    let named = r#"{"items":[{"product_id":"euro","quantity":1}],"currency":"JPY"}"#;
    assert_eq!(server.patch(&path, named).await.problem(400), ["currency"]);
}

#[tokio::test]
async fn amounts_fit_their_currency_in_every_way_in() {
    let server = shop().await;
    for (body, field) in [
        (r#"{"name":"a","price":10.5,"currency":"JPY"}"#, "price"),
        (r#"{"name":"a","price":0.001}"#, "price"),
        (r#"{"name":"a","price":1,"currency":"ZZZ"}"#, "currency"),
        (r#"{"name":"a","price":1,"currency":"XAU"}"#, "currency"),
    ] {
        assert_eq!(server.post("/products", body).await.problem(400), [field]);
        assert_eq!(server.put("/products/yen", body).await.problem(400), [field]);
        let batch = format!(r#"{{"atomic":true,"operations":[{{"op":"create","data":{body}}}]}}"#);
        assert_eq!(
            server.post("/products/batch", &batch).await.expect(207).json()["results"][0]["status"],
            400
        );
    }
    assert_eq!(server.patch("/products/yen", r#"{"price":10.5}"#).await.problem(400), ["price"]);
    assert_eq!(server.patch("/products/euro", r#"{"currency":"JPY"}"#).await.problem(400), ["price"]);
    let payment = |amount: &str, currency: &str| {
        format!(r#"{{"user_id":"u","amount":{amount},"currency":"{currency}"}}"#)
    };
    assert_eq!(server.post("/payments", &payment("10.5", "JPY")).await.problem(400), ["amount"]);
    assert_eq!(server.post("/payments", &payment("1", "ZZZ")).await.problem(400), ["currency"]);
    let id = server.post("/payments", &payment("10.5", "EUR")).await.expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        server.patch(&format!("/payments/{id}"), r#"{"currency":"JPY"}"#).await.problem(400),
        ["amount"]
    );
}

#[tokio::test]
async fn prices_of_events_fit_the_currency_of_their_product() {
    let server = shop().await;
    let event =
        |product: &str, price: &str| format!(r#"{{"product_id":"{product}","price":{price},"stock":1}}"#);
    assert_eq!(server.post("/events", &event("yen", "10.5")).await.problem(400), ["price"]);
    server.post("/events", &event("yen", "10")).await.expect(202);
    server.post("/events", &event("dinar", "1.234")).await.expect(202);
    let lines = format!("{}\n\n{}\n", event("euro", "19.99"), event("euro", "19.999"));
    let headers = [("content-type", "application/x-ndjson")];
    assert_eq!(server.send(Method::POST, "/events", &headers, lines).await.problem(400), ["line 3: price"]);
}

/// Rows of before, and of other programs, stay as they are and can be changed where they are sound.
#[tokio::test]
async fn odd_amounts_that_are_there_stay_readable_and_are_not_charged() {
    let server = shop().await;
    let products = server.resource("products").records.clone();
    for (key, price, currency) in [("half", "10.5", "JPY"), ("unknown", "1", "ZZZ")] {
        let values = products.schema().row_of([
            ("name", Value::Text("Odd".to_owned())),
            ("price", Value::Decimal(price.parse().unwrap())),
            ("currency", Value::Text(currency.to_owned())),
        ]);
        products.insert(&key.parse().unwrap(), values, "test").await.unwrap();
        let path = format!("/products/{key}");
        assert_eq!(server.get(&path).await.expect(200).json()["currency"], currency);
        server.patch(&path, r#"{"name":"Still odd"}"#).await.expect(200);
        let fields = server
            .post("/orders", &order(&format!(r#"{{"product_id":"{key}","quantity":1}}"#), ""))
            .await
            .problem(400);
        assert_eq!(fields, [if key == "half" { "items[0].price" } else { "currency" }]);
    }
    assert_eq!(server.patch("/products/half", r#"{"price":11.5}"#).await.problem(400), ["price"]);
    server.patch("/products/half", r#"{"price":11}"#).await.expect(200);
    server.patch("/products/unknown", r#"{"currency":"EUR"}"#).await.expect(200);
}

#[tokio::test]
async fn a_payment_that_is_not_pending_is_fixed() {
    let server = shop().await;
    let body = r#"{"id":"p","user_id":"u","amount":10,"currency":"EUR","gateway":"g"}"#;
    server.post("/payments", body).await.expect(201);
    server.patch("/payments/p", r#"{"amount":11}"#).await.expect(200);
    server.put("/payments/p/status", r#"{"status":"completed"}"#).await.expect(200);
    let before = server.get("/payments/p").await.text;

    let repeat = server.put("/payments/p/status", r#"{"status":"completed"}"#).await.expect(200);
    let known: Json = serde_json::from_str(&before).unwrap();
    assert_eq!((repeat.header("etag"), repeat.json()), ("\"3\"", known), "a repeat changes nothing");
    let stale = [("if-match", "\"2\""), ("content-type", "application/json")];
    server.send(Method::PUT, "/payments/p/status", &stale, r#"{"status":"completed"}"#).await.expect(412);
    server.put("/payments/p/status", r#"{"status":"failed"}"#).await.problem(409);

    for (field, value) in
        [("amount", "1"), ("currency", r#""USD""#), ("user_id", r#""v""#), ("gateway", r#""h""#)]
    {
        let patch = format!(r#"{{"{field}":{value}}}"#);
        assert_eq!(server.patch("/payments/p", &patch).await.problem(409), [field]);
        for atomic in [true, false] {
            let operation = format!(r#"{{"op":"patch","id":"p","data":{patch}}}"#);
            let batch = format!(r#"{{"atomic":{atomic},"operations":[{operation}]}}"#);
            assert_eq!(
                server.post("/payments/batch", &batch).await.expect(207).json()["results"][0]["status"],
                409
            );
        }
    }
    let put = r#"{"user_id":"u","amount":1,"currency":"EUR","gateway":"g"}"#;
    assert_eq!(server.put("/payments/p", put).await.problem(409), ["amount"]);
    server.delete("/payments/p").await.problem(409);
    for atomic in [true, false] {
        let batch = format!(r#"{{"atomic":{atomic},"operations":[{{"op":"delete","id":"p"}}]}}"#);
        assert_eq!(
            server.post("/payments/batch", &batch).await.expect(207).json()["results"][0]["status"],
            409
        );
    }
    assert_eq!(server.get("/payments/p").await.text, before);
    server.patch("/payments/p", r#"{"metadata":{"note":"paid"}}"#).await.expect(200);
    server.post("/payments", &body.replace("\"p\"", "\"open\"")).await.expect(201);
    server.delete("/payments/open").await.expect(204);
}

/// Nobody outside can write the field that tells the pipeline's own payments, nor see it.
#[tokio::test]
async fn the_mark_of_a_charge_is_nobodys_to_set() {
    let server = shop().await;
    let body = r#"{"user_id":"u","amount":1,"currency":"EUR","charge_of":"o placed 1"}"#;
    assert_eq!(server.post("/payments", body).await.problem(400), ["charge_of"]);
    let id = server
        .post("/payments", r#"{"user_id":"u","amount":1,"currency":"EUR"}"#)
        .await
        .expect(201)
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/payments/{id}");
    assert_eq!(server.patch(&path, r#"{"charge_of":"o placed 1"}"#).await.problem(400), ["charge_of"]);
    assert!(!server.get(&path).await.text.contains("charge_of"));
}
