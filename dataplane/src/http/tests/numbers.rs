//! Numbers on the wire: exact for readers whose numbers are doubles, whichever way a record is read.

use super::*;

const ROW: &str = r#""amount":"12345678901234567.89","rate":"0.1","count":7,"serial":"9007199254740993""#;

#[tokio::test]
async fn declared_numbers_go_out_as_they_are_declared_on_every_way() {
    let server = Server::start().await;
    let both = [
        // as numbers, where the text of a number is read exactly, and as text
        r#"{"amount":12345678901234567.89,"rate":0.10,"count":7,"serial":9007199254740993}"#,
        r#"{"amount":"12345678901234567.890","rate":"1e-1","count":"7","serial":"9007199254740993"}"#,
    ];
    for (index, body) in both.iter().enumerate() {
        let key = format!("n{index}");
        let created = server.put(&format!("/pools/stores/{key}"), body).await.expect(201);
        assert!(created.text.contains(ROW), "{}", created.text);
        for _from_store_then_memory in 0..2 {
            let read = server.get(&format!("/pools/stores/{key}")).await.expect(200);
            assert!(read.text.contains(ROW) || in_any_order(&read), "{}", read.text);
        }
        let many = server.get(&format!("/pools/stores?ids={key}")).await.expect(200).json();
        assert_eq!(many["items"][0], server.get(&format!("/pools/stores/{key}")).await.json());
        // what was read is what may be sent back
        let version = created.header("etag").to_owned();
        let read = server.get(&format!("/pools/stores/{key}")).await.text;
        let again = server
            .send(Method::PUT, &format!("/pools/stores/{key}"), &[("if-match", &version)], read)
            .await
            .expect(200);
        assert!(again.text.contains(ROW), "{}", again.text);
        let patched = server.patch(&format!("/pools/stores/{key}"), r#"{"amount":1.50}"#).await.expect(200);
        assert_eq!(patched.json()["amount"], "1.5");
    }
    let nothing = server.put("/pools/stores/none", "{}").await.expect(201).json();
    assert_eq!(
        (&nothing["amount"], &nothing["serial"], &nothing["count"]),
        (&Json::Null, &Json::Null, &Json::Null)
    );
    assert_eq!(server.get("/pools/stores/none").await.json()["serial"], Json::Null);
    let list = server.get("/pools/stores?limit=1").await.expect(200);
    assert!(
        list.text.contains(r#""amount":"1.5","rate":"0.1","count":7,"serial":"9007199254740993""#),
        "{}",
        list.text
    );
}

/// Shared fields stand behind the others.
fn in_any_order(answer: &Answer) -> bool {
    let (read, wanted): (Json, Json) = (answer.json(), serde_json::from_str(&format!("{{{ROW}}}")).unwrap());
    wanted.as_object().unwrap().iter().all(|(name, value)| read[name] == *value)
}

#[tokio::test]
async fn searches_take_both_forms() {
    let server = Server::start().await;
    for (key, serial) in [("a", "9007199254740992"), ("b", "9007199254740993")] {
        let body = format!(r#"{{"amount":"12345678901234567.89","serial":"{serial}"}}"#);
        server.put(&format!("/pools/stores/{key}"), &body).await.expect(201);
    }
    for filter in [
        r#"{"field":"serial","op":"eq","value":9007199254740993}"#,
        r#"{"field":"serial","op":"eq","value":"9007199254740993"}"#,
        r#"{"field":"serial","op":"in","value":["9007199254740993"]}"#,
        r#"{"and":[{"field":"amount","op":"eq","value":"12345678901234567.89"},{"field":"serial","op":"gt","value":"9007199254740992"}]}"#,
    ] {
        let body = format!(r#"{{"repository":"stores","where":{filter},"order_by":["serial"]}}"#);
        let found = server.post("/repositories/query", &body).await.expect(200).json();
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{filter}: {found}");
        assert_eq!(found["items"][0]["serial"], "9007199254740993");
    }
}

#[tokio::test]
async fn a_number_that_readers_round_is_refused_where_it_is_no_text() {
    let server = Server::start().await;
    for count in ["9007199254740993", "\"9007199254740993\"", "-9007199254740992"] {
        let answer = server.put("/pools/stores/a", &format!(r#"{{"count":{count}}}"#)).await;
        assert_eq!(answer.problem(400), ["count"], "{count}");
        assert!(answer.text.contains("json: String"), "{}", answer.text);
    }
    server.get("/pools/stores/a").await.problem(404);
    server.put("/pools/stores/a", r#"{"count":9007199254740991}"#).await.expect(201);
    assert_eq!(
        server.patch("/pools/stores/a", r#"{"count":"-9007199254740993"}"#).await.problem(400),
        ["count"]
    );
    for bad in ["\"\"", "\"1.5\"", "\"x\"", "\" 1\"", "\"+1\"", "1.5", "\"9223372036854775808\""] {
        let answer = server.put("/pools/stores/a", &format!(r#"{{"serial":{bad}}}"#)).await;
        assert_eq!(answer.problem(400), ["serial"], "{bad}");
    }
}

#[tokio::test]
async fn a_stored_number_that_readers_round_is_served_and_named() {
    let server = Server::start().await;
    server.put("/pools/stores/a", r#"{"count":1}"#).await.expect(201);
    let records = &server.resource("stores").records;
    assert_eq!(records.inexact_columns(), Vec::<&str>::new());
    server.sql("UPDATE stores SET count = 9007199254740993").await;
    let list = server.get("/pools/stores?limit=7").await.expect(200);
    assert!(list.text.contains(r#""count":9007199254740993"#), "{}", list.text);
    assert_eq!(records.inexact_columns(), ["count"]);
    // what is not touched may stay
    server.patch("/pools/stores/a", r#"{"phone":"1"}"#).await.expect(200);
}

#[tokio::test]
async fn money_stays_a_number_of_at_most_15_digits() {
    let server = Server::start().await;
    for (sent, kept) in
        [("49.99", "49.99"), ("\"49.990\"", "49.99"), ("99999999999.9999", "99999999999.9999")]
    {
        // the currency with the most digits
        let body = format!(r#"{{"name":"Lamp","currency":"CLF","price":{sent}}}"#);
        let created = server.post("/products", &body).await.expect(201);
        assert!(created.text.contains(&format!("\"price\":{kept},")), "{}", created.text);
    }
    for bad in ["1000000000000", "0.00001", "12345678901234567.89", "\"12345678901234567.89\""] {
        let body = format!(r#"{{"name":"Lamp","currency":"CLF","price":{bad}}}"#);
        assert_eq!(server.post("/products", &body).await.problem(400), ["price"], "{bad}");
    }
}

#[tokio::test]
async fn numbers_within_documents_stay_or_are_refused() {
    let server = Server::start().await;
    let kept = [
        ("1e20", "1e+20"),
        ("-0", "-0.0"),
        ("1.0", "1.0"),
        ("9007199254740993", "9007199254740993"),
        ("5e-324", "5e-324"),
    ];
    for (sent, shown) in kept {
        let made = server.put("/configurations/n", &format!(r#"{{"value":{{"n":{sent}}}}}"#)).await;
        assert!(made.text.contains(&format!(r#""value":{{"n":{shown}}}"#)), "{sent}: {}", made.text);
    }
    for bad in ["1e400", "12345678901234567890", "0.10000000000000000001", "12345678901234567.89", "1e-400"] {
        let answer = server.put("/configurations/n", &format!(r#"{{"value":{{"n":{bad}}}}}"#)).await;
        assert!(answer.problem(400)[0].starts_with("value"), "{bad}");
    }
}
