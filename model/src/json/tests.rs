//! Bodies, good and bad.

use super::*;
use crate::{
    entities::{configuration, order, payment, product, user},
    value::{Json, Timestamp},
};

fn faults(result: Result<impl fmt::Debug, BodyError>) -> Vec<String> {
    match result.unwrap_err() {
        BodyError::Invalid(faults) => {
            faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
        }
        BodyError::Malformed(message) => panic!("{message}"),
    }
}

fn malformed(body: &[u8]) -> String {
    match parse_create(&user::schema(), body).unwrap_err() {
        BodyError::Malformed(message) => message,
        BodyError::Invalid(faults) => panic!("{faults:?}"),
    }
}

fn record(schema: &Schema, body: &str) -> Record {
    let draft = parse_create(schema, body.as_bytes()).unwrap();
    Record {
        key: draft.key.unwrap_or_else(Key::generate),
        version: Version(3),
        created_at: Timestamp(1_000),
        updated_at: Timestamp(2_000),
        values: draft.values,
    }
}

#[test]
fn a_create_gets_defaults_and_an_optional_key() {
    let schema = product::schema();
    let draft =
        parse_create(&schema, br#" {"id":"p-1", "name":"Tea", "price":"19.90", "category":null} "#).unwrap();
    assert_eq!(draft.key.unwrap().as_str(), "p-1");
    let json = Record { values: draft.values, ..record(&schema, r#"{"id":"p-1","name":"Tea","price":0}"#) }
        .to_json(&schema);
    assert_eq!(
        json,
        r#"{"id":"p-1","version":3,"created_at":"1970-01-01T00:00:01.000Z","updated_at":"1970-01-01T00:00:02.000Z","name":"Tea","description":null,"price":19.9,"currency":"USD","category":null,"brand":null,"stock":0,"attributes":null}"#
    );
}

#[test]
fn every_fault_of_a_body_is_listed_at_once() {
    let body = br#"{"name":7,"price":-1,"currency":"usd","stock":1.5,"attributes":[],"colour":"red","version":1,"id":"a b","brand":"x\u0000"}"#;
    let faults = faults(parse_create(&product::schema(), body));
    let fields: Vec<&str> = faults.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
    assert_eq!(
        fields,
        ["name", "price", "currency", "stock", "attributes", "colour", "version", "id", "brand"]
    );
}

#[test]
fn what_is_missing_is_named_once() {
    assert_eq!(faults(parse_create(&product::schema(), b"{}")), ["name: is required", "price: is required"]);
    assert_eq!(
        faults(parse_create(&product::schema(), br#"{"name":"","price":null}"#)),
        ["name: must not be empty", "price: is required"]
    );
}

#[test]
fn a_repeated_key_is_a_fault_at_every_depth() {
    let twice = br#"{"name":"a","name":"b","price":1,"attributes":{"x":{"y":1,"y":2}}}"#;
    assert_eq!(
        faults(parse_create(&product::schema(), twice)),
        ["name: is given twice", "attributes.x.y: is given twice"]
    );
}

#[test]
fn what_is_no_json_object_is_malformed_with_its_place() {
    assert!(malformed(b"{\"name\": }").contains("line 1 column 10"));
    assert!(malformed(b"{\"name\": \"\xff\"}").contains("byte 10"));
    for bad in [
        "",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{} {}",
        "{'a':1}",
        "{\"a\":1,}",
        "\u{feff}{}",
        "{\"a\":01}",
        "{\"a\":NaN}",
    ] {
        malformed(bad.as_bytes());
    }
}

#[test]
fn numbers_keep_their_digits_and_their_bounds() {
    let schema = payment::schema();
    let amount = |text: &str| {
        let body = format!(r#"{{"user_id":"u","currency":"CLF","amount":{text}}}"#);
        parse_create(&schema, body.as_bytes()).map(|draft| draft.values.0[2].clone())
    };
    for (text, kept) in [
        ("19.90", "19.9"),
        ("\"0.0001\"", "0.0001"),
        ("99999999999.9999", "99999999999.9999"),
        ("1e3", "1000"),
    ] {
        assert_eq!(amount(text).unwrap(), Value::Decimal(kept.parse().unwrap()), "{text}");
    }
    for bad in [
        "0",
        "-1",
        "100000000000",
        "0.00001",
        "1e400",
        "1e-400",
        "\"\"",
        "\"NaN\"",
        "true",
        "{}",
        &"9".repeat(1_000),
    ] {
        assert!(faults(amount(bad))[0].starts_with("amount: "), "{bad}");
    }
    let stock = |text: &str| {
        parse_create(&product::schema(), format!(r#"{{"name":"a","price":1,"stock":{text}}}"#).as_bytes())
    };
    assert!(stock("9223372036854775807").is_err());
    assert!(stock("99999999999999999999999999").is_err());
    assert!(stock("-1").is_err());
    assert_eq!(stock("\"1\"").unwrap().values, stock("1").unwrap().values);
    assert!(stock("\"1.0\"").is_err());
}

#[test]
fn mail_addresses_are_checked() {
    let schema = user::schema();
    let user = |email: &str| parse_create(&schema, format!(r#"{{"name":"A","email":"{email}"}}"#).as_bytes());
    for good in ["a@b.co", "a.b+c@d-e.example.org", "ü@münchen.example"] {
        assert!(user(good).is_ok(), "{good}");
    }
    for bad in ["", "a", "a@b", "@b.co", "a@", "a@b..co", "a b@c.de", "a@b@c.de", "a@-b.de", "a\\n@b.co"] {
        assert!(faults(user(bad))[0].starts_with("email: "), "{bad}");
    }
}

#[test]
fn an_order_lists_the_faults_of_its_items_and_sums_them_exactly() {
    let schema = order::schema();
    let order =
        |items: &str| parse_create(&schema, format!(r#"{{"user_id":"u","items":{items}}}"#).as_bytes());
    let bad = r#"[{"product_id":"a","quantity":0},{"quantity":1,"price":-1},{"product_id":"/","quantity":1,"x":1},7]"#;
    assert_eq!(
        faults(order(bad)),
        [
            "items[0].quantity: must be a whole number from 1 to 1000000",
            "items[1].product_id: is required",
            "items[1].price: must be from 0 to 99999999999.9999",
            "items[2].x: is not a field of an item",
            "items[2].product_id: must be 1 to 128 letters, digits and . _ ~ : @ -, the first a letter or digit",
            "items[3]: must be an object",
        ]
    );
    assert!(faults(order("[]"))[0].starts_with("items: "));
    let mut row = order(
        r#"[{"product_id":"a","quantity":3,"price":0.1},{"product_id":"b","quantity":1,"price":"19.90"}]"#,
    )
    .unwrap()
    .values;
    (schema.derive)(&schema, &mut row);
    assert_eq!(row.0[2], Value::Decimal("20.2".parse().unwrap()));
    let items = order::items(&schema, &row).unwrap();
    order::set_items(&schema, &mut row, &items);
    assert_eq!(order::items(&schema, &row).unwrap(), items);
}

#[test]
fn a_record_may_be_sent_back_as_it_was_read() {
    let schema = payment::schema();
    let record = record(&schema, r#"{"id":"p","user_id":"u","amount":1,"currency":"EUR"}"#);
    let back = parse_replace(&schema, record.to_json(&schema).as_bytes()).unwrap();
    assert_eq!(back.echo.version, Some(Version(3)));
    assert_eq!(back.echo.check(&schema, &record), Ok(()));
    let forged = parse_replace(
        &schema,
        br#"{"id":"q","created_at":"2026-01-01T00:00:00Z","status":"completed","user_id":"u","amount":1,"currency":"EUR"}"#,
    );
    let forged = forged.unwrap();
    assert_eq!(forged.echo.check_key(&schema, &record.key).unwrap_err().field, "id");
    let fields: Vec<String> =
        forged.echo.check(&schema, &record).unwrap_err().into_iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["created_at", "status"]);
}

/// The examples of RFC 7396, appendix A, below a field that holds any JSON.
#[test]
fn patches_merge_as_the_rfc_says() {
    let schema = configuration::schema();
    let cases = [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
        (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
        (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ];
    for (target, patch, result) in cases {
        let record = record(&schema, &format!(r#"{{"value":{target}}}"#));
        let patch = parse_patch(&schema, format!(r#"{{"value":{patch}}}"#).as_bytes()).unwrap();
        let row = patch.apply(&schema, &record.values).unwrap();
        assert_eq!(row.0[0], Value::Json(Json::parse(result).unwrap()), "{target}");
    }
}

#[test]
fn a_patch_keeps_removes_and_checks() {
    let schema = product::schema();
    let record = record(&schema, r#"{"name":"Tea","price":1,"category":"drinks","stock":5}"#);
    let apply = |patch: &str| {
        parse_patch(&schema, patch.as_bytes()).and_then(|patch| patch.apply(&schema, &record.values))
    };
    let row = apply(r#"{"category":null,"stock":null,"price":2.5}"#).unwrap();
    assert_eq!(row.0[schema.index_of("name").unwrap()], Value::Text("Tea".into()));
    assert_eq!(row.0[schema.index_of("category").unwrap()], Value::Null);
    assert_eq!(row.0[schema.index_of("stock").unwrap()], Value::Int(0));
    assert_eq!(faults(apply(r#"{"name":null}"#)), ["name: is required"]);
    assert_eq!(faults(apply(r#"{"colour":1,"stock":-1}"#)).len(), 2);
    assert_eq!(apply("{}").unwrap(), record.values);
}

#[test]
fn large_and_deep_values_are_refused_by_name() {
    let schema = product::schema();
    let product = |name: &str, attributes: &str| {
        parse_create(
            &schema,
            format!(r#"{{"name":"{name}","price":1,"attributes":{attributes}}}"#).as_bytes(),
        )
    };
    assert_eq!(faults(product(&"a".repeat(1 << 20), "{}")), ["name: must have at most 255 characters"]);
    assert_eq!(
        faults(product("a", &format!(r#"{{"a":"{}"}}"#, "b".repeat(1 << 20)))),
        ["attributes: must have at most 65536 bytes as JSON"]
    );
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(faults(product("a", &deep))[0].contains("nested deeper"));
}
