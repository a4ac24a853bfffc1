//! Rows and documents that other programs wrote, by a plain client: what has an exact meaning is read, the
//! rest is told of alone, and pages go on.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};

use super::*;
use model::{
    budget::Allowance,
    query::{Comparison, Direction, Filter, Query, Start},
    record::Named,
    schema::FieldRef,
};

/// The columns between the version and the times.
const FIELDS: [&str; 6] = ["label", "size", "price", "active", "seen", "tags"];

/// What one row or document holds in one field, as each store writes it, and what is to be read there.
struct Case {
    key: String,
    field: &'static str,
    /// The literal in MySQL, in SQLite, and the value in MongoDB; none where the store cannot hold such a
    /// thing.
    mysql: Option<String>,
    sqlite: Option<String>,
    mongo: Option<Bson>,
    /// None where it has no exact meaning.
    value: Option<Value>,
}

fn shelves() -> Arc<Collection> {
    let fields = vec![
        Field::new("label", Kind::text(65_535)),
        Field::new("size", Kind::Int { min: i64::MIN, max: i64::MAX }),
        Field::new("price", Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: 28 }),
        Field::new("active", Kind::Bool),
        Field::new("seen", Kind::Time),
        Field::new("tags", Kind::json(Shape::Any)),
    ];
    Arc::new(Collection {
        pool: "shelves".to_owned(),
        schema: Arc::new(Schema {
            key: "no".to_owned(),
            any_key: true,
            ..Schema::new("shelf", "shelves", fields)
        }),
        name: "shelves".to_owned(),
        key_column: "no".to_owned(),
        version_column: Some("version".to_owned()),
        declared: true,
    })
}

fn number(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

fn case(field: &'static str, sql: [Option<&str>; 2], mongo: Option<Bson>, value: Option<Value>) -> Case {
    let [mysql, sqlite] = sql.map(|literal| literal.map(str::to_owned));
    Case { key: String::new(), field, mysql, sqlite, mongo, value }
}

/// Values of fields, then versions and times, then keys.
fn cases() -> Vec<Case> {
    let wide = "18446744073709551615";
    let digits34 = "1234567890123456789012.345678901234";
    let digits65 = "12345678901234567890123456789012345.123456789012345678901234567891";
    let long = "x".repeat(70_000);
    let quoted = format!("'{long}'");
    let both = |literal: &'static str| [Some(literal), Some(literal)];
    let exact = |text: &str| Some(Value::exact(text).unwrap());
    let int = |number: i64| Some(Value::Int(number));
    let none = Bson::Null;
    let mut all = vec![
        case("size", [Some(wide), None], Some(number(wide)), Value::whole(wide)),
        case(
            "size",
            [Some("9223372036854775808"), None],
            Some(number("9223372036854775808")),
            Value::whole("9223372036854775808"),
        ),
        case("size", both("9223372036854775807"), Some(Bson::Int64(i64::MAX)), int(i64::MAX)),
        case("size", both("5.0"), Some(Bson::Double(5.0)), int(5)),
        case("size", both("7"), Some(Bson::Int32(7)), int(7)),
        case("size", both("8"), Some(number("8.00")), int(8)),
        case("size", both("NULL"), Some(none.clone()), Some(Value::Null)),
        case("size", [None, Some("5.5")], Some(Bson::Double(5.5)), None),
        case("size", [None, Some("'many'")], Some("many".into()), None),
        case(
            "size",
            [None, Some("x'ff00'")],
            Some(Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: vec![255],
            })),
            None,
        ),
        case("size", [None, None], Some(Bson::Document(doc! { "a": 1 })), None),
        case("size", [None, None], Some(number("NaN")), None),
        case("price", [Some(digits65), None], None, exact(digits65)),
        case(
            "price",
            [None, Some("'12345678901234567890123456789012345.123456789012345678901234567891'")],
            None,
            exact(digits65),
        ),
        case(
            "price",
            [Some(digits34), Some("'1234567890123456789012.345678901234'")],
            Some(number(digits34)),
            exact(digits34),
        ),
        case("price", both("'19.9'"), Some(Bson::Double(19.9)), exact("19.9")),
        case("price", both("'5.00'"), Some(Bson::Double(5.0)), exact("5")),
        case("price", both("'100'"), Some(number("1E+2")), exact("100")),
        case("price", both("'0'"), Some(number("-0")), exact("0")),
        case("price", both("'3'"), Some(Bson::Int64(3)), exact("3")),
        case("price", [None, Some("'NaN'")], Some(Bson::Double(f64::NAN)), None),
        case("price", [None, Some("'Infinity'")], Some(Bson::Double(f64::INFINITY)), None),
        case("price", [None, Some("''")], Some(Bson::Double(0.1 + 0.2)), None),
        case("price", [None, Some("'cheap'")], Some("cheap".into()), None),
        case("price", [None, None], Some(Bson::Array(vec![Bson::Int32(1)])), None),
        case("active", both("1"), Some(Bson::Boolean(true)), Some(Value::Bool(true))),
        case("active", both("7"), None, Some(Value::Bool(true))),
        case("active", [None, Some("'yes'")], Some("yes".into()), None),
        case("active", [None, Some("0.5")], Some(Bson::Int32(7)), None),
        case(
            "seen",
            [Some("'2026-01-31 12:00:00.5'"), Some("'2026-01-31T12:00:00.500Z'")],
            Some(Bson::DateTime(bson::DateTime::from_millis(1_769_860_800_500))),
            Some(time("2026-01-31T12:00:00.500Z")),
        ),
        case("seen", [Some("'0000-00-00'"), Some("'0000-00-00'")], Some("0000-00-00".into()), None),
        case(
            "seen",
            [None, Some("'yesterday'")],
            Some(Bson::DateTime(bson::DateTime::from_millis(i64::MAX))),
            None,
        ),
        case("seen", [None, Some("12345")], Some(Bson::Int64(12_345)), None),
        case("tags", both("'{\"a\":1}'"), Some(Bson::Document(doc! { "a": 1 })), Some(json(r#"{"a":1}"#))),
        case("tags", both("'{not json'"), None, None),
        case("tags", both("''"), None, None),
        case("label", both("''"), Some("".into()), Some(text(""))),
        case("label", [None, Some("CAST(x'61ff62' AS TEXT)")], None, None),
        case("label", [None, Some("x'6162'")], Some(Bson::Int32(5)), None),
        case("version", both("0"), Some(Bson::Int32(0)), int(0)),
        case("version", both("NULL"), Some(none.clone()), int(1)),
        case("version", both("3.0"), Some(Bson::Double(3.0)), int(3)),
        case("version", both("-5"), Some(Bson::Int64(-5)), None),
        case("version", [None, Some("'one'")], Some("one".into()), None),
        case("created_at", both("NULL"), Some(none), Some(time("1970-01-01T00:00:00.000Z"))),
        case(
            "created_at",
            [Some("'0000-00-00'"), Some("'long ago'")],
            Some(Bson::DateTime(bson::DateTime::from_millis(i64::MIN))),
            None,
        ),
    ];
    all.push(Case {
        mysql: Some(quoted.clone()),
        sqlite: Some(quoted),
        ..case("label", [None, None], Some(long.as_str().into()), Some(text(&long)))
    });
    for (index, case) in all.iter_mut().enumerate() {
        case.key = format!("k{index:02}");
    }
    let longest = "ü".repeat(127) + "x";
    for key in [
        "k050 b", "Zürich", "AB/12", "_under", "", "a,b", "100%", "\"q\"", "it's", "a\nb", "trail ",
        "search", "007", &longest,
    ] {
        let label = case("label", both("'x'"), Some("x".into()), Some(text("x")));
        all.push(Case { key: key.to_owned(), ..label });
    }
    all
}

/// Writes the cases that a store can hold, as a plain client does; gives them back.
async fn fill(target: &Target) -> Vec<Case> {
    let Place::Mongo { options } = &target.place else { return fill_table(target).await };
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.mongo.is_some()).collect();
    let documents = documents::database(options).await.collection::<Document>("shelves");
    for case in &cases {
        let mut document =
            doc! { "_id": &case.key, "version": 2, "created_at": bson::DateTime::from_millis(0) };
        document.insert(case.field, case.mongo.clone().unwrap());
        documents.insert_one(document).await.unwrap();
    }
    cases
}

async fn fill_table(target: &Target) -> Vec<Case> {
    let is_mysql = matches!(target.place, Place::Mysql { .. });
    let (key, rest) = match is_mysql {
        true => (
            "VARCHAR(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY",
            "version BIGINT, label LONGTEXT, size BIGINT UNSIGNED, price DECIMAL(65,30), active TINYINT, \
             seen DATETIME(6), tags LONGTEXT, created_at DATETIME(3)) CHARACTER SET utf8mb4",
        ),
        false => (
            "TEXT PRIMARY KEY",
            "version INTEGER, label TEXT, size INTEGER, price TEXT, active INTEGER, seen TEXT, tags TEXT, created_at TEXT)",
        ),
    };
    sql::by_hand(target, &format!("CREATE TABLE shelves (no {key}, {rest}")).await;
    let literal = |case: &Case| if is_mysql { case.mysql.clone() } else { case.sqlite.clone() };
    let cases: Vec<Case> = cases().into_iter().filter(|case| literal(case).is_some()).collect();
    for case in &cases {
        let (key, value) = (case.key.replace('\'', "''"), literal(case).unwrap());
        let ignore = if is_mysql { "IGNORE " } else { "" };
        let (columns, values) = match case.field {
            "version" => ("version".to_owned(), value),
            field => (format!("version, {field}"), format!("2, {value}")),
        };
        sql::by_hand(
            target,
            &format!("INSERT {ignore}INTO shelves (no, {columns}) VALUES ('{key}', {values})"),
        )
        .await;
    }
    cases
}

/// What is read of a case.
fn value_of(record: &Record, field: &str) -> Value {
    match field {
        "version" => Value::Int(record.version.0 as i64),
        "created_at" => Value::Time(record.created_at),
        field => record.values.0[FIELDS.iter().position(|name| *name == field).unwrap()].clone(),
    }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// The one number that MongoDB sorts below all numbers, and what stands in for it above them: there it comes
/// on each page after them.
fn is_no_number(key: &str) -> bool {
    let is_nan = |bson: &Bson| matches!(bson, Bson::Decimal128(number) if number.to_string() == "NaN");
    cases().iter().any(|case| case.key == key && case.mongo.as_ref().is_some_and(is_nan))
}

/// All keys of a list in pages, each with whether its record can be read. Fails where one comes twice.
async fn listed(
    target: &Target,
    shelves: &Collection,
    order: Vec<(FieldRef, Direction)>,
) -> BTreeSet<(String, bool)> {
    let mut query = Query {
        filter: Filter::All,
        order,
        start: Start::Offset(0),
        limit: 3,
        count: true,
        allowance: Allowance::default(),
    };
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let page = target.store.find(shelves, &query).await.unwrap();
        let whole = page.records.iter().map(|record| (record.key.to_string(), true));
        let odd = page.unreadable.iter().map(|Named { key, .. }| (key.clone().unwrap(), false));
        for one in whole.chain(odd) {
            let may_come_again = matches!(target.place, Place::Mongo { .. }) && is_no_number(&one.0);
            assert!(seen.insert(one.clone()) || may_come_again, "{one:?} comes twice: {:?}", query.order);
        }
        match page.next {
            Some(next) => query.start = Start::After(next),
            None => return seen,
        }
    }
    panic!("the pages do not end");
}

pub async fn what_has_a_meaning_is_read_and_the_rest_is_alone(target: &Target) {
    let (cases, shelves) = (fill(target).await, shelves());
    assert!(cases.len() >= 35, "{}", cases.len());
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    let keys: Vec<Key> = cases.iter().map(|case| key(&case.key)).collect();
    let found = target.store.read(&shelves, &keys).await.unwrap();
    for (case, found) in cases.iter().zip(&found) {
        match (found, &case.value) {
            (Lookup::Found(record), Some(value)) => {
                assert_eq!(value_of(record, case.field), *value, "{} {}", case.key, case.field);
            }
            (Lookup::Unreadable(unreadable), None) => {
                assert_eq!(unreadable.first().field, case.field, "{}", case.key);
                assert!(
                    !unreadable.first().kind.is_empty() && unreadable.first().kind.len() < 40,
                    "{unreadable:?}"
                );
            }
            (found, value) => panic!("{} {}: {found:?} instead of {value:?}", case.key, case.field),
        }
    }
    let all: BTreeSet<(String, bool)> =
        cases.iter().map(|case| (case.key.clone(), case.value.is_some())).collect();
    assert_eq!(listed(target, &shelves, Vec::new()).await, all);
    for field in [0, 1, 4] {
        for direction in [Direction::Descending, Direction::Ascending] {
            // what stands in for MongoDB takes 9223372036854775807 for as much as anything above it when it
            // sorts, but not when it looks for it
            if (field, direction) == (1, Direction::Ascending) && matches!(target.place, Place::Mongo { .. })
            {
                continue;
            }
            let order = vec![(FieldRef::Field(field), direction)];
            assert_eq!(listed(target, &shelves, order).await, all, "{field} {direction:?}");
        }
    }
    let query = Query {
        filter: Filter::All,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 1000,
        count: true,
        allowance: Allowance::default(),
    };
    let page = target.store.find(&shelves, &query).await.unwrap();
    assert_eq!(page.total, Some(cases.len() as u64));
    let find = async |filter: Filter| {
        let found = target.store.find(&shelves, &Query { filter, ..query.clone() }).await.unwrap();
        found.records.into_iter().map(|record| record.key.to_string()).collect::<Vec<_>>()
    };
    let compare = |field: usize, comparison, value: &str| {
        Filter::Compare(FieldRef::Field(field), comparison, Value::exact(value).unwrap())
    };
    let expected = |field: &str, fits: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let fits = |case: &&Case| case.field == field && case.value.as_ref().is_some_and(fits);
        cases.iter().filter(fits).map(|case| case.key.clone()).collect()
    };
    let price = Value::exact("19.9").unwrap();
    assert_eq!(find(compare(2, Comparison::Eq, "19.9")).await, expected("price", &|value| *value == price));
    let digits34 = Value::exact("1234567890123456789012.345678901234").unwrap();
    let same = compare(2, Comparison::Eq, "1234567890123456789012.345678901234");
    assert_eq!(find(same).await, expected("price", &|value| *value == digits34));
    // the same of the first here
    let halves = ["9223372036854775807", "9223372036854775808"];
    for half in &halves[usize::from(matches!(target.place, Place::Mongo { .. }))..] {
        let half = Value::whole(half).unwrap();
        let above = Filter::Compare(FieldRef::Field(1), Comparison::Gt, half.clone());
        let wanted = expected("size", &|value| value.compare(&half).is_gt());
        // an embedded database holds none
        assert_eq!(wanted.is_empty(), matches!(target.place, Place::File(_)));
        assert_eq!(find(above).await, wanted, "{half:?}");
    }
    assert_eq!(
        find(Filter::Compare(FieldRef::Field(3), Comparison::Eq, Value::Bool(true))).await,
        expected("active", &|value| *value == Value::Bool(true))
    );
}

pub async fn a_change_mends_what_cannot_be_read(target: &Target) {
    let (cases, shelves) = (fill(target).await, shelves());
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    let row =
        Row(vec![text("mended"), Value::Int(1), decimal("1.5"), Value::Bool(false), Value::Null, json("[]")]);
    for (index, case) in cases.iter().filter(|case| case.value.is_none()).enumerate() {
        let known = if case.field == "version" { 0 } else { 2 };
        let create = target.one(create(&shelves, &case.key, row.clone())).await;
        assert!(matches!(create, Err(StoreError::Exists)), "{create:?}");
        let stale = target.one(replace(&shelves, &case.key, exactly(9), row.clone())).await;
        assert!(matches!(stale, Err(StoreError::Stale { .. })), "{stale:?}");
        let guard = if known == 2 { exactly(2) } else { Guard::Any };
        if index % 2 == 0 {
            let written = target.one(replace(&shelves, &case.key, guard, row.clone())).await.unwrap();
            assert_eq!(written.version, Version(known + 1), "{} {}", case.key, case.field);
            assert_eq!(found(target.lookup(&shelves, &case.key).await).values, row);
        } else {
            let gone = target.one(delete(&shelves, &case.key, guard)).await.unwrap().version;
            assert_eq!(target.lookup(&shelves, &case.key).await, Lookup::Deleted(gone));
        }
    }
    assert!(listed(target, &shelves, Vec::new()).await.iter().all(|(_, whole)| *whole));
}

pub async fn keys_are_any_text(target: &Target) {
    let (cases, shelves) = (fill(target).await, shelves());
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    let row = Row(vec![text("new"), Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]);
    for case in cases.iter().filter(|case| !case.key.starts_with('k') || case.key.contains(' ')) {
        let written = target.one(replace(&shelves, &case.key, exactly(2), row.clone())).await.unwrap();
        assert_eq!((written.key.as_str(), written.version), (case.key.as_str(), Version(3)));
        assert_eq!(found(target.lookup(&shelves, &case.key).await).values, row, "{:?}", case.key);
        target.one(delete(&shelves, &case.key, exactly(3))).await.unwrap();
        assert_eq!(target.lookup(&shelves, &case.key).await, Lookup::Deleted(Version(4)), "{:?}", case.key);
        let again = target.one(create(&shelves, &case.key, row.clone())).await.unwrap();
        assert_eq!(again.version, Version(5), "{:?}", case.key);
    }
    // the row's own spelling is its key, whatever the collation says
    for other in ["ZÜRICH", "zurich", "trail", "K050 B"] {
        assert_eq!(target.lookup(&shelves, other).await, Lookup::Missing, "{other:?}");
        let result = target.one(delete(&shelves, other, Guard::Any)).await;
        assert!(matches!(result, Err(StoreError::NotFound)), "{result:?}");
    }
    assert_eq!(found(target.lookup(&shelves, "Zürich").await).version, Version(5));
}
